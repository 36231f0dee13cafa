"""The measurement of `python -m bench promotions`, small enough to run with every change."""

import pytest

from bench.promotions import run


@pytest.mark.exhaustive
def test_one_of_four_concurrent_promotions_wins() -> None:
    assert run(rounds=10, processes=4) == {
        "rounds": 10,
        "processes": 4,
        "rounds_with_one_winner": 10,
        "lost_versions": 0,
        "ledger_gaps": 0,
        "alias_mismatches": 0,
    }
