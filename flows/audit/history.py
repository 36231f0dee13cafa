"""Who was champion when and why: the ledger's entries, and on request the versions that never were."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from components.core.errors import BadInput, NotFound
from components.ledger import Entry, Request
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from components.mlflow_store.registry.environments import reference_number
from components.mlflow_store.registry.verdicts import verdict_text
from flows.audit.registered_model import RegisteredModel, shown


@dataclass(frozen=True)
class Event:
    """One line of the history. `sequence` counts the changes of champion; None for what changed none."""

    at: datetime
    action: str
    version: int
    previous: int | None
    verdict: str | None
    who: str
    why: str
    forced: bool = False
    sequence: int | None = None
    anchor: int | None = None
    origin: str | None = None
    evidence: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the event for a program."""
        return {**asdict(self), "at": shown(self.at)}


@dataclass(frozen=True)
class LedgerCheck:
    """What the ledger's chain amounts to, and what MLflow keeps of it for a model; without `faults` nothing was changed since.

    `begun` says when, by whom and why the chain began, over `found` rows that are only trusted as they were found. `kept` is the number of
    the last entry that MLflow keeps.
    """

    ledger: str
    entries: int
    found: int
    begun: str | None
    head: str | None
    kept: int | None
    signature: str
    faults: tuple[str, ...]


def verify(model: RegisteredModel) -> LedgerCheck:
    """Verify that no entry of the ledger was changed, added, moved or deleted since it was written.

    Raises:
        NotThere: the ledger is gone, or has no entry of a model that was promoted.
    """
    if (ledger := model.ledger) is None:
        raise NotFound(f"{model.ledger_url} does not exist yet: nothing was promoted")
    checked = registry.verify_ledger(model.uri, model.ledger_url, model.name)
    chain, beginning = checked.chain, checked.chain.beginning
    return LedgerCheck(
        ledger=str(ledger),
        entries=len(chain.links),
        found=beginning.found if beginning else 0,
        begun=f"{beginning.at} by {beginning.who}: {beginning.why}" if beginning else None,
        head=chain.links[max(chain.links)] if chain.links else None,
        kept=checked.kept.number if checked.kept else None,
        signature=checked.signature,
        faults=checked.faults,
    )


@dataclass(frozen=True)
class Reign:
    """Who was champion at a moment: the entry that says so, when it ended, and whether registry and alias still agree."""

    entry: Entry
    until: datetime | None
    registered: bool
    alias: int | None

    @property
    def agrees(self) -> bool:
        """Whether the alias names the version that the ledger names; nothing is said of a champion of the past."""
        return self.until is not None or self.alias == self.entry.version

    def as_json(self) -> dict[str, Any]:
        """Return the answer for a program."""
        entry = {**asdict(self.entry), "at": shown(self.entry.at)}
        until = shown(self.until) if self.until else None
        return {**entry, "until": until, "registered": self.registered, "alias": self.alias, "agrees": self.agrees}


def history(model: RegisteredModel, everything: bool = False) -> list[Event]:
    """Return the changes of champion, oldest first; with `everything` also what never became champion, and the answers of people."""
    events = [of_entry(entry) for entry in model.entries]
    if everything:
        promoted = {event.version for event in events}
        events += [of_request(request) for request in model.requests if request.decision == "rejected" or request.expired()]
        moments = artifact_access.registration_times(model.uri, model.name)
        events += [of_version(version, moments[version.number]) for version in model.versions if version.number not in promoted]
    return sorted(events, key=lambda event: (event.at, event.sequence or 0))


def of_entry(entry: Entry) -> Event:
    """Return a change of champion as an event."""
    return Event(
        at=entry.at,
        action=entry.action,
        version=entry.version,
        previous=entry.previous,
        verdict=entry.outcome,
        who=entry.who,
        why=entry.why,
        forced=entry.forced,
        sequence=entry.sequence,
        anchor=entry.anchor,
        origin=entry.origin,
        evidence=entry.evidence,
    )


def of_request(request: Request) -> Event:
    """Return a question to a person that did not end in a promotion."""
    if request.decision is None:
        return Event(request.expires_at, "expired", request.version, request.expected, request.outcome, "nobody", request.reason)
    at, who, why = request.decided_at or request.asked_at, request.who or "", request.why or ""
    return Event(at, "turned down", request.version, request.expected, request.outcome, who, why, evidence=request.evidence)


def of_version(version: registry.Version, at: datetime) -> Event:
    """Return the registration of a version that never was champion."""
    verdict = version.tags.get("retune.verdict")
    action = {"FAIL": "rejected", "INCONCLUSIVE": "undecided"}.get(verdict or "", "registered")
    reason = verdict_text(version)
    return Event(
        at, action, version.number, reference_number(version), verdict, "retune", reason or "not judged", evidence=version.evidence
    )


def champion(model: RegisteredModel, at: str | None = None) -> Reign:
    """Return who is champion, or was at the moment `at` (ISO 8601; UTC where it names no zone).

    A moment of whole seconds means as the history shows them: who became champion within that second is champion at it.

    Raises:
        BadInput: the time cannot be read, or lies ahead.
        NotThere: nobody was champion then.
    """
    entries = model.entries
    if not entries:
        alias = f"; the alias champion is at version {model.champion}: `retune reconcile {model.name}`" if model.champion else ""
        raise NotFound(f"the ledger has no entry for {model.name}: nothing was promoted{alias or '; `retune promote` does'}")
    moment = read_moment(at) if at is not None else None
    reached = [entry for entry in entries if moment is None or reaches(entry.at, moment)]
    if not reached:
        raise NotFound(f"{model.name} had no champion at {at}: version {entries[0].version} was the first, from {shown(entries[0].at)}")
    entry = reached[-1]
    until = entries[len(reached)].at if len(reached) < len(entries) else None
    return Reign(entry, until, any(version.number == entry.version for version in model.versions), model.champion)


def reaches(at: datetime, moment: datetime) -> bool:
    """Say whether what happened `at` had happened by `moment`; to the second where the moment has no fraction of one."""
    return (at if moment.microsecond else at.replace(microsecond=0)) <= moment


def read_moment(text: str, now: datetime | None = None) -> datetime:
    """Return the moment that `text` names, in UTC.

    Raises:
        BadInput: it names none, or one that lies ahead.
    """
    try:
        found = datetime.fromisoformat(text.strip())
        moment = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput(f"{text!r} is no time: expected a date, or a date and a time such as 2026-11-01T12:00Z") from None
    if moment > (now or datetime.now(UTC)):
        raise BadInput(f"{text} lies ahead: nobody knows who will be champion then")
    return moment
