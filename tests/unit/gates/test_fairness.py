import numpy as np
import pandas as pd
import pytest
from scipy import stats

from components.artifacts.metrics import MIN_GROUPS
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import BadParams
from components.gates import fairness
from components.gates.support import Evidence
from tests.support.gate_cases import advised, against, answered, decided


def rows_of(predictions: Predictions, sex: np.ndarray) -> pd.DataFrame:
    texts = [f"number {i}" for i in range(len(sex))]
    return pd.DataFrame({"id": predictions.ids, "group": predictions.groups, "text": texts, "label": predictions.expected, "sex": sex})


def evidence(right: np.ndarray, sex: np.ndarray, groups: np.ndarray | None = None) -> Evidence:
    model = answered(right, groups)
    return against(model, None, rows=rows_of(model, sex))


def judge(right: np.ndarray, sex: np.ndarray, groups: np.ndarray | None = None, **settings) -> GateResult:
    return decided("fairness", evidence(right, sex, groups), **({"column": "sex"} | settings))


def table(result: GateResult) -> dict[str, dict[str, object]]:
    return {str(row[0]): dict(zip(result.tables[0].columns, row, strict=True)) for row in result.tables[0].rows}


VALUES = np.where(np.arange(6000) % 3 == 0, "f", "m")


def test_gate_without_a_column_is_not_applicable():
    result = decided("fairness", against(answered(np.ones(10, bool)), None))

    assert result.outcome is Outcome.NOT_APPLICABLE
    assert "gates.fairness.column is empty" in result.reason


def test_wide_gap_is_rejected_and_narrow_gap_passes():
    wide = judge(~((VALUES == "f") & (np.arange(6000) % 5 == 0)), VALUES)
    narrow = judge(np.arange(6000) % 10 != 0, VALUES)

    assert wide.outcome is Outcome.FAIL
    assert "accuracy of sex=f differs by -0.20" in wide.reason or "accuracy of sex=m differs by +0.20" in wide.reason
    assert wide.reason.count("more than gates.fairness.max_gap 0.05") == 1
    assert narrow.outcome is Outcome.PASS


def test_two_values_are_one_hypothesis():
    right = np.arange(6000) % 10 != 0

    assert len(judge(right, VALUES).hypotheses) == 1
    assert len(judge(right, np.array(["a", "b", "c"])[np.arange(6000) % 3]).hypotheses) == 3


