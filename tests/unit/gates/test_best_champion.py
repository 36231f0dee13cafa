import dataclasses

import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.gates import Evidence, ReferenceModel
from tests.support.gate_cases import against, answered, decided
from tests.unit.gates.test_champion import pair


def beside(gained: int, lost: int) -> Evidence:
    candidate, best = pair(gained, lost)
    return dataclasses.replace(against(candidate, candidate), anchor=ReferenceModel("2", best))


@pytest.mark.parametrize(("gained", "lost", "outcome"), [(10, 10, Outcome.PASS), (56, 70, Outcome.INCONCLUSIVE), (30, 70, Outcome.FAIL)])
def test_the_candidate_is_held_against_the_best_champion_so_far(gained, lost, outcome):
    result = decided("best_champion", beside(gained, lost))

    assert result.outcome is outcome
    assert "version 2, the best champion so far" in result.reason


def test_it_tells_what_it_found_even_where_the_present_champion_is_beaten():
    candidate, best = pair(30, 70)
    evidence = dataclasses.replace(against(candidate, pair(0, 300)[0]), anchor=ReferenceModel("2", best))

    assert decided("champion", evidence).outcome is Outcome.PASS
    assert decided("best_champion", evidence).outcome is Outcome.FAIL


def test_without_another_there_is_nothing_to_be_held_against():
    result = decided("best_champion", against(*pair(10, 10)))

    assert result.outcome is Outcome.PASS
    assert result.estimate is None


@pytest.mark.parametrize(("margin", "outcome"), [(0.05, Outcome.PASS), (0.01, Outcome.INCONCLUSIVE)])
def test_the_margin_is_its_own(margin, outcome):
    assert decided("best_champion", beside(30, 40), margin=margin).outcome is outcome


def test_an_anchor_that_cannot_be_scored_asks_a_person():
    evidence = dataclasses.replace(against(*pair(10, 10)), anchor=ReferenceModel("2", None, "its package is gone"))
    result = decided("best_champion", evidence)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "version 2, the best champion so far, cannot be scored: its package is gone" in result.reason


def test_an_anchor_of_other_labels_is_compared_on_common_rows_or_not_at_all():
    candidate = answered(np.ones(900, bool))
    other = dataclasses.replace(candidate, labels=("billing", "printer", "x"))
    none = dataclasses.replace(candidate, labels=("x", "y", "z"))

    assert decided("best_champion", dataclasses.replace(against(candidate, None), anchor=ReferenceModel("2", other))).n == 300
    assert (
        decided("best_champion", dataclasses.replace(against(candidate, None), anchor=ReferenceModel("2", none))).outcome
        is Outcome.INCONCLUSIVE
    )
