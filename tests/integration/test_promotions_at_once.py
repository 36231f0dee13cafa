"""The measurement of `python -m bench promotions`, small enough to run with every change."""

import pytest

from bench.promotions import run


@pytest.mark.exhaustive
def test_of_four_processes_that_promote_at_once_exactly_one_wins_each_round() -> None:
    assert run(rounds=10, processes=4) == {
        "rounds": 10,
        "processes": 4,
        "rounds_with_one_winner": 10,
        "lost_versions": 0,
        "ledger_gaps": 0,
        "alias_mismatches": 0,
    }
