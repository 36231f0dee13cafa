"""The aliases follow the ledger: who is champion stands there, and what disagrees with it in MLflow's registry is moved back.

Reads the ledger; moves the aliases `champion` and `previous`, and takes `challenger` from who became champion.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from mlflow import MlflowClient

from components.ledger import Change, Entry, Ledger, StaleVerdict
from components.mlflow_store.connection import connect, store_lock, translated_errors
from components.mlflow_store.registry.artifact_access import models
from components.mlflow_store.registry.ledger_head import require_intact, store_head
from components.mlflow_store.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, PROMOTED, Version, aliases_of, lookup, search

log = logging.getLogger(__name__)

ADOPTED_BY = "retune"


def reconcile(uri: str, ledger_url: str, name: str) -> list[str]:
    """Compare a model's aliases with the ledger and mend them from it; return a sentence for whatever disagreed.

    Champions of a registry that is older than its ledger are adopted as the ledger's first entries.

    Raises:
        RetuneError: the ledger was changed behind Retune's back, or is not the one that MLflow knows; nothing was moved.
    """
    with translated_errors(uri), champion_lock(uri, name):
        return sync_aliases_locked(connect(uri), Ledger(ledger_url), name)


def follow(uri: str, ledger: Ledger, name: str) -> list[str]:
    """Bring the aliases to the ledger's head, and to the newer one where another process wrote meanwhile."""
    with champion_lock(uri, name):
        said = sync_aliases_locked(connect(uri), ledger, name)
    for sentence in said:
        log.info("%s: %s", name, sentence)
    return said


def champion_lock(uri: str, name: str) -> AbstractContextManager[None]:
    """Hold the lock of a model's champion: no other process of this machine promotes, moves aliases or deletes versions meanwhile."""
    return store_lock(uri, f"aliases {name}")


def sync_aliases_locked(client: MlflowClient, ledger: Ledger, name: str) -> list[str]:
    """Do what `follow` does, for who holds the lock; then MLflow keeps the ledger's head."""
    require_intact(client, ledger, name)
    store_head(client, ledger, name)
    said = [*_adopt(client, ledger, name), *_renumber(client, ledger, name)]
    while (head := ledger.head(name)) is not None:
        said += _mend(client, ledger, head)
        # Another machine, which this lock does not stop, may have promoted in between: who moved the aliases last looks again.
        if ledger.head(name) == head:
            break
    return said


def refresh_ledger_head(uri: str, ledger_url: str, name: str) -> None:
    """Verify the ledger, and let MLflow keep its head after rows that move no alias.

    Raises:
        RetuneError: as `reconcile`.
    """
    with translated_errors(uri), champion_lock(uri, name):
        client, ledger = connect(uri), Ledger(ledger_url)
        require_intact(client, ledger, name)
        store_head(client, ledger, name)


def accept_ledger(uri: str, ledger_url: str, who: str, why: str) -> None:
    """Begin a new chain over the ledger as it is, and let MLflow keep its head for every model of the registry."""
    ledger = Ledger(ledger_url)
    ledger.accept(who, why)
    for name in models(uri):
        with translated_errors(uri), champion_lock(uri, name):
            store_head(connect(uri), ledger, name)


def _adopt(client: MlflowClient, ledger: Ledger, name: str) -> list[str]:
    """Make ledger entries of the aliases of a registry that had none, all or none of them."""
    if ledger.head(name) is not None:
        return []
    found = list(_adoptable(client, name))
    entries = ledger.adopt(name, [_adopted(version, alias) for alias, version in found])
    called = {version.number: alias for alias, version in found}
    return [f"version {entry.version}, {called[entry.version]} by its alias alone, was adopted into the ledger" for entry in entries]


def _adoptable(client: MlflowClient, name: str) -> Iterator[tuple[str, Version]]:
    """Yield the versions at the aliases of the champions, the present one last; nothing where there is none."""
    aliases = aliases_of(client, name)
    champion = lookup(client, name, aliases[CHAMPION]) if CHAMPION in aliases else None
    if champion is None:
        return
    if PREVIOUS in aliases and aliases[PREVIOUS] != champion.number and (before := lookup(client, name, aliases[PREVIOUS])) is not None:
        yield PREVIOUS, before
    yield CHAMPION, champion


def _adopted(version: Version, alias: str) -> Change:
    return Change(
        action="adopted",
        version=version.number,
        key=version.key,
        who=ADOPTED_BY,
        why=f"the alias {alias} stood here before there was a ledger",
        anchor=version.number,
        verdict_key=version.verdict_key,
        outcome=version.verdict.value if version.verdict else None,
        evidence=version.evidence,
    )


def _renumber(client: MlflowClient, ledger: Ledger, name: str) -> list[str]:
    """Adopt the champion under the number that it has now, where its own is gone and the same model was registered again."""
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
            why=f"version {head.version} is gone from the registry, and the same model is version {again.number} there",
            anchor=again.number if head.anchor == head.version else head.anchor,
            verdict_key=head.verdict_key,
            outcome=head.outcome,
            evidence=head.evidence,
        )
    except StaleVerdict:  # another machine promoted meanwhile
        return []
    return [f"the champion, version {head.version}, is gone from the registry; version {again.number}, the same model, was adopted for it"]


def find_champion(client: MlflowClient, head: Entry) -> Version | None:
    """Return the version that an entry is about; None where it was deleted, or its number is another model's in a new registry."""
    found = lookup(client, head.model, head.version)
    return found if found is not None and found.key == head.key else None


def _mend(client: MlflowClient, ledger: Ledger, head: Entry) -> list[str]:
    """Move the aliases to where an entry wants them."""
    champion, aliases = find_champion(client, head), aliases_of(client, head.model)
    if champion is None:
        return [f"the ledger's champion, version {head.version}, was deleted from the registry: roll back or promote another one"]
    before = head.previous if head.previous not in (None, head.version) else None
    if before is not None and lookup(client, head.model, before) is None:
        before = None
    # The old champion is named before the new one, so that a reader who finds the new one finds its predecessor too.
    said = _point(client, head.model, PREVIOUS, before, aliases)
    said += _point(client, head.model, CHAMPION, head.version, aliases)
    if aliases_of(client, head.model).get(CHALLENGER) == head.version:  # read anew: a registration may have moved it meanwhile
        client.delete_registered_model_alias(head.model, CHALLENGER)
    store_head(client, ledger, head.model, champion)
    _stamp(client, champion)
    return said


def _point(client: MlflowClient, name: str, alias: str, number: int | None, aliases: dict[str, int]) -> list[str]:
    found = aliases.get(alias)
    if found == number:
        return []
    if number is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, str(number))
    return [f"the alias {alias} was {_called(found)}, and is {_called(number)} by the ledger"]


def _called(number: int | None) -> str:
    return "nowhere" if number is None else f"at version {number}"


def _stamp(client: MlflowClient, version: Version) -> None:
    if PROMOTED not in version.tags:
        client.set_model_version_tag(version.name, str(version.number), PROMOTED, datetime.now(UTC).isoformat(timespec="seconds"))
