"""Who is in production: a change is written into the ledger first, which is the truth, and then the aliases follow it.

A promotion that is killed in between is mended by the next call, whichever it is: promote, roll back, reconcile.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mlflow import MlflowClient

from components.artifacts.verdict import Verdict
from components.core.errors import BadInput, BadModel, NotFound
from components.ledger import Action, Entry, Ledger, Request, StaleVerdict
from components.mlflow_store.connection import connect, translated_errors
from components.mlflow_store.registry.aliases import champion_lock, follow, sync_aliases_locked
from components.mlflow_store.registry.verdicts import read_verdict, verdict_lock
from components.mlflow_store.registry.verify import checked_package, registered_version, verify
from components.mlflow_store.registry.versions import Version, find, lookup, search

log = logging.getLogger(__name__)

Expected = int | Literal["any"] | None


@dataclass(frozen=True)
class Decision:
    """Who changes the champion and why. `expected` is the champion it was decided about (None: nobody), "any" for whoever it is.

    `evidence` is the digest of the verdict that was decided about, and `request` the question that this answers, where there is one:
    both must still hold when the ledger is written.
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
    """What a promotion did; `changed` is false when the version was the champion already. `entry` is the ledger's head."""

    version: Version
    previous: int | None
    changed: bool
    entry: Entry


def promote(
    uri: str,
    ledger_url: str,
    name: str,
    number: int,
    *,
    expected: Expected,
    who: str,
    why: str,
    forced: bool = False,
    action: Action = "promoted",
    verified: bool = False,
    origin: str | None = None,
    evidence: str | None = None,
    request: Request | None = None,
) -> Promotion:
    """Make a version the champion after it was verified; the old champion becomes `previous`. Repeating it changes nothing.

    `expected` is the champion (None: no champion) that the verdict was about; "any" for a person, who decides without one. `evidence` and
    `request` are what was decided about, and are looked at again when the ledger is written. `verified` says that this very package has
    answered in this run: then its files are checked, and it is not loaded again.

    Raises:
        NotThere: no such version; nothing was moved.
        BadModel: the verification failed; nothing was moved.
        BadInput: it was judged again, or the request answered, or this evidence rejected, meanwhile; nothing was moved.
        Outdated: the champion is another one than `expected`; nothing was moved.
    """
    version, ledger = registered_version(uri, name, number), Ledger(ledger_url)
    with translated_errors(uri):
        follow(uri, ledger, name)
    if not _is_of(head := ledger.head(name), version):
        _check_expected(head, expected, action)  # before a model is loaded for nothing; the ledger checks it again
        _check_package(uri, version, loaded=verified)
    decision = Decision(expected, who, why, action, forced, origin, evidence, request)
    return swap_champion(uri, ledger, version, decision, read_verdict(uri, version, evidence))


def rollback(uri: str, ledger_url: str, name: str, to: int | None, who: str, why: str) -> Promotion:
    """Make an earlier champion the champion again, after it was verified: version `to`, or the one before the present one.

    A version that was rolled back from is not gone back to, unless `to` names it.

    Raises:
        NotThere: there is no champion to go back from or to.
        BadInput: version `to` was never champion, or is the champion.
        BadModel: the verification failed; nothing was moved.
        Outdated: someone changed the champion meanwhile; nothing was moved.
    """
    with translated_errors(uri):
        follow(uri, ledger := Ledger(ledger_url), name)
        known = {(version.number, version.key) for version in search(connect(uri), name)}
    entries = ledger.entries(name)
    there = {entry.version for entry in entries if (entry.version, entry.key) in known}
    number = rollback_target(name, entries, there, to)
    return promote(uri, ledger_url, name, number, expected=entries[-1].version, who=who, why=why, action="rolled back")


def _check_expected(head: Entry | None, expected: Expected, action: Action) -> None:
    found = head.version if head else None
    if expected != "any" and expected != found:
        raise StaleVerdict(expected, found, action)


def _check_package(uri: str, version: Version, *, loaded: bool) -> None:
    if loaded:
        checked_package(uri, version)
    else:
        verify(uri, version.name, version.number)


def rollback_target(name: str, entries: Sequence[Entry], there: set[int], to: int | None) -> int:
    """Return the version to go back to: `to`, or the newest of the standing champions before the present one that is still `there`.

    Raises:
        NotThere: there is no champion, or none before it, or version `to` was deleted.
        BadInput: version `to` was never champion, or is the champion.
    """
    if not entries:
        raise NotFound(f"{name} has no champion yet: nothing can be rolled back")
    if to is None:
        number = next((number for number in reversed(champion_stack(entries)[:-1]) if number in there), None)
        if number is None:
            raise NotFound(f"{name} has no champion before the present one; `retune rollback {name} --to VERSION` names one")
        return number
    if to not in (champions := {entry.version for entry in entries}):
        known = ", ".join(map(str, sorted(champions)))
        raise BadInput(f"version {to} of {name} was never champion (those were: {known}); `retune promote {name} {to}` makes it one")
    if to == entries[-1].version:
        raise BadInput(f"version {to} of {name} is the champion")
    if to not in there:
        raise NotFound(f"version {to} of {name} was champion, and was deleted from the registry")
    return to


