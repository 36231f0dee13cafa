import numpy as np
import pandas as pd
import pytest

from components.artifacts.verdict import Outcome
from tests.support.gate_cases import advised, against, answered, decided, faults


def floor(right: int, n: int, at_least: float, metric: str = "accuracy"):
    return decided("floor", against(answered(np.arange(n) < right), None), metric=metric, at_least=at_least)


@pytest.mark.parametrize(
    ("at_least", "outcome"), [(0.74, Outcome.PASS), (0.78, Outcome.INCONCLUSIVE), (0.80, Outcome.INCONCLUSIVE), (0.86, Outcome.FAIL)]
)
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_interval_decides(metric, at_least, outcome):
    assert floor(400, 500, at_least, metric).outcome is outcome


def test_outcome_changes_at_the_interval_ends():
    result = floor(400, 500, 0.8)

    assert floor(400, 500, result.low).outcome is Outcome.PASS
    assert floor(400, 500, result.low + 1e-9).outcome is Outcome.INCONCLUSIVE
    assert floor(400, 500, result.high - 1e-6).outcome is Outcome.INCONCLUSIVE
    assert floor(400, 500, result.high + 1e-6).outcome is Outcome.FAIL


def test_outcome_changes_at_the_interval_ends_with_groups():
    groups = np.array([f"g{i % 100}" for i in range(500)])
    result = decided("floor", against(answered(np.arange(500) < 400, groups), None), metric="accuracy", at_least=0.8)
    turned = [
        decided("floor", against(answered(np.arange(500) < 400, groups), None), metric="accuracy", at_least=result.high + by).outcome
        for by in (-1e-6, 1e-6)
    ]

    assert turned == [Outcome.INCONCLUSIVE, Outcome.FAIL]


def test_reason_contains_setting_and_interval():
    reason = floor(356, 500, 0.75).reason

    assert reason.startswith("accuracy 0.712 is below gates.floor.at_least 0.75 (90 % interval 0.677 to 0.745), p 0.0")
    assert reason.endswith("after Holm's correction")


@pytest.mark.parametrize("at_least", [0.6, 0.79, 0.8, 0.86])
def test_advice_has_the_stated_outcome(at_least):
    result = floor(400, 500, at_least)
    stated, settings = advised(result)

    assert stated is not result.outcome
    assert floor(400, 500, **settings).outcome is stated
    assert settings["at_least"] == pytest.approx(result.low, abs=0.001)


def test_test_rows_in_change_pass():
    result = floor(400, 500, 0.79)
    needed = int(str(result.change).split("or with ")[1].split(" test rows")[0].replace(",", ""))

    assert floor(400 * needed // 500, needed, 0.79).outcome is Outcome.PASS
    assert "test rows" not in str(floor(400, 500, 0.81).change)  # the score is below the floor, however many rows


def test_few_groups_name_the_share_that_has_enough():
    groups = np.array([f"g{i % 36}" for i in range(500)])
    tables = {name: pd.DataFrame({"group": [f"{name}{i}" for i in range(count)]}) for name, count in (("rows", 36), ("train", 144))}
    result = decided("floor", against(answered(np.arange(500) < 400, groups), None, **tables), metric="accuracy", at_least=0.1)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert str(result.change).startswith("a test set of at least 50 groups (now 36)")
    assert str(result.change).endswith("such as `preprocess.test_share: 0.35` of these 180 groups")


def test_stricter_level_needs_a_higher_score():
    right = answered(np.arange(500) < 400)

    assert decided("floor", against(right, None, level=0.05), metric="accuracy", at_least=0.765).outcome is Outcome.PASS
    assert decided("floor", against(right, None, level=0.01), metric="accuracy", at_least=0.765).outcome is Outcome.INCONCLUSIVE


def test_perfect_and_always_wrong_models_are_decided():
    assert floor(500, 500, 0.99).outcome is Outcome.PASS
    assert floor(0, 500, 0.1).outcome is Outcome.FAIL
    assert floor(0, 500, 0.1, "macro_f1").outcome is Outcome.FAIL


@pytest.mark.parametrize(("at_least", "valid"), [(-1, False), (-0.9, True), (0.9, True), (1, False), (1.1, False)])
def test_floor_is_within_the_bounds_of_the_metric(at_least, valid):
    found = faults("floor", metric="kappa", at_least=at_least)

    assert found == ([] if valid else [f"at_least: expected a kappa above -1 and below 1, found {at_least:g}"])
    assert faults("floor", metric="kapa", at_least=2) == ["metric: unknown metric 'kapa'; did you mean 'kappa'?"]