def test_interval_below_minus_the_limit_is_inconclusive():
    values = np.array(["a", "b", "c"])[np.arange(1500) % 3]
    right = ~((values == "c") & (np.arange(1500) // 3 % 25 == 0))
    result = judge(right, values)

    assert [(name, row["high"] > 0.05) for name, row in table(result).items() if row["low"] < -0.05] == [("sex=c", False)]
    assert result.outcome is Outcome.INCONCLUSIVE


def test_gap_at_the_limit_is_inconclusive():
    right = ~((VALUES == "f") & (np.arange(6000) % 20 == 0))

    assert judge(right, VALUES).outcome is Outcome.INCONCLUSIVE


def test_rates_of_selection_and_true_positives():
    right = np.ones(6000, bool)
    result = judge(right, VALUES, rate="true_positive", label="device", max_gap=0.1)
    selected = judge(right, np.where(np.arange(6000) % 6 == 1, "f", "m"), rate="selection", label="device")

    assert result.outcome is Outcome.INCONCLUSIVE  # "device" is row 1 of every three, which is always m
    assert "two values" in result.reason
    assert selected.outcome is Outcome.FAIL
    assert table(selected)["sex=f"]["rate"] == 1.0
    assert table(selected)["sex=f"]["all others"] == pytest.approx(0.2)


def test_true_positives_use_the_rows_of_the_label():
    sex = np.where(np.arange(6000) % 2 == 0, "f", "m")
    right = ~((sex == "f") & (np.arange(6000) % 3 == 1) & (np.arange(6000) % 5 == 0))
    result = judge(right, sex, rate="true_positive", label="device")

    assert table(result)["sex=f"]["rows"] == 1000
    assert table(result)["sex=f"]["rate"] == pytest.approx(0.8)
    assert result.outcome is Outcome.FAIL


def test_p_is_that_of_the_interval_null():
    """With a limit close to 0 it is the two-sided p of Agresti and Caffo's difference of shares."""
    right = ~((VALUES == "f") & (np.arange(6000) % 50 == 0))
    result = judge(right, VALUES, max_gap=1e-9)
    hits = [right[sex == VALUES] for sex in "fm"]
    shares = [(side.sum() + 1) / (len(side) + 2) for side in hits]
    error = np.sqrt(sum(share * (1 - share) / (len(side) + 2) for share, side in zip(shares, hits, strict=True)))

    assert result.hypotheses[0].p == pytest.approx(2 * stats.norm.sf(abs(shares[0] - shares[1]) / error), rel=1e-6)


def test_too_few_rows_or_values_are_reported():
    few = np.where(np.arange(6000) < 99, "f", "m")

    assert judge(np.ones(6000, bool), few).reason.endswith("a value with 100 rows (gates.fairness.min_rows), and as many in all other rows")
    assert judge(np.ones(6000, bool), np.full(6000, "f")).reason.endswith("does not have two values")


def test_each_side_needs_fifty_groups():
    groups = np.array([f"g{i // 10:03d}" for i in range(6000)])
    few = np.where(np.arange(6000) // 10 < MIN_GROUPS - 1, "f", "m")
    enough = np.where(np.arange(6000) // 10 < MIN_GROUPS, "f", "m")

    assert judge(np.arange(6000) % 7 != 0, few, groups).outcome is Outcome.INCONCLUSIVE
    assert judge(np.arange(6000) % 7 != 0, few, groups).reason.endswith(
        f"have a value with {MIN_GROUPS} groups, and as many in all other rows"
    )
    assert "delete-one-group jackknife" in str(judge(np.arange(6000) % 7 != 0, enough, groups).method)


def test_group_interval_equals_brute_force_jackknife():
    """Groups have unequal sizes, some are on both sides, and the rate depends on the group."""
    generator, n = np.random.default_rng(7), 900
    index = generator.integers(0, 240, n)
    groups = np.array([f"g{i:03d}" for i in index])
    sex = np.where((index % 4 == 0) | (index % 4 == 1) & (generator.random(n) < 0.5), "f", "m")
    right = generator.random(n) < np.where(index % 3 == 0, 0.5, 0.9)

    def gap(kept: np.ndarray) -> float:
        return right[kept & (sex == "f")].mean() - right[kept & (sex == "m")].mean()

    names = np.unique(groups)
    left_out = np.array([gap(groups != name) for name in names])
    value = gap(np.ones(n, bool))
    error = np.sqrt((len(names) - 1) / len(names) * np.sum((left_out - value) ** 2))
    sides = [len(np.unique(groups[sex == value])) for value in "fm"]
    result = next(row for row in judge(right, sex, groups, max_gap=0.03).tables[0].rows if row[0] == "sex=f")
    half = stats.t.ppf(0.95, min(sides) - 1) * error

    assert result[5:8] == pytest.approx((value, value - half, value + half), abs=1e-4)
    expected = sum(stats.t.sf((abs(value) + side * 0.03) / error, min(sides) - 1) for side in (-1, 1))
    assert result[8] == pytest.approx(expected, rel=1e-3)


def test_identical_groups_count_as_one_row_each():
    groups = np.array([f"g{i // 10:03d}" for i in range(6000)])
    sex = np.where(np.arange(6000) // 10 % 3 == 0, "f", "m")
    result = judge(sex == "m", sex, groups)
    shares = [1 / 202, 401 / 402]
    error = np.sqrt(shares[0] * (1 - shares[0]) / 202 + shares[1] * (1 - shares[1]) / 402)

    row = table(result)["sex=f"]
    assert row["gap"] == row["low"] == -1.0
    assert row["high"] == pytest.approx(shares[0] - shares[1] + stats.t.ppf(0.95, 199) * error, abs=1e-4)


def test_interval_of_identical_groups_is_narrow():
    groups = np.array([f"g{i // 10:03d}" for i in range(6000)])
    sex = np.where(np.arange(6000) // 10 % 3 == 0, "f", "m")
    row = table(judge(np.where(sex == "f", np.arange(6000) % 10 < 6, np.arange(6000) % 10 < 5), sex, groups))["sex=f"]

    assert row["gap"] == pytest.approx(0.1)
    assert row["low"] < 0.05 < 0.1 < row["high"] < 0.2


def test_widest_gap_comes_first():
    kind = np.array(["a", "b", "c"])[np.arange(6000) % 3]
    result = judge(~((kind == "b") & (np.arange(6000) % 12 == 1)), kind)

    assert result.tables[0].rows[0][0] == "sex=b"
    assert [abs(row[5]) for row in result.tables[0].rows] == sorted((abs(row[5]) for row in result.tables[0].rows), reverse=True)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
def test_perfect_and_always_wrong_have_an_interval(right, grouped):
    groups = np.array([f"g{i // 10:03d}" for i in range(6000)]) if grouped else None
    result = judge(np.full(6000, right), VALUES, groups)

    assert result.low < result.estimate == 0 < result.high
    assert result.outcome is Outcome.PASS


def test_small_value_is_informational():
    sex = np.where(np.arange(6000) < 3, "x", VALUES)
    result = judge(np.arange(6000) >= 3, sex)

    assert result.outcome is Outcome.PASS
    assert table(result)["sex=x"]["status"] == "too small"


def test_unknown_column_or_label_is_inconclusive():
    right = np.ones(300, bool)

    absent = judge(right, VALUES[:300], column="sexx")
    assert absent.outcome is Outcome.INCONCLUSIVE
    assert "gates.fairness.column: no column 'sexx'; available: group, label, sex" in absent.reason
    label = judge(right, VALUES[:300], rate="selection", label="devise")
    assert label.outcome is Outcome.INCONCLUSIVE
    assert "did you mean 'device'" in label.reason


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("values", [["f"], ["f", "m"], [None, "m"]])
def test_few_rows_are_inconclusive(n, values):
    result = judge(np.arange(n) % 2 == 0, np.array((values * n)[:n], dtype=object))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert all(np.isfinite(value) for row in result.tables[0].rows for value in row if isinstance(value, float))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"rate": "selection"}, "needs a label: set gates.fairness.label"),
        ({"max_gap": 0}, "max_gap"),
        ({"colum": "sex"}, "did you mean"),
        ({"min_rows": 10}, "min"),
    ],
)
def test_invalid_setting_is_refused(raw, message):
    with pytest.raises(BadParams, match=message):
        fairness.Params.parse(raw, "gates.fairness")


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_gap_at_the_limit_is_rejected_in_at_most_5_percent(grouped):
    generator, n, repetitions, rejected = np.random.default_rng(4), 1200, 400, 0
    index = np.arange(n) // (4 if grouped else 1)
    groups = np.array([f"g{i:04d}" for i in index])
    for _ in range(repetitions):
        sex = np.where(generator.random(index.max() + 1)[index] < 0.4, "f", "m")
        luck = generator.normal(size=index.max() + 1)[index] * 0.6 + generator.normal(size=n) * 0.8 if grouped else generator.normal(size=n)
        right = luck < stats.norm.ppf(np.where(sex == "f", 0.80, 0.85))
        rejected += judge(right, sex, groups).outcome is Outcome.FAIL

    assert rejected / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


@pytest.mark.parametrize("every", [5, 30, 1000])
def test_advice_has_the_stated_outcome(every):
    right = ~((VALUES == "f") & (np.arange(6000) % every == 0))
    result = judge(right, VALUES)
    stated, settings = advised(result)

    assert stated is not result.outcome
    assert judge(right, VALUES, **settings).outcome is stated
