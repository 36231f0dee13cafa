"""The versions that a candidate is compared with, according to the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.ledger import Entry
from components.mlflow_store import registry


@dataclass(frozen=True)
class ReferenceModels:
    """The ledger entries of the champion and of the best champion; None if there is none, or if it is the champion.

    `before` has the latest entry of every other model that was champion, newest first.
    """

    champion: Entry | None = None
    best_champion: Entry | None = None
    before: tuple[Entry, ...] = ()


def reference_models(entries: Sequence[Entry], key: str) -> ReferenceModels:
    """Return the reference models of the candidate `key`: the champion, or the previous champion if the candidate is the champion."""
    latest = {entry.version: entry for entry in entries}
    champions = [latest[number] for number in registry.champion_stack(entries)]
    while champions and champions[-1].key == key:  # twice if it was registered again under another number
        champions.pop()
    champion = champions[-1] if champions else None
    best = latest.get(champion.anchor) if champion is not None and champion.anchor is not None else None
    others = {entry.key: entry for entry in reversed(entries) if entry.key != key and (champion is None or entry.key != champion.key)}
    return ReferenceModels(
        champion,
        None if best is None or champion is None or best.key in (champion.key, key) else best,
        tuple(others.values()),
    )
