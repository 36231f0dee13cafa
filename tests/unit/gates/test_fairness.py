import numpy as np
import pandas as pd
import pytest
from scipy import stats

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import BadParams
from components.gates import Evidence, fairness
from components.stats import MIN_GROUPS
from tests.support.gate_cases import against, answered, decided


def rows_of(predictions: Predictions, sex: np.ndarray) -> pd.DataFrame:
    texts = [f"number {i}" for i in range(len(sex))]
    return pd.DataFrame({"id": predictions.ids, "group": predictions.groups, "text": texts, "label": predictions.expected, "sex": sex})


def seen(right: np.ndarray, sex: np.ndarray, groups: np.ndarray | None = None) -> Evidence:
    model = answered(right, groups)
    return against(model, None, rows=rows_of(model, sex))


def asked(right: np.ndarray, sex: np.ndarray, groups: np.ndarray | None = None, **settings) -> GateResult:
    return decided("fairness", seen(right, sex, groups), **({"column": "sex"} | settings))


def table(found: GateResult) -> dict[str, dict[str, object]]:
    return {str(row[0]): dict(zip(found.tables[0].columns, row, strict=True)) for row in found.tables[0].rows}


VALUES = np.where(np.arange(6000) % 3 == 0, "f", "m")


def test_without_a_column_nothing_is_asked():
    found = decided("fairness", against(answered(np.ones(10, bool)), None))

    assert found.outcome is Outcome.PASS
    assert "no column named in gates.fairness.column" in found.reason


def test_a_wide_gap_is_rejected_and_a_narrow_one_passes():
    wide = asked(~((VALUES == "f") & (np.arange(6000) % 5 == 0)), VALUES)
    narrow = asked(np.arange(6000) % 10 != 0, VALUES)

    assert wide.outcome is Outcome.FAIL
    assert "accuracy of sex=f differs by -0.20" in wide.reason or "accuracy of sex=m differs by +0.20" in wide.reason
    assert wide.reason.count("more than gates.fairness.max_gap 0.05") == 1
    assert narrow.outcome is Outcome.PASS


def test_two_values_are_one_test_and_three_are_three():
    right = np.arange(6000) % 10 != 0

    assert len(asked(right, VALUES).hypotheses) == 1
    assert len(asked(right, np.array(["a", "b", "c"])[np.arange(6000) % 3]).hypotheses) == 3


