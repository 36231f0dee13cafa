import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.gates import Evidence, floor
from tests.unit.gates.test_judge import answered


def decided(right: int, n: int, at_least: float, metric: str = "accuracy"):
    return floor.decide(Evidence(answered(np.arange(n) < right), {}, None, None, 10), floor.Params(metric=metric, at_least=at_least))


@pytest.mark.parametrize(
    ("at_least", "outcome"), [(0.74, Outcome.PASS), (0.78, Outcome.INCONCLUSIVE), (0.80, Outcome.INCONCLUSIVE), (0.86, Outcome.FAIL)]
)
def test_the_interval_decides_and_not_the_number(at_least, outcome):
    assert decided(400, 500, at_least).outcome is outcome


def test_the_ends_of_the_interval_are_where_the_outcome_turns():
    seen = decided(400, 500, 0.8)

    assert decided(400, 500, seen.low).outcome is Outcome.PASS
    assert decided(400, 500, seen.low + 1e-9).outcome is Outcome.INCONCLUSIVE
    assert decided(400, 500, seen.high).outcome is Outcome.INCONCLUSIVE
    assert decided(400, 500, seen.high + 1e-9).outcome is Outcome.FAIL


def test_the_reason_is_a_sentence_with_the_setting_and_the_interval():
    assert decided(356, 500, 0.75).reason == "accuracy 0.712 is below gates.floor.at_least 0.75 (90 % interval 0.677 to 0.745)"


def test_macro_f1_has_a_floor_too():
    result = decided(450, 600, 0.65, "macro_f1")

    assert result.outcome is Outcome.PASS
    assert result.metric == "macro_f1"
    assert result.threshold == 0.65
