import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.gates import Evidence, champion
from tests.unit.gates.test_judge import answered


def decided(gained: int, lost: int, n: int = 1000, **settings):
    mine, theirs = np.arange(n) % 10 != 0, np.arange(n) % 10 != 0
    theirs[np.flatnonzero(mine)[:gained]] = False
    mine[np.flatnonzero(mine)[gained : gained + lost]] = False
    return champion.decide(Evidence(answered(mine), {}, answered(theirs), "7", 10), champion.Params(**settings))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize(
    ("gained", "lost", "outcome"),
    [
        (10, 10, Outcome.PASS),
        (4, 10, Outcome.PASS),  # worse, and by no more than the margin
        (56, 70, Outcome.INCONCLUSIVE),
        (30, 70, Outcome.FAIL),
    ],
)
def test_a_candidate_may_be_worse_by_less_than_the_margin(metric, gained, lost, outcome):
    assert decided(gained, lost, metric=metric).outcome is outcome


def test_a_margin_of_zero_asks_for_a_better_candidate():
    assert decided(10, 10, margin=0).outcome is Outcome.INCONCLUSIVE
    assert decided(30, 10, margin=0).outcome is Outcome.PASS


def test_the_threshold_is_minus_the_margin():
    result = decided(10, 10, margin=0.03)

    assert result.threshold == -0.03
    assert result.reason.startswith("accuracy difference +0.000 to champion version 7 is within gates.champion.margin 0.03 (90 % ")
