"""Changes, entries and approval requests of the ledger of the model `tickets`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from components.ledger import Action, Change, Entry, Request

NOW = datetime.now(UTC)


def change(version: int, **more: object) -> Change:
    """Return the change that makes `version` the champion."""
    plain = {"action": "promoted", "version": version, "key": f"k{version}", "who": "ada@host", "why": "the verdict is PASS"}
    return Change(**plain, **more)  # type: ignore[typeddict-item]


def entry(version: int, anchor: int | None = None, action: Action = "promoted", previous: int | None = None, *, sequence: int = 1) -> Entry:
    """Return the entry number `sequence`, in which `version` became the champion."""
    return Entry(
        model="tickets",
        sequence=sequence,
        at=datetime(2026, 11, sequence, tzinfo=UTC),
        action=action,
        version=version,
        key=f"k{version}",
        previous=previous,
        anchor=anchor,
        who="ada@host",
        why="the verdict is PASS",
    )


def approval_request(run: str, version: int = 2, **changes: object) -> Request:
    """Return the request to approve `version`, which run `run` judged INCONCLUSIVE against champion 1."""
    request = Request(
        run=run,
        model="tickets",
        version=version,
        expected=1,
        anchor=1,
        verdict_key="v",
        outcome="INCONCLUSIVE",
        evidence="e" * 64,
        reason="too few rows",
        asked_at=NOW,
        expires_at=NOW + timedelta(days=7),
    )
    return replace(request, **changes)  # type: ignore[arg-type]
