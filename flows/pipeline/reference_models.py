"""Whom a candidate is held against, as the ledger has it."""

from collections.abc import Sequence
from dataclasses import dataclass

from components.ledger import Entry
from components.mlflow_store import registry


@dataclass(frozen=True)
class ReferenceModels:
    """The ledger's entries of the champion and of the best champion so far; None where there is none, or it is the champion.

    `before` are all other models that ever were champion, newest first, each with its latest entry.
    """

    champion: Entry | None = None
    anchor: Entry | None = None
    before: tuple[Entry, ...] = ()


def reference_models(entries: Sequence[Entry], key: str) -> ReferenceModels:
    """Return whom the candidate `key` is held against: the champion, or the version whose place it took where it is the champion itself."""
    latest = {entry.version: entry for entry in entries}
    standing = [latest[number] for number in registry.champion_stack(entries)]
    while standing and standing[-1].key == key:  # twice where it was registered again under another number
        standing.pop()
    champion = standing[-1] if standing else None
    anchor = latest.get(champion.anchor) if champion is not None and champion.anchor is not None else None
    others = {entry.key: entry for entry in reversed(entries) if entry.key != key and (champion is None or entry.key != champion.key)}
    return ReferenceModels(
        champion,
        None if anchor is None or champion is None or anchor.key in (champion.key, key) else anchor,
        tuple(others[one] for one in others),
    )
