"""Change the champion: write the change into the ledger, the source of truth, then move the aliases.

A promotion that is killed in between is completed by the next call of promote, rollback or reconcile.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mlflow import MlflowClient

from components.artifacts.verdict import Verdict
from components.core.errors import BadInput, BadModel, NotFound
from components.ledger import Action, Entry, Ledger, Request, StaleVerdict
from components.ledger.records import Expected, check_expected
from components.mlflow_store.connection import connect, translated_errors
from components.mlflow_store.registry.aliases import champion_lock, find_champion, reconcile, sync_aliases_locked
from components.mlflow_store.registry.verdicts import read_verdict, verdict_lock
from components.mlflow_store.registry.verify import checked_package, registered_version, verify
from components.mlflow_store.registry.versions import Version, find, search, versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """Actor and reason of a change.

    `expected` is the champion that the verdict is about (None: no champion; "any": a person decides without a verdict). `evidence` is the
    digest of the verdict, and `request` the approval request that the decision answers, if any: both must still be current when the
    ledger is written.
    """

    expected: Expected
    who: str
    why: str
    action: Action = "promoted"
    forced: bool = False
    origin: str | None = None
    evidence: str | None = None
    request: Request | None = None


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion; `changed` is false if the version already was the champion. `entry` is the ledger's head."""

    version: Version
    previous: int | None
    changed: bool
    entry: Entry


def promote(uri: str, ledger_url: str, name: str, number: int, decision: Decision, verified: bool = False) -> Promotion:
    """Verify a version and make it the champion; the old champion becomes `previous`. Repeating it changes nothing.

    `verified` means that this package has answered in this run: then its files are checked, but it is not loaded again.

    Raises:
        NotFound: the version does not exist; nothing was moved.
        BadModel: the verification failed; nothing was moved.
        BadInput: meanwhile the version was judged again, the request was answered, or this evidence was rejected; nothing was moved.
        StaleVerdict: the champion is not the one that the decision expects; nothing was moved.
    """
    version, ledger = registered_version(uri, name, number), Ledger(ledger_url)
    for sentence in reconcile(uri, ledger_url, name):
        log.info("%s: %s", name, sentence)
    if not _is_of(head := ledger.head(name), version):
        check_expected(decision.expected, head, decision.action)  # fail before loading a model; the ledger checks it again
        if verified:
            checked_package(uri, version)
        else:
            verify(uri, name, number)
    return swap_champion(uri, ledger, version, decision, read_verdict(uri, version, decision.evidence))


def rollback(uri: str, ledger_url: str, name: str, to: int | None, who: str, why: str) -> Promotion:
    """Verify an earlier champion and make it the champion again: version `to`, or the previous champion.

    A version that was itself rolled back is only chosen if `to` names it.

    Raises:
        NotFound: there is no champion, or no earlier one.
        BadInput: version `to` was never champion, or is the champion.
        BadModel: the verification failed; nothing was moved.
        StaleVerdict: the champion was changed meanwhile; nothing was moved.
    """
    for sentence in reconcile(uri, ledger_url, name):
        log.info("%s: %s", name, sentence)
    known = {(version.number, version.key) for version in versions(uri, name)}
    entries = Ledger(ledger_url).entries(name)
    registered = {entry.version for entry in entries if (entry.version, entry.key) in known}
    number = rollback_target(name, entries, registered, to)
    return promote(uri, ledger_url, name, number, Decision(entries[-1].version, who, why, "rolled back"))


def rollback_target(name: str, entries: Sequence[Entry], registered: set[int], to: int | None) -> int:
    """Return the version to roll back to: `to`, or the newest earlier champion of the stack that is still `registered`.

    Raises:
        NotFound: there is no champion, no earlier one, or version `to` was deleted.
        BadInput: version `to` was never champion, or is the champion.
    """
    if not entries:
        raise NotFound(f"{name} has no champion yet, so there is nothing to roll back")
    if to is None:
        number = next((number for number in reversed(champion_stack(entries)[:-1]) if number in registered), None)
        if number is None:
            raise NotFound(f"{name} has no earlier champion; choose a version with `retune rollback {name} --to VERSION`")
        return number
    if to not in (champions := {entry.version for entry in entries}):
        known = ", ".join(map(str, sorted(champions)))
        raise BadInput(f"version {to} of {name} was never champion (champions: {known}); `retune promote {name} {to}` promotes it")
    if to == entries[-1].version:
        raise BadInput(f"version {to} of {name} is already the champion")
    if to not in registered:
        raise NotFound(f"version {to} of {name} was champion but was deleted from the registry")
    return to


def champion_stack(entries: Sequence[Entry]) -> list[int]:
    """Return the champions that were not rolled back, oldest first; the last one is the current champion."""
    stack: list[int] = []
    for entry in entries:
        stack = _push(stack, entry.action, entry.version)
    return stack


def _push(stack: list[int], action: Action, version: int) -> list[int]:
    """Return the champion stack after one more change; a version may enter and leave it several times."""
    if action == "rolled back" and version in stack:
        stack = stack[: len(stack) - 1 - stack[::-1].index(version)]
    return [*stack, version]


