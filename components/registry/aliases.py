"""The aliases follow the ledger: who is champion stands there, and what disagrees with it in MLflow's registry is moved back.

Reads the ledger; moves the aliases `champion` and `previous`, and takes `challenger` from who became champion.
"""

import logging
from datetime import UTC, datetime

from mlflow import MlflowClient

from components.ledger import Entry, Ledger, Outdated
from components.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, PROMOTED, Version, aliases_of, lookup
from components.store import alone, connect, reaching

log = logging.getLogger(__name__)

ADOPTED_BY = "retune"


def reconcile(uri: str, ledger_url: str, name: str) -> list[str]:
    """Compare a model's aliases with the ledger and mend them from it; return a sentence for whatever disagreed.

    Champions of a registry that is older than its ledger are adopted as the ledger's first entries.
    """
    with reaching(uri):
        return follow(uri, Ledger(ledger_url), name)


def follow(uri: str, ledger: Ledger, name: str) -> list[str]:
    """Bring the aliases to the ledger's head, and to the newer one where another process wrote meanwhile."""
    client, said = connect(uri), []
    with alone(uri, f"aliases {name}"):
        said += _adopt(client, ledger, name)
        while (head := ledger.head(name)) is not None:
            said += _mend(client, head)
            # Another machine, which this lock does not stop, may have promoted in between: who moved the aliases last looks again.
            if ledger.head(name) == head:
                break
    for sentence in said:
        log.info("%s: %s", name, sentence)
    return said


def _adopt(client: MlflowClient, ledger: Ledger, name: str) -> list[str]:
    """Make ledger entries of the aliases of a registry that had none."""
    if ledger.head(name) is not None:
        return []
    aliases, said = aliases_of(client, name), []
    if CHAMPION not in aliases:
        return []
    expected = None
    for alias in (PREVIOUS, CHAMPION):
        version = lookup(client, name, aliases[alias]) if alias in aliases else None
        if version is not None and version.number != expected:
            try:
                ledger.append(
                    name,
                    expected=expected,
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
            except Outdated:  # another process adopts it
                break
            expected = version.number
            said.append(f"version {version.number}, {alias} by its alias alone, was adopted into the ledger")
    return said


def find_champion(client: MlflowClient, head: Entry) -> Version | None:
    """Return the version that an entry is about; None where it was deleted, or its number is another model's in a new registry."""
    found = lookup(client, head.model, head.version)
    return found if found is not None and found.key == head.key else None


def _mend(client: MlflowClient, head: Entry) -> list[str]:
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
    if aliases.get(CHALLENGER) == head.version:
        client.delete_registered_model_alias(head.model, CHALLENGER)
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
