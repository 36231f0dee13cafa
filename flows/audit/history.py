"""Read the champion history from the ledger and, on request, the versions that never became champion."""

from dataclasses import asdict, dataclass, fields
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
    """One line of the history. `sequence` counts changes of champion; None for other events."""

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
        """Return the event as JSON values."""
        return {**asdict(self), "at": shown(self.at)}


@dataclass(frozen=True)
class LedgerCheck:
    """The state of the ledger's hash chain and MLflow's copy of it for a model; without `faults` nothing was changed.

    `begun` records when, why and by which user the chain was started, over `found` older rows that are trusted unchanged. `kept` is
    the number of the last entry that MLflow stores.
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
    """Verify that no ledger entry was changed, added, moved or deleted after it was written.

    Raises:
        NotFound: the ledger is missing, or has no entry of a model that was promoted.
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
    """The champion at a point in time: the ledger entry, when it ended, and whether registry and alias agree."""

    entry: Entry
    until: datetime | None
    registered: bool
    alias: int | None

    @property
    def agrees(self) -> bool:
        """Whether the alias points to the version in the ledger; always True for a past champion."""
        return self.until is not None or self.alias == self.entry.version

    def as_json(self) -> dict[str, Any]:
        """Return the reign as JSON values."""
        entry = {**asdict(self.entry), "at": shown(self.entry.at)}
        until = shown(self.until) if self.until else None
        return {**entry, "until": until, "registered": self.registered, "alias": self.alias, "agrees": self.agrees}


def history(model: RegisteredModel, everything: bool = False) -> list[Event]:
    """Return the changes of champion, oldest first; with `everything` also other versions and rejected or expired requests."""
    events = [_event_of_entry(entry) for entry in model.entries]
    if everything:
        promoted = {event.version for event in events}
        events += [_event_of_request(request) for request in model.requests if request.decision == "rejected" or request.expired()]
        moments = artifact_access.registration_times(model.uri, model.name)
        events += [event_of_version(version, moments[version.number]) for version in model.versions if version.number not in promoted]
    return sorted(events, key=lambda event: (event.at, event.sequence or 0))


def _event_of_entry(entry: Entry) -> Event:
    shared = {field.name: getattr(entry, field.name) for field in fields(Event) if field.name != "verdict"}
    return Event(verdict=entry.outcome, **shared)


def _event_of_request(request: Request) -> Event:
    if request.decision is None:
        return Event(request.expires_at, "expired", request.version, request.expected, request.outcome, "nobody", request.reason)
    at, who, why = request.decided_at or request.asked_at, request.who or "", request.why or ""
    return Event(at, "turned down", request.version, request.expected, request.outcome, who, why, evidence=request.evidence)


def event_of_version(version: registry.Version, at: datetime) -> Event:
    """Return the registration of a version that never became champion as an event."""
    verdict = version.tags.get("retune.verdict")
    action = {"FAIL": "rejected", "INCONCLUSIVE": "undecided"}.get(verdict or "", "registered")
    reason = verdict_text(version) or "not judged"
    return Event(at, action, version.number, reference_number(version), verdict, "retune", reason, evidence=version.evidence)


def champion(model: RegisteredModel, at: str | None = None) -> Reign:
    """Return the champion, now or at the time `at` (ISO 8601, UTC if it has no time zone).

    A time without fractions includes a promotion within that second, since the history shows whole seconds.

    Raises:
        BadInput: the time is not valid, or is in the future.
        NotFound: there was no champion.
    """
    entries = model.entries
    if not entries:
        alias = f"; the alias champion points to version {model.champion}: run `retune reconcile {model.name}`" if model.champion else ""
        raise NotFound(f"the ledger has no entry for {model.name}: nothing was promoted{alias or '; run `retune promote`'}")
    moment = read_moment(at) if at is not None else None
    reached = [entry for entry in entries if moment is None or reaches(entry.at, moment)]
    if not reached:
        raise NotFound(f"{model.name} had no champion at {at}: the first was version {entries[0].version}, from {shown(entries[0].at)}")
    entry = reached[-1]
    until = entries[len(reached)].at if len(reached) < len(entries) else None
    return Reign(entry, until, any(version.number == entry.version for version in model.versions), model.champion)


def reaches(at: datetime, moment: datetime) -> bool:
    """Return whether an event at `at` happened by `moment`, to the second if `moment` has no fraction."""
    return (at if moment.microsecond else at.replace(microsecond=0)) <= moment


def read_moment(text: str, now: datetime | None = None) -> datetime:
    """Parse a time, in UTC.

    Raises:
        BadInput: it is not a time, or it is in the future.
    """
    try:
        parsed = datetime.fromisoformat(text.strip())
        moment = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput(f"{text!r} is not a valid time: expected a date, or a date and a time such as 2026-11-01T12:00Z") from None
    if moment > (now or datetime.now(UTC)):
        raise BadInput(f"{text} is in the future")
    return moment