def swap_champion(uri: str, ledger: Ledger, version: Version, decision: Decision, verdict: Verdict | None = None) -> Promotion:
    """Write the change into the ledger and move the aliases, without loading or checking a package.

    The model's champion lock is held throughout, so that nobody deletes the version in between.

    Raises:
        NotFound: the version was deleted meanwhile; nothing was moved.
        BadModel: its number belongs to another model now; nothing was moved.
        BadInput: the evidence or the request of the decision is not current any more; nothing was moved.
        StaleVerdict: the champion is not the one that the decision expects; nothing was moved.
    """
    with translated_errors(uri), champion_lock(uri, version.name):
        client = connect(uri)
        sync_aliases_locked(client, ledger, version.name)
        with verdict_lock(uri, version.name):
            _check_same(find(client, version.name, version.number), version, decision)
            entry, changed = _append(client, ledger, version, decision, verdict)
        sync_aliases_locked(client, ledger, version.name)
        promoted = find(client, version.name, version.number)
    if changed:
        previous = f"previous champion: version {entry.previous}" if entry.previous else "no previous champion"
        log.info("%s is now the champion (%s)", version.uri, previous)
    return Promotion(promoted, entry.previous, changed, entry)


def _check_same(current: Version, version: Version, decision: Decision) -> None:
    """Reject a version that is not the verified one, or was judged again after the decision."""
    if current.key != version.key or not current.complete:
        raise BadModel(f"{version.uri} was deleted or replaced during its verification; nothing was promoted")
    if decision.evidence is not None and current.evidence != decision.evidence:
        state = f"is now {current.evidence[:12]}" if current.evidence else "is being replaced"
        raise BadInput(f"the decision was about evidence {decision.evidence[:12]}, but the verdict on {version.uri} {state}: review again")


def _append(client: MlflowClient, ledger: Ledger, version: Version, decision: Decision, verdict: Verdict | None) -> tuple[Entry, bool]:
    """Return the entry that made the version the champion, and whether this call wrote it."""
    # A copy was judged against versions that have other numbers here, and a forced version may have measured better but failed: neither
    # verdict can change the best champion.
    best_verdict = None if decision.origin or decision.forced else verdict
    while True:
        entries = ledger.entries(version.name)
        head = entries[-1] if entries else None
        if head is not None and _is_of(head, version):
            return head, False
        try:
            entry = ledger.append(
                version.name,
                expected=(head.version if head else None) if decision.expected == "any" else decision.expected,
                request=decision.request,
                action=decision.action,
                version=version.number,
                key=version.key,
                who=decision.who,
                why=decision.why,
                anchor=new_best_champion(
                    entries, version.number, decision.action, best_verdict, deleted=_best_champion_is_deleted(client, entries)
                ),
                verdict_key=verdict.key if verdict else None,
                outcome=verdict.outcome.value if verdict else None,
                evidence=verdict.evidence if verdict else None,
                forced=decision.forced,
                origin=decision.origin,
            )
        except StaleVerdict:
            if decision.expected != "any" and not _is_of(ledger.head(version.name), version):
                raise
            continue
        return entry, True


def _is_of(head: Entry | None, version: Version) -> bool:
    """Return whether an entry is about this version; the number alone may mean another model in another registry."""
    return head is not None and (head.version, head.key) == (version.number, version.key)


def _best_champion_is_deleted(client: MlflowClient, entries: Sequence[Entry]) -> bool:
    """Return whether the best champion so far was deleted from the registry and not registered again."""
    best = next((entry for entry in reversed(entries) if entry.version == entries[-1].anchor), None)
    if best is None:
        return False
    return find_champion(client, best) is None and all(version.key != best.key for version in search(client, best.model))


def new_best_champion(entries: Sequence[Entry], number: int, action: Action, verdict: Verdict | None, *, deleted: bool = False) -> int:
    """Return the best champion so far if `number` becomes champion.

    A promoted version becomes the best champion only if it was compared with the old one and is no worse; a forced or unmeasured
    promotion keeps the old one. If the old one was deleted (`deleted`), the new champion replaces it. A rollback restores the best
    champion of that version.
    """
    if action == "rolled back":
        return _old_best_champion(entries, number)
    head = entries[-1] if entries else None
    if head is None or head.anchor is None or deleted:
        return number
    is_best = head.version == head.anchor
    compared_with = (verdict.champion if is_best else verdict.anchor) if verdict else None
    if verdict is None or compared_with != str(head.anchor):
        return head.anchor  # the two were not compared
    # If the champion is the best one, the gate `best_champion` makes no comparison of its own.
    names = ("champion",) if is_best else ("best_champion", "anchor")  # `anchor` is its name in verdicts of earlier releases
    estimate = next((gate.estimate for gate in verdict.gates if gate.gate in names), None)
    return number if estimate is not None and estimate >= 0 else head.anchor


def _old_best_champion(entries: Sequence[Entry], number: int) -> int:
    removed = {entry.version for entry in entries} - {*_push(champion_stack(entries), "rolled back", number)}
    best = [entry.anchor for entry in reversed(entries) if entry.version == number and entry.anchor is not None]
    return next((champion for champion in best if champion == number or champion not in removed), number)
