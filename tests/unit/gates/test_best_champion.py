import dataclasses

import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.gates.support import Evidence, ReferenceModel
from tests.support.gate_cases import against, answered, decided, faults, gained_and_lost


def against_best(gained: int, lost: int) -> Evidence:
    candidate, best = gained_and_lost(gained, lost)
    return dataclasses.replace(against(candidate, candidate), best_champion=ReferenceModel("2", best))


@pytest.mark.parametrize(("gained", "lost", "outcome"), [(10, 10, Outcome.PASS), (56, 70, Outcome.INCONCLUSIVE), (30, 70, Outcome.FAIL)])
def test_candidate_is_compared_with_the_best_champion(gained, lost, outcome):
    result = decided("best_champion", against_best(gained, lost))

    assert result.outcome is outcome
    assert "version 2, the best champion so far" in result.reason


def test_worse_than_best_fails_even_if_better_than_champion():
    candidate, best = gained_and_lost(30, 70)
    evidence = dataclasses.replace(against(candidate, gained_and_lost(0, 300)[0]), best_champion=ReferenceModel("2", best))

    assert decided("champion", evidence).outcome is Outcome.PASS
    assert decided("best_champion", evidence).outcome is Outcome.FAIL


def test_champion_that_is_the_best_is_not_compared_twice():
    result = decided("best_champion", against(*gained_and_lost(10, 10)))

    assert result.outcome is Outcome.NOT_APPLICABLE
    assert result.estimate is None


@pytest.mark.parametrize(("margin", "outcome"), [(0.05, Outcome.PASS), (0.01, Outcome.INCONCLUSIVE)])
def test_margin_is_independent_of_the_champion_gate(margin, outcome):
    assert decided("best_champion", against_best(30, 40), margin=margin).outcome is outcome


def test_unscorable_best_champion_is_inconclusive():
    evidence = dataclasses.replace(against(*gained_and_lost(10, 10)), best_champion=ReferenceModel("2", None, "its package is gone"))
    result = decided("best_champion", evidence)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "version 2, the best champion so far, cannot be scored: its package is gone" in result.reason


def test_other_labels_are_compared_on_common_rows():
    candidate = answered(np.ones(900, bool))
    other = dataclasses.replace(candidate, labels=("billing", "printer", "x"))
    none = dataclasses.replace(candidate, labels=("x", "y", "z"))

    assert decided("best_champion", dataclasses.replace(against(candidate, None), best_champion=ReferenceModel("2", other))).n == 300
    assert (
        decided("best_champion", dataclasses.replace(against(candidate, None), best_champion=ReferenceModel("2", none))).outcome
        is Outcome.INCONCLUSIVE
    )


def test_margin_is_below_the_largest_difference():
    assert faults("best_champion", metric="accuracy", margin=0.9) == []
    assert faults("best_champion", metric="accuracy", margin=1) == [
        "margin: expected less than 1, the largest possible difference of the metric"
    ]
    assert faults("best_champion", metric="kapa", margin=3) == ["metric: unknown metric 'kapa'; did you mean 'kappa'?"]
