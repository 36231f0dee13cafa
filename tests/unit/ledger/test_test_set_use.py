"""The test-set budget: looks are counted by the rows that test sets share, so that new rows alone start no new one."""

from pathlib import Path

import numpy as np
import pytest

from components.core.similarity import row_key
from components.ledger import Ledger, PriorUse
from components.ledger.test_set_use import KEPT, kept, prior_use, share


def keys(start: int, stop: int) -> list[str]:
    return [row_key(f"row number {place}") for place in range(start, stop)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_a_test_set_that_shares_most_rows_is_no_new_one(ledger: Ledger) -> None:
    assert ledger.record_test_use("tickets", "t1", "a", keys(0, 60)) == PriorUse(1)
    assert ledger.record_test_use("tickets", "t2", "b", keys(7, 72)) == PriorUse(2, shared=53 / 65)
    assert ledger.count_test_uses("tickets", "t2") == 2


def test_a_test_set_of_new_rows_has_a_budget_of_its_own(ledger: Ledger) -> None:
    for number in range(5):
        ledger.record_test_use("tickets", "t1", f"k{number}", keys(0, 60))

    assert ledger.record_test_use("tickets", "t2", "b", keys(60, 120)) == PriorUse(1)
    assert ledger.record_test_use("mails", "t1", "b", keys(0, 60)) == PriorUse(1)


def test_slow_drift_never_starts_a_new_budget(ledger: Ledger) -> None:
    found = [ledger.record_test_use("tickets", f"t{step}", f"k{step}", keys(step, 60 + step)).number for step in range(12)]

    assert found == list(range(1, 13))


def test_many_small_overlaps_add_up(ledger: Ledger) -> None:
    for step in range(10):
        ledger.record_test_use(
            "tickets", f"t{step}", f"k{step}", [*keys(5 * step, 5 * step + 5), *keys(1000 * (step + 1), 1000 * (step + 1) + 95)]
        )

    assert ledger.record_test_use("tickets", "today", "k", [*keys(0, 50), *keys(500, 550)]) == PriorUse(1 + 5, shared=0.05)


def test_wording_alone_makes_no_row_new(ledger: Ledger) -> None:
    ledger.record_test_use("tickets", "t1", "a", [row_key("Der  Drucker druckt nicht!")])

    assert ledger.record_test_use("tickets", "t2", "b", [row_key("der Drucker, druckt nicht")]).number == 2


def test_a_look_is_counted_once_however_often_it_is_judged(ledger: Ledger) -> None:
    first = [ledger.record_test_use("tickets", f"t{key}", key, keys(0, 60 + place)) for place, key in enumerate("abc")]

    assert [ledger.record_test_use("tickets", f"t{key}", key, keys(0, 60 + place)) for place, key in enumerate("abc")] == first


def test_rows_that_nobody_knows_count_as_todays(ledger: Ledger) -> None:
    ledger.record_test_use("tickets", "old", "a")

    assert ledger.tests_without_rows("tickets") == ["old"]
    assert ledger.record_test_use("tickets", "new", "b", keys(0, 60)) == PriorUse(2, unknown=1)
    assert ledger.record_test_use("tickets", "new", "b", keys(0, 60), {"old": keys(60, 120)}) == PriorUse(1)
    assert ledger.tests_without_rows("tickets") == []


def test_a_candidate_on_several_test_sets_is_one_look() -> None:
    rows = {"t1": keys(0, 60), "t2": keys(0, 61), "t3": keys(0, 62)}

    assert prior_use("t3", [("a", "t1"), ("a", "t2")], rows).number == 2


def test_large_test_sets_are_known_by_a_sample() -> None:
    mine, theirs = kept(keys(0, 30_000)), kept(keys(15_000, 45_000))

    assert len(mine) == KEPT
    assert share(mine, theirs) == pytest.approx(0.5, abs=0.02)
    assert share(mine, kept(keys(30_000, 60_000))) == 0
    assert share(kept(keys(0, 100)), mine) == 1


def promoted(renewed: float, shared_rows: bool, rng: np.random.Generator, rows: int = 150, looks: int = 30) -> int:
    """How many of `looks` equally good candidates a gate for "better" at 5 % / 5 promotes while `renewed` of the rows is new each time."""
    step, done, history = int(renewed * rows), 0, list[tuple[str, str]]()
    gains = rng.standard_normal(rows + step * looks)
    at = {f"t{look}": range(look * step, look * step + rows) for look in range(looks)}
    known = {name: [f"{place:06d}" for place in places] for name, places in at.items()}
    for look in range(looks):
        name = f"t{look}"
        number = prior_use(name, history, known).number if shared_rows else 1
        history.append((f"k{look}", name))
        places = list(at[name])
        score = 0.5 * gains[places] + rng.standard_normal(rows)
        done += number <= 5 and score.mean() / (score.std() / np.sqrt(rows)) > 2.326
    return done


def test_a_rolling_test_set_promotes_no_more_than_it_may() -> None:
    """Of candidates that are no better, 5 looks a neighbourhood at 1 % each; a digest alone let all 30 through."""
    rng = np.random.default_rng(1)
    by_rows, by_digest = (np.mean([promoted(0.02, rows, rng) > 0 for _ in range(100)]) for rows in (True, False))

    assert by_rows <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)
    assert by_digest > 0.12
