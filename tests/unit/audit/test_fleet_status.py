"""One row per model, from registry, ledger and Prefect."""

from datetime import timedelta

import pytest

from flows.audit.fleet_status import age, earliest


def test_next_run_is_the_earliest_start_per_model() -> None:
    runs = [
        {"parameters": {"model": "a"}, "expected_start_time": "2026-11-29T03:00:00Z"},
        {"parameters": {}, "expected_start_time": "2026-11-29T03:30:00Z"},
        {"parameters": {"model": "b"}, "expected_start_time": "2026-11-29T04:00:00Z"},
        {"parameters": {"model": "a"}, "expected_start_time": "2026-11-30T03:00:00Z"},
    ]

    assert earliest(runs) == {"a": "2026-11-29 03:00Z", "b": "2026-11-29 04:00Z"}


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (timedelta(seconds=30), "0 min"),
        (timedelta(minutes=119), "119 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(hours=49), "2 d"),
    ],
)
def test_age_has_readable_units(passed: timedelta, text: str) -> None:
    assert age(passed) == text
