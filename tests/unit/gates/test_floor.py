import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from tests.support.gate_cases import against, answered, decided


def floor(right: int, n: int, at_least: float, metric: str = "accuracy"):
    return decided("floor", against(answered(np.arange(n) < right), None), metric=metric, at_least=at_least)


@pytest.mark.parametrize(
    ("at_least", "outcome"), [(0.74, Outcome.PASS), (0.78, Outcome.INCONCLUSIVE), (0.80, Outcome.INCONCLUSIVE), (0.86, Outcome.FAIL)]
)
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_interval_decides_and_not_the_number(metric, at_least, outcome):
    assert floor(400, 500, at_least, metric).outcome is outcome


def test_the_ends_of_the_interval_are_where_the_outcome_turns():
    seen = floor(400, 500, 0.8)

    assert floor(400, 500, seen.low).outcome is Outcome.PASS
    assert floor(400, 500, seen.low + 1e-9).outcome is Outcome.INCONCLUSIVE
    assert floor(400, 500, seen.high - 1e-6).outcome is Outcome.INCONCLUSIVE
    assert floor(400, 500, seen.high + 1e-6).outcome is Outcome.FAIL


def test_with_groups_the_ends_are_where_the_outcome_turns_too():
    groups = np.array([f"g{i % 100}" for i in range(500)])
    seen = decided("floor", against(answered(np.arange(500) < 400, groups), None), metric="accuracy", at_least=0.8)
    turned = [
        decided("floor", against(answered(np.arange(500) < 400, groups), None), metric="accuracy", at_least=seen.high + by).outcome
        for by in (-1e-6, 1e-6)
    ]

    assert turned == [Outcome.INCONCLUSIVE, Outcome.FAIL]


def test_the_reason_is_a_sentence_with_the_setting_and_the_interval():
    reason = floor(356, 500, 0.75).reason

    assert reason.startswith("accuracy 0.712 is below gates.floor.at_least 0.75 (90 % interval 0.677 to 0.745), p 0.0")
    assert reason.endswith("after Holm's correction")


def test_it_says_which_floor_would_be_passed():
    seen = floor(400, 500, 0.8)

    assert seen.change == f"PASS with a floor of {seen.low:.3f} or less"
    assert floor(400, 500, round(seen.low, 3) - 0.001).outcome is Outcome.PASS


def test_a_stricter_level_asks_for_more():
    right = answered(np.arange(500) < 400)

    assert decided("floor", against(right, None, level=0.05), metric="accuracy", at_least=0.765).outcome is Outcome.PASS
    assert decided("floor", against(right, None, level=0.01), metric="accuracy", at_least=0.765).outcome is Outcome.INCONCLUSIVE


def test_all_right_and_all_wrong_are_defined():
    assert floor(500, 500, 0.99).outcome is Outcome.PASS
    assert floor(0, 500, 0.1).outcome is Outcome.FAIL
    assert floor(0, 500, 0.1, "macro_f1").outcome is Outcome.FAIL
