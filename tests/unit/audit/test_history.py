"""Who was champion when: the ledger's answers, and every way to ask wrongly."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.core.errors import BadInput, NotFound, RetuneError
from components.ledger import Ledger
from flows.audit.history import champion, history, of_version, read_moment
from flows.audit.model_status import fault
from flows.audit.registered_model import shown
from tests.support.audit_models import model_of, promoted, version

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_the_history_tells_who_changed_the_champion_from_what_to_what_and_why(tmp_path: Path) -> None:
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


def test_each_moment_has_its_champion(tmp_path: Path) -> None:
    ledger = promoted(tmp_path, 1)
    time.sleep(0.01)
    between = datetime.now(UTC)
    time.sleep(0.01)
    promoted(tmp_path, 2)
    model = model_of(tmp_path, version(1, "previous"), version(2, "champion"))

    then, now = champion(model, between.isoformat()), champion(model)

    assert (then.entry.version, then.until, then.agrees) == (1, ledger.entries("tickets")[1].at, True)
    assert (now.entry.version, now.until, now.agrees, now.registered) == (2, None, True, True)


def test_the_very_time_that_the_history_shows_is_one_of_the_new_champion(tmp_path: Path) -> None:
    promoted(tmp_path, 1)
    model = model_of(tmp_path, version(1, "champion"))

    (entry,) = model.entries
    assert entry.at.microsecond > 1, "once in 500,000 calls: run again"
    assert champion(model, shown(entry.at)).entry.version == 1
    with pytest.raises(NotFound, match="had no champion"):  # who asks to the microsecond is answered to it
        champion(model, (entry.at - timedelta(microseconds=1)).isoformat(timespec="microseconds"))


def test_before_the_first_promotion_there_was_nobody_and_the_first_is_named(tmp_path: Path) -> None:
    promoted(tmp_path, 3)

    with pytest.raises(NotFound, match="had no champion at 2020-01-01: version 3 was the first, from 20"):
        champion(model_of(tmp_path, version(3, "champion")), "2020-01-01")


def test_a_champion_that_was_deleted_from_the_registry_is_still_told_and_said_to_be_gone(tmp_path: Path) -> None:
    promoted(tmp_path, 1, 2)

    reign = champion(model_of(tmp_path, version(1)))

    assert (reign.entry.version, reign.registered, reign.agrees, reign.alias) == (2, False, False, None)


def test_nothing_promoted_is_an_empty_history_and_no_champion(tmp_path: Path) -> None:
    model = model_of(tmp_path, version(1))

    assert history(model) == []
    with pytest.raises(NotFound, match="nothing was promoted"):
        champion(model)
    assert not (tmp_path / "var").exists()  # asking makes no ledger


def test_a_ledger_that_is_gone_while_there_is_a_champion_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match=r"ledger\.db is missing, and the alias champion of tickets is at version 1.*retune reconcile tickets"
    ):
        history(model_of(tmp_path, version(1, "champion")))


def test_a_ledger_whose_folder_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")

    with pytest.raises(RetuneError, match=r"the ledger's folder .*/var cannot be created: File exists"):
        Ledger(f"sqlite:///{tmp_path}/var/ledger.db")


def test_a_rejected_version_is_told_with_the_digest_of_its_evidence() -> None:
    rejected = version(2, retune__verdict="FAIL", retune__evidence="abc123")

    assert of_version(rejected, NOW).evidence == "abc123"


def test_a_ledger_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
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
def test_a_time_is_read_as_utc_unless_it_names_a_zone(text: str, moment: datetime) -> None:
    assert read_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "12:00", "2026-13-01", "2026-11-01T25:00Z", "0001-01-01T00:00+23:00"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match="expected a date, or a date and a time such as 2026-11-01T12:00Z"):
        read_moment(text, NOW)


def test_the_future_is_not_known() -> None:
    with pytest.raises(BadInput, match="lies ahead"):
        read_moment((NOW + timedelta(days=1)).isoformat(), NOW)


def test_alias_and_ledger_that_disagree_are_told_with_what_mends_it() -> None:
    assert fault("tickets", 3, 3, [3]) is None
    assert fault("tickets", None, None, []) is None
    assert fault("tickets", 3, 2, [2, 3]) == (
        "the alias champion of tickets is at version 3, and the ledger says version 2: `retune reconcile tickets` mends it"
    )
    assert "at no version, and the ledger says version 2" in str(fault("tickets", None, 2, [2]))


def test_a_champion_that_was_deleted_needs_a_person() -> None:
    said = "the champion of tickets is version 2 by the ledger, and it was deleted from the registry: roll back or promote another"
    assert fault("tickets", None, 2, [1]) == said
