import dataclasses

import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.gates import test_budget as budget
from tests.support.gate_cases import against, answered, decided


@pytest.mark.parametrize(
    ("number", "outcome"), [(1, Outcome.PASS), (5, Outcome.PASS), (6, Outcome.INCONCLUSIVE), (None, Outcome.NOT_APPLICABLE)]
)
def test_test_set_judges_five_candidates(number, outcome):
    evidence = dataclasses.replace(against(answered(np.ones(60, bool)), None), candidate_number=number)

    assert decided("test_budget", evidence).outcome is outcome


def test_change_contains_the_first_candidate_beyond_the_budget():
    second, sixth = (dataclasses.replace(against(answered(np.ones(60, bool)), None), candidate_number=number) for number in (2, 6))

    assert decided("test_budget", second, at_most=5).change == "INCONCLUSIVE from candidate 6 on this test set on"
    assert decided("test_budget", sixth, at_most=5).outcome is Outcome.INCONCLUSIVE


def test_used_up_test_set_gives_advice():
    result = decided("test_budget", dataclasses.replace(against(answered(np.ones(60, bool)), None), candidate_number=3), at_most=2)

    assert (
        result.reason
        == "candidate 3 of gates.test_budget.at_most 2 on this test set: the test set is used up, label more rows or start a new test set"
    )


def test_candidates_share_the_level():
    assert budget.Params().level == pytest.approx(0.01)
    assert budget.Params(at_most=1).level == pytest.approx(0.05)
    assert budget.Params(role="off", at_most=20).level == pytest.approx(0.05)