def champion_stack(entries: Sequence[Entry]) -> list[int]:
    """Return the champions that nobody rolled back from, oldest first; the last one is the present champion."""
    stack: list[int] = []
    for entry in entries:
        stack = _grown(stack, entry.action, entry.version)
    return stack


def _grown(stack: list[int], action: Action, version: int) -> list[int]:
    """Return the champions that stand after one more change; a version may have been champion, and left, more than once."""
    if action == "rolled back" and version in stack:
        stack = stack[: len(stack) - 1 - stack[::-1].index(version)]
    return [*stack, version]


def swap_champion(uri: str, ledger: Ledger, version: Version, decision: Decision, verdict: Verdict | None = None) -> Promotion:
    """Write the change into the ledger and let the aliases follow; no package is loaded or checked here.

    The lock of the model's champion is held over both, so that nobody deletes the version in between.

    Raises:
        NotThere: the version was deleted meanwhile; nothing was moved.
        BadModel: another one stands under its number; nothing was moved.
        BadInput: the evidence or the request that was decided about is not there any more; nothing was moved.
        Outdated: the champion is another one than the decision expects; nothing was moved.
    """
    with translated_errors(uri), champion_lock(uri, version.name):
        client = connect(uri)
        sync_aliases_locked(client, ledger, version.name)
        with verdict_lock(uri, version.name):
            _check_same(find(client, version.name, version.number), version, decision)
            entry, changed = _append(client, ledger, version, decision, verdict)
        sync_aliases_locked(client, ledger, version.name)
        found = find(client, version.name, version.number)
    if changed:
        log.info("%s is the champion, %s before", version.uri, f"version {entry.previous}" if entry.previous else "nothing")
    return Promotion(found, entry.previous, changed, entry)


def _check_same(found: Version, version: Version, decision: Decision) -> None:
    """Refuse a version that is not the one that was verified, or was judged again since it was decided about."""
    if found.key != version.key or not found.complete:
        raise BadModel(f"{version.uri} was deleted or replaced while it was verified; nothing was promoted")
    if decision.evidence is not None and found.evidence != decision.evidence:
        now = f"is now {found.evidence[:12]}" if found.evidence else "is being replaced"
        raise BadInput(f"the decision was about evidence {decision.evidence[:12]}, and the verdict on {version.uri} {now}: look again")


def _append(client: MlflowClient, ledger: Ledger, version: Version, decision: Decision, verdict: Verdict | None) -> tuple[Entry, bool]:
    """Return the entry that made the version the champion, and whether it was written here."""
    # A copy was judged elsewhere, against versions that have other numbers here: its verdict says nothing of this ledger's anchor. And who
    # was forced in may have measured better and failed all the same.
    about = None if decision.origin or decision.forced else verdict
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
                anchor=new_anchor(entries, version.number, decision.action, about, gone=_anchor_is_deleted(client, entries)),
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
    """Say whether an entry is about this very version; its number alone means another model in another registry."""
    return head is not None and (head.version, head.key) == (version.number, version.key)


def _anchor_is_deleted(client: MlflowClient, entries: Sequence[Entry]) -> bool:
    """Say whether the best champion so far is in the registry no more, under no number."""
    anchor = next((entry for entry in reversed(entries) if entry.version == entries[-1].anchor), None)
    if anchor is None:
        return False
    found = lookup(client, anchor.model, anchor.version)
    if found is not None and found.key == anchor.key:
        return False
    return all(version.key != anchor.key for version in search(client, anchor.model))


def new_anchor(entries: Sequence[Entry], number: int, action: Action, verdict: Verdict | None, *, gone: bool = False) -> int:
    """Return the best champion so far, should `number` be champion now.

    A promoted version is the new anchor only when it was measured against the old one, to be no worse; a lucky, forced or unmeasured
    promotion is not. Where the old one is `gone` from the registry, nobody can be measured against it any more, and the new champion takes
    its place. A version that is gone back to brings back the anchor that it had.
    """
    if action == "rolled back":
        return _old_anchor(entries, number)
    head = entries[-1] if entries else None
    if head is None or head.anchor is None or gone:
        return number
    best = head.version == head.anchor
    compared_with = (verdict.champion if best else verdict.anchor) if verdict else None
    if verdict is None or compared_with != str(head.anchor):
        return head.anchor  # nothing says how they compare
    # Where the champion is the best so far, the gate `anchor` has nobody else to ask about.
    estimate = next((gate.estimate for gate in verdict.gates if gate.gate == ("champion" if best else "best_champion")), None)
    return number if estimate is not None and estimate >= 0 else head.anchor


def _old_anchor(entries: Sequence[Entry], number: int) -> int:
    left = {entry.version for entry in entries} - {*_grown(champion_stack(entries), "rolled back", number)}
    anchors = [entry.anchor for entry in reversed(entries) if entry.version == number and entry.anchor is not None]
    return next((anchor for anchor in anchors if anchor == number or anchor not in left), number)