def test_a_value_that_may_lie_below_the_limit_alone_settles_nothing():
    values = np.array(["a", "b", "c"])[np.arange(1500) % 3]
    right = ~((values == "c") & (np.arange(1500) // 3 % 25 == 0))
    found = asked(right, values)

    assert [(name, row["high"] > 0.05) for name, row in table(found).items() if row["low"] < -0.05] == [("sex=c", False)]
    assert found.outcome is Outcome.INCONCLUSIVE


def test_a_gap_at_the_limit_settles_nothing():
    right = ~((VALUES == "f") & (np.arange(6000) % 20 == 0))

    assert asked(right, VALUES).outcome is Outcome.INCONCLUSIVE


def test_a_rate_may_be_that_of_selection_or_of_true_positives():
    right = np.ones(6000, bool)
    found = asked(right, VALUES, rate="true_positive", label="device", max_gap=0.1)
    selected = asked(right, np.where(np.arange(6000) % 6 == 1, "f", "m"), rate="selection", label="device")

    assert found.outcome is Outcome.INCONCLUSIVE  # "device" is row 1 of every three, which is always m
    assert "two values" in found.reason
    assert selected.outcome is Outcome.FAIL
    assert table(selected)["sex=f"]["rate"] == 1.0
    assert table(selected)["sex=f"]["all others"] == pytest.approx(0.2)


def test_true_positives_are_counted_among_the_rows_of_the_label():
    sex = np.where(np.arange(6000) % 2 == 0, "f", "m")
    right = ~((sex == "f") & (np.arange(6000) % 3 == 1) & (np.arange(6000) % 5 == 0))
    found = asked(right, sex, rate="true_positive", label="device")

    assert table(found)["sex=f"]["rows"] == 1000
    assert table(found)["sex=f"]["rate"] == pytest.approx(0.8)
    assert found.outcome is Outcome.FAIL


def test_the_p_is_that_of_the_interval_null():
    """With a limit close to nothing it is the two-sided p of Agresti and Caffo's difference of shares."""
    right = ~((VALUES == "f") & (np.arange(6000) % 50 == 0))
    found = asked(right, VALUES, max_gap=1e-9)
    hits = [right[one == VALUES] for one in "fm"]
    shares = [(one.sum() + 1) / (len(one) + 2) for one in hits]
    error = np.sqrt(sum(share * (1 - share) / (len(one) + 2) for share, one in zip(shares, hits, strict=True)))

    assert found.hypotheses[0].p == pytest.approx(2 * stats.norm.sf(abs(shares[0] - shares[1]) / error), rel=1e-6)


def test_too_few_rows_name_the_setting_and_too_few_values_do_not():
    few = np.where(np.arange(6000) < 99, "f", "m")

    assert asked(np.ones(6000, bool), few).reason.endswith("a value that has 100 rows (gates.fairness.min_rows), and as many beside it")
    assert asked(np.ones(6000, bool), np.full(6000, "f")).reason.endswith("does not have two values")


def test_groups_count_and_each_side_needs_fifty():
    groups = np.array([f"g{i // 10:03d}" for i in range(6000)])
    few = np.where(np.arange(6000) // 10 < MIN_GROUPS - 1, "f", "m")
    enough = np.where(np.arange(6000) // 10 < MIN_GROUPS, "f", "m")

    assert asked(np.arange(6000) % 7 != 0, few, groups).outcome is Outcome.INCONCLUSIVE
    assert asked(np.arange(6000) % 7 != 0, few, groups).reason.endswith(f"have a value that has {MIN_GROUPS} groups, and as many beside it")
    assert "delete-one-group jackknife" in str(asked(np.arange(6000) % 7 != 0, enough, groups).method)


def test_the_interval_of_groups_is_the_jackknife_by_brute_force():
    """Groups of unequal size, some of them on both sides, and a rate that depends on the group."""
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
    sides = [len(np.unique(groups[sex == one])) for one in "fm"]
    found = next(row for row in asked(right, sex, groups, max_gap=0.03).tables[0].rows if row[0] == "sex=f")
    half = stats.t.ppf(0.95, min(sides) - 1) * error

    assert found[5:8] == pytest.approx((value, value - half, value + half), abs=1e-4)
    expected = sum(stats.t.sf((abs(value) + side * 0.03) / error, min(sides) - 1) for side in (-1, 1))
    assert found[8] == pytest.approx(expected, rel=1e-3)


def test_groups_that_are_all_alike_count_as_one_row_each():
    groups = np.array([f"g{i // 10:03d}" for i in range(6000)])
    sex = np.where(np.arange(6000) // 10 % 3 == 0, "f", "m")
    found = asked(sex == "m", sex, groups)
    shares = [1 / 202, 401 / 402]
    error = np.sqrt(shares[0] * (1 - shares[0]) / 202 + shares[1] * (1 - shares[1]) / 402)

    row = table(found)["sex=f"]
    assert row["gap"] == row["low"] == -1.0
    assert row["high"] == pytest.approx(shares[0] - shares[1] + stats.t.ppf(0.95, 199) * error, abs=1e-4)


def test_groups_that_are_half_right_each_are_no_wider_apart_than_they_are():
    groups = np.array([f"g{i // 10:03d}" for i in range(6000)])
    sex = np.where(np.arange(6000) // 10 % 3 == 0, "f", "m")
    row = table(asked(np.where(sex == "f", np.arange(6000) % 10 < 6, np.arange(6000) % 10 < 5), sex, groups))["sex=f"]

    assert row["gap"] == pytest.approx(0.1)
    assert row["low"] < 0.05 < 0.1 < row["high"] < 0.2


def test_the_widest_gap_comes_first():
    kind = np.array(["a", "b", "c"])[np.arange(6000) % 3]
    found = asked(~((kind == "b") & (np.arange(6000) % 12 == 1)), kind)

    assert found.tables[0].rows[0][0] == "sex=b"
    assert [abs(row[5]) for row in found.tables[0].rows] == sorted((abs(row[5]) for row in found.tables[0].rows), reverse=True)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("grouped", [True, False])
def test_all_right_or_all_wrong_has_an_interval_with_a_width(right, grouped):
    groups = np.array([f"g{i // 10:03d}" for i in range(6000)]) if grouped else None
    found = asked(np.full(6000, right), VALUES, groups)

    assert found.low < found.estimate == 0 < found.high
    assert found.outcome is Outcome.PASS


def test_a_value_with_few_rows_is_shown_and_rejects_nobody():
    sex = np.where(np.arange(6000) < 3, "x", VALUES)
    found = asked(np.arange(6000) >= 3, sex)

    assert found.outcome is Outcome.PASS
    assert table(found)["sex=x"]["standing"] == "too small"


def test_an_absent_column_or_label_is_named_with_those_that_there_are():
    right = np.ones(300, bool)

    absent = asked(right, VALUES[:300], column="sexx")
    assert absent.outcome is Outcome.INCONCLUSIVE
    assert "gates.fairness.column: no column 'sexx'; there are: group, label, sex" in absent.reason
    label = asked(right, VALUES[:300], rate="selection", label="devise")
    assert label.outcome is Outcome.INCONCLUSIVE
    assert "did you mean 'device'" in label.reason


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("values", [["f"], ["f", "m"], [None, "m"]])
def test_a_handful_of_rows_settles_nothing_and_breaks_nothing(n, values):
    found = asked(np.arange(n) % 2 == 0, np.array((values * n)[:n], dtype=object))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert all(np.isfinite(value) for row in found.tables[0].rows for value in row if isinstance(value, float))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"rate": "selection"}, "name it as label"),
        ({"max_gap": 0}, "max_gap"),
        ({"colum": "sex"}, "did you mean"),
        ({"min_rows": 10}, "min"),
    ],
)
def test_a_wrong_setting_is_named(raw, message):
    with pytest.raises(BadParams, match=message):
        fairness.Params.parse(raw, "gates.fairness")


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_a_gap_of_just_the_limit_is_rejected_in_no_more_than_five_of_a_hundred_test_sets(grouped):
    generator, n, repetitions, rejected = np.random.default_rng(4), 1200, 400, 0
    index = np.arange(n) // (4 if grouped else 1)
    groups = np.array([f"g{i:04d}" for i in index])
    for _ in range(repetitions):
        sex = np.where(generator.random(index.max() + 1)[index] < 0.4, "f", "m")
        luck = generator.normal(size=index.max() + 1)[index] * 0.6 + generator.normal(size=n) * 0.8 if grouped else generator.normal(size=n)
        right = luck < stats.norm.ppf(np.where(sex == "f", 0.80, 0.85))
        rejected += asked(right, sex, groups).outcome is Outcome.FAIL

    assert rejected / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
