"""One line a model, from what registry, ledger and Prefect say."""

from datetime import timedelta

import pytest

from flows.audit.fleet_status import age, earliest


def test_the_first_start_of_each_model_is_its_next_run() -> None:
    runs = [
        {"parameters": {"model": "a"}, "expected_start_time": "2026-11-29T03:00:00Z"},
        {"parameters": {}, "expected_start_time": "2026-11-29T03:30:00Z"},
        {"parameters": {"model": "b"}, "expected_start_time": "2026-11-29T04:00:00Z"},
        {"parameters": {"model": "a"}, "expected_start_time": "2026-11-30T03:00:00Z"},
    ]

    assert earliest(runs) == {"a": "2026-11-29 03:00Z", "b": "2026-11-29 04:00Z"}


@pytest.mark.parametrize(
    ("passed", "says"),
    [
        (timedelta(seconds=30), "0 min"),
        (timedelta(minutes=119), "119 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(hours=49), "2 d"),
    ],
)
def test_ages_are_told_as_people_say_them(passed: timedelta, says: str) -> None:
    assert age(passed) == says
