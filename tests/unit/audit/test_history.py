"""Champion history from the ledger, and errors for wrong queries."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.core.errors import BadInput, NotFound, RetuneError
from components.ledger import Ledger
from flows.audit.history import champion, event_of_version, history, read_moment
from flows.audit.model_status import fault
from flows.audit.registered_model import shown
from tests.support.audit_models import model_of, promoted, version

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_history_lists_changes_of_champion_with_reasons(tmp_path: Path) -> None:
    promoted(tmp_path, 1, 2)
    promoted(tmp_path, 1, action="rolled back", forced=True, why="complaints")

    events = history(model_of(tmp_path, version(1, "champion"), version(2)))

    assert [(event.sequence, event.action, event.version, event.previous) for event in events] == [
        (1, "promoted", 1, None),
        (2, "promoted", 2, 1),
        (3, "rolled back", 1, 2),
    ]
    assert (events[2].who, events[2].why, events[2].forced, events[0].verdict) == ("ann", "complaints", True, "PASS")
    assert events[0].as_json()["at"].endswith("Z")


def test_champion_at_a_past_time(tmp_path: Path) -> None:
    ledger = promoted(tmp_path, 1)
    time.sleep(0.01)
    between = datetime.now(UTC)
    time.sleep(0.01)
    promoted(tmp_path, 2)
    model = model_of(tmp_path, version(1, "previous"), version(2, "champion"))

    then, now = champion(model, between.isoformat()), champion(model)

    assert (then.entry.version, then.until, then.agrees) == (1, ledger.entries("tickets")[1].at, True)
    assert (now.entry.version, now.until, now.agrees, now.registered) == (2, None, True, True)


def test_time_shown_in_history_belongs_to_new_champion(tmp_path: Path) -> None:
    promoted(tmp_path, 1)
    model = model_of(tmp_path, version(1, "champion"))

    (entry,) = model.entries
    assert entry.at.microsecond > 1, "once in 500,000 calls: run again"
    assert champion(model, shown(entry.at)).entry.version == 1
    with pytest.raises(NotFound, match="had no champion"):
        champion(model, (entry.at - timedelta(microseconds=1)).isoformat(timespec="microseconds"))


def test_no_champion_before_first_promotion(tmp_path: Path) -> None:
    promoted(tmp_path, 3)

    with pytest.raises(NotFound, match="had no champion at 2020-01-01: the first was version 3, from 20"):
        champion(model_of(tmp_path, version(3, "champion")), "2020-01-01")


def test_deleted_champion_is_reported_as_unregistered(tmp_path: Path) -> None:
    promoted(tmp_path, 1, 2)

    reign = champion(model_of(tmp_path, version(1)))

    assert (reign.entry.version, reign.registered, reign.agrees, reign.alias) == (2, False, False, None)


def test_no_promotion_means_empty_history_and_no_champion(tmp_path: Path) -> None:
    model = model_of(tmp_path, version(1))

    assert history(model) == []
    with pytest.raises(NotFound, match="nothing was promoted"):
        champion(model)
    assert not (tmp_path / "var").exists()


def test_missing_ledger_with_champion_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match=r"ledger\.db is missing, but the alias champion of tickets points to version 1.*retune reconcile tickets"
    ):
        history(model_of(tmp_path, version(1, "champion")))


def test_uncreatable_ledger_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")

    with pytest.raises(RetuneError, match=r"the ledger's folder .*/var cannot be created: File exists"):
        Ledger(f"sqlite:///{tmp_path}/var/ledger.db")


def test_rejected_version_has_evidence_digest() -> None:
    rejected = version(2, retune__verdict="FAIL", retune__evidence="abc123")

    assert event_of_version(rejected, NOW).evidence == "abc123"


def test_ledger_that_is_not_a_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/ledger.db").write_bytes(b"no database at all" * 500)

    with pytest.raises(RetuneError, match="ledger"):
        history(model_of(tmp_path, version(1, "champion")))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-01T12:00Z", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01 12:00", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
    ],
)
def test_time_without_zone_is_utc(text: str, moment: datetime) -> None:
    assert read_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "12:00", "2026-13-01", "2026-11-01T25:00Z", "0001-01-01T00:00+23:00"])
def test_invalid_time_is_rejected_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match="expected a date, or a date and a time such as 2026-11-01T12:00Z"):
        read_moment(text, NOW)


def test_future_time_is_rejected() -> None:
    with pytest.raises(BadInput, match="is in the future"):
        read_moment((NOW + timedelta(days=1)).isoformat(), NOW)


def test_disagreeing_alias_and_ledger_are_reported_with_the_fix() -> None:
    assert fault("tickets", 3, 3, [3]) is None
    assert fault("tickets", None, None, []) is None
    assert fault("tickets", 3, 2, [2, 3]) == (
        "the alias champion of tickets points to version 3, but the ledger records version 2: fix it with `retune reconcile tickets`"
    )
    assert "to no version, but the ledger records version 2" in str(fault("tickets", None, 2, [2]))


def test_deleted_champion_needs_rollback_or_promotion() -> None:
    expected = "version 2, the champion of tickets in the ledger, was deleted from the registry: roll back or promote another"
    assert fault("tickets", None, 2, [1]) == expected
