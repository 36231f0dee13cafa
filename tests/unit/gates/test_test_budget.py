import dataclasses

import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.gates import test_budget as budget
from tests.support.gate_cases import against, answered, decided


@pytest.mark.parametrize(("look", "outcome"), [(1, Outcome.PASS), (5, Outcome.PASS), (6, Outcome.INCONCLUSIVE), (None, Outcome.PASS)])
def test_a_test_set_judges_five_candidates(look, outcome):
    evidence = dataclasses.replace(against(answered(np.ones(60, bool)), None), look=look)

    assert decided("test_budget", evidence).outcome is outcome


def test_it_says_how_many_are_left():
    found = decided("test_budget", dataclasses.replace(against(answered(np.ones(60, bool)), None), look=2), at_most=5)

    assert found.change == "after 3 more candidates this test set decides nothing any more"


def test_a_used_up_test_set_says_what_to_do():
    found = decided("test_budget", dataclasses.replace(against(answered(np.ones(60, bool)), None), look=3), at_most=2)

    assert (
        found.reason
        == "candidate 3 of gates.test_budget.at_most 2 on this test set: the test set is used up, label more or start a new one"
    )


def test_the_looks_share_the_level():
    assert budget.Params().level == pytest.approx(0.01)
    assert budget.Params(at_most=1).level == pytest.approx(0.05)
    assert budget.Params(role="off", at_most=20).level == pytest.approx(0.05)
