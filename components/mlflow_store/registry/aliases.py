"""Sync the aliases with the ledger: the ledger defines the champion, and differing aliases in MLflow's registry are corrected.

Reads the ledger; moves the aliases `champion` and `previous`, and removes `challenger` from a version that became champion.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from mlflow import MlflowClient

from components.ledger import Change, Entry, Ledger, StaleVerdict
from components.mlflow_store.connection import connect, store_lock, translated_errors
from components.mlflow_store.registry.artifact_access import models
from components.mlflow_store.registry.ledger_head import require_intact, store_head
from components.mlflow_store.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, PROMOTED, Version, aliases_of, lookup, search

ADOPTED_BY = "retune"


def reconcile(uri: str, ledger_url: str, name: str) -> list[str]:
    """Correct a model's aliases from the ledger, and return one sentence per correction.

    If the registry is older than its ledger, its champions become the ledger's first entries.

    Raises:
        RetuneError: the ledger was tampered with, or is not the one that MLflow refers to; nothing was moved.
    """
    with translated_errors(uri), champion_lock(uri, name):
        return sync_aliases_locked(connect(uri), Ledger(ledger_url), name)


def champion_lock(uri: str, name: str) -> AbstractContextManager[None]:
    """Hold the lock of a model's champion: no other process of this machine promotes, moves aliases or deletes versions meanwhile."""
    return store_lock(uri, f"aliases {name}")


def sync_aliases_locked(client: MlflowClient, ledger: Ledger, name: str) -> list[str]:
    """Correct the aliases like `reconcile`, and store the ledger's head in MLflow; the caller holds the lock."""
    require_intact(client, ledger, name)
    store_head(client, ledger, name)
    changes = [*_adopt(client, ledger, name), *_renumber(client, ledger, name)]
    while (head := ledger.head(name)) is not None:
        changes += _apply(client, ledger, head)
        # The lock does not stop other machines: repeat if one of them promoted meanwhile.
        if ledger.head(name) == head:
            break
    return changes


def refresh_ledger_head(uri: str, ledger_url: str, name: str) -> None:
    """Verify the ledger and store its head in MLflow, after ledger rows that move no alias; raise RetuneError as `reconcile` does."""
    with translated_errors(uri), champion_lock(uri, name):
        client, ledger = connect(uri), Ledger(ledger_url)
        require_intact(client, ledger, name)
        store_head(client, ledger, name)


def accept_ledger(uri: str, ledger_url: str, who: str, why: str) -> None:
    """Start a new chain over the present ledger, and store its head in MLflow for every registered model."""
    ledger = Ledger(ledger_url)
    ledger.accept(who, why)
    for name in models(uri):
        with translated_errors(uri), champion_lock(uri, name):
            store_head(connect(uri), ledger, name)


def _adopt(client: MlflowClient, ledger: Ledger, name: str) -> list[str]:
    """Write ledger entries for the aliases of a registry that has none, all of them or none."""
    if ledger.head(name) is not None:
        return []
    champions = list(_champions_by_alias(client, name))
    changes = [
        Change(
            action="adopted",
            version=version.number,
            key=version.key,
            who=ADOPTED_BY,
            why=f"the version had the alias {alias} before the ledger existed",
            anchor=version.number,
            verdict_key=version.verdict_key,
            outcome=version.verdict.value if version.verdict else None,
            evidence=version.evidence,
        )
        for alias, version in champions
    ]
    entries = ledger.adopt(name, changes)
    aliases = {version.number: alias for alias, version in champions}
    return [f"version {entry.version} had the alias {aliases[entry.version]} without a ledger entry; added one" for entry in entries]


def _champions_by_alias(client: MlflowClient, name: str) -> Iterator[tuple[str, Version]]:
    """Yield the versions with the aliases `previous` and `champion`, the champion last; nothing without a champion."""
    aliases = aliases_of(client, name)
    champion = lookup(client, name, aliases[CHAMPION]) if CHAMPION in aliases else None
    if champion is None:
        return
    if PREVIOUS in aliases and aliases[PREVIOUS] != champion.number and (before := lookup(client, name, aliases[PREVIOUS])) is not None:
        yield PREVIOUS, before
    yield CHAMPION, champion


def _renumber(client: MlflowClient, ledger: Ledger, name: str) -> list[str]:
    """If the champion was deleted and the same model registered again, adopt it under its new number."""
    head = ledger.head(name)
    if head is None or find_champion(client, head) is not None:
        return []
    again = next((version for version in reversed(search(client, name)) if version.complete and version.key == head.key), None)
    if again is None:
        return []
    try:
        ledger.append(
            name,
            expected=head.version,
            action="adopted",
            version=again.number,
            key=head.key,
            who=ADOPTED_BY,
            why=f"version {head.version} was deleted from the registry; the same model is registered as version {again.number}",
            anchor=again.number if head.anchor == head.version else head.anchor,
            verdict_key=head.verdict_key,
            outcome=head.outcome,
            evidence=head.evidence,
        )
    except StaleVerdict:  # another machine promoted meanwhile
        return []
    return [f"the champion, version {head.version}, was deleted from the registry; version {again.number}, the same model, replaces it"]


def find_champion(client: MlflowClient, head: Entry) -> Version | None:
    """Return the version of an entry; None if it was deleted, or its number belongs to another model in a new registry."""
    version = lookup(client, head.model, head.version)
    return version if version is not None and version.key == head.key else None


def _apply(client: MlflowClient, ledger: Ledger, head: Entry) -> list[str]:
    """Move the aliases to the versions of an entry."""
    champion, aliases = find_champion(client, head), aliases_of(client, head.model)
    if champion is None:
        return [f"the ledger's champion, version {head.version}, was deleted from the registry: roll back or promote another one"]
    before = head.previous if head.previous not in (None, head.version) else None
    if before is not None and lookup(client, head.model, before) is None:
        before = None
    # `previous` is moved first, so that a reader who sees the new champion also sees its predecessor.
    changes = _set_alias(client, head.model, PREVIOUS, before, aliases)
    changes += _set_alias(client, head.model, CHAMPION, head.version, aliases)
    if aliases_of(client, head.model).get(CHALLENGER) == head.version:  # read again: a registration may have moved it meanwhile
        client.delete_registered_model_alias(head.model, CHALLENGER)
    store_head(client, ledger, head.model, champion)
    if PROMOTED not in champion.tags:
        client.set_model_version_tag(champion.name, str(champion.number), PROMOTED, datetime.now(UTC).isoformat(timespec="seconds"))
    return changes


def _set_alias(client: MlflowClient, name: str, alias: str, number: int | None, aliases: dict[str, int]) -> list[str]:
    current = aliases.get(alias)
    if current == number:
        return []
    if number is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, str(number))
    return [f"moved the alias {alias} from {_version_text(current)} to {_version_text(number)}, as in the ledger"]


def _version_text(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"
