"""The test-set budget: uses are counted by the rows that test sets have in common."""

from pathlib import Path

import numpy as np
import pytest

from components.core.similarity import row_key
from components.ledger import Ledger, PriorUse
from components.ledger.test_set_use import SAMPLE, common_share, prior_use, sample_keys


def keys(start: int, stop: int) -> list[str]:
    return [row_key(f"row number {row}") for row in range(start, stop)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_similar_test_set_shares_the_budget(ledger: Ledger) -> None:
    assert ledger.record_test_use("tickets", "t1", "a", keys(0, 60)) == PriorUse(1)
    assert ledger.record_test_use("tickets", "t2", "b", keys(7, 72)) == PriorUse(2, shared=53 / 65)
    assert ledger.count_test_uses("tickets", "t2") == 2


def test_new_rows_have_a_new_budget(ledger: Ledger) -> None:
    for number in range(5):
        ledger.record_test_use("tickets", "t1", f"k{number}", keys(0, 60))

    assert ledger.record_test_use("tickets", "t2", "b", keys(60, 120)) == PriorUse(1)
    assert ledger.record_test_use("mails", "t1", "b", keys(0, 60)) == PriorUse(1)


def test_slow_drift_starts_no_new_budget(ledger: Ledger) -> None:
    numbers = [ledger.record_test_use("tickets", f"t{step}", f"k{step}", keys(step, 60 + step)).number for step in range(12)]

    assert numbers == list(range(1, 13))


def test_many_small_overlaps_add_up(ledger: Ledger) -> None:
    for step in range(10):
        ledger.record_test_use(
            "tickets", f"t{step}", f"k{step}", [*keys(5 * step, 5 * step + 5), *keys(1000 * (step + 1), 1000 * (step + 1) + 95)]
        )

    assert ledger.record_test_use("tickets", "today", "k", [*keys(0, 50), *keys(500, 550)]) == PriorUse(1 + 5, shared=0.05)


def test_case_and_punctuation_do_not_matter(ledger: Ledger) -> None:
    ledger.record_test_use("tickets", "t1", "a", [row_key("Der  Drucker druckt nicht!")])

    assert ledger.record_test_use("tickets", "t2", "b", [row_key("der Drucker, druckt nicht")]).number == 2


def test_repeated_use_counts_once(ledger: Ledger) -> None:
    first = [ledger.record_test_use("tickets", f"t{key}", key, keys(0, 60 + row)) for row, key in enumerate("abc")]

    assert [ledger.record_test_use("tickets", f"t{key}", key, keys(0, 60 + row)) for row, key in enumerate("abc")] == first


def test_unknown_rows_count_as_current_rows(ledger: Ledger) -> None:
    ledger.record_test_use("tickets", "old", "a")

    assert ledger.tests_without_rows("tickets") == ["old"]
    assert ledger.record_test_use("tickets", "new", "b", keys(0, 60)) == PriorUse(2, unknown=1)
    assert ledger.record_test_use("tickets", "new", "b", keys(0, 60), {"old": keys(60, 120)}) == PriorUse(1)
    assert ledger.tests_without_rows("tickets") == []


def test_candidate_on_several_test_sets_counts_once() -> None:
    rows = {"t1": keys(0, 60), "t2": keys(0, 61), "t3": keys(0, 62)}

    assert prior_use("t3", [("a", "t1"), ("a", "t2")], rows).number == 2


def test_large_test_sets_are_sampled() -> None:
    first, second = sample_keys(keys(0, 30_000)), sample_keys(keys(15_000, 45_000))

    assert len(first) == SAMPLE
    assert common_share(first, second) == pytest.approx(0.5, abs=0.02)
    assert common_share(first, sample_keys(keys(30_000, 60_000))) == 0
    assert common_share(sample_keys(keys(0, 100)), first) == 1


def promoted(renewed: float, shared_rows: bool, rng: np.random.Generator, rows: int = 150, looks: int = 30) -> int:
    """Return how many of `looks` equally good candidates pass a test at 5 % / 5 if the share `renewed` of rows is new each time."""
    step, done, history = int(renewed * rows), 0, list[tuple[str, str]]()
    gains = rng.standard_normal(rows + step * looks)
    at = {f"t{look}": range(look * step, look * step + rows) for look in range(looks)}
    keys_of = {name: [f"{row:06d}" for row in places] for name, places in at.items()}
    for look in range(looks):
        name = f"t{look}"
        number = prior_use(name, history, keys_of).number if shared_rows else 1
        history.append((f"k{look}", name))
        places = list(at[name])
        score = 0.5 * gains[places] + rng.standard_normal(rows)
        done += number <= 5 and score.mean() / (score.std() / np.sqrt(rows)) > 2.326
    return done


@pytest.mark.slow
def test_rolling_test_set_keeps_the_error_level() -> None:
    """Equally good candidates get 5 uses per set of rows at 1 % each; counting by digest would allow all 30."""
    rng = np.random.default_rng(1)
    by_rows, by_digest = (np.mean([promoted(0.02, rows, rng) > 0 for _ in range(100)]) for rows in (True, False))

    assert by_rows <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)
    assert by_digest > 0.12
