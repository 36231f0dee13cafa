import math
from functools import partial

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference
from statsmodels.stats.multitest import multipletests

from components.artifacts.predictions import Predictions
from components.stats.bootstrap import percentile_bootstrap
from components.stats.metric_sets import MetricSet
from components.stats.proportions import proportion, proportion_difference
from components.stats.scores import classification
from components.stats.significance import (
    difference_of_shares,
    fewer_right,
    holm,
    mcnemar,
    mcnemar_two_sided,
    mean_below,
    minimum_detectable,
    standard_error,
    units_needed,
)
from components.stats.units import Units
from tests.support.scores import below, difference, difference_below, score

LABELS = ("a", "b", "c")


def answers(n: int, accuracy: float, seed: int, groups: int = 0) -> tuple[MetricSet, np.ndarray]:
    draw = np.random.default_rng(seed)
    expected = np.array(LABELS)[np.arange(n) % 3]
    predicted = np.where(draw.random(n) < accuracy, expected, np.array(LABELS)[(np.arange(n) + 1) % 3])
    ids = np.array([f"{i:06}" for i in range(n)])
    names = np.array([f"g{i % groups}" for i in range(n)]) if groups else ids
    return classification(Predictions(ids, names, expected, predicted, np.ones((n, 3)) / 3, LABELS), 10), predicted


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 1), (3, 9), (9, 3), (20, 20), (0, 40), (41, 37)])
def test_mid_p_is_exact_p_minus_probability_of_the_observation(gained, lost):
    exact = float(reference([[5, gained], [lost, 5]], exact=True).pvalue)
    seen = float(stats.binom.pmf(gained, gained + lost, 0.5)) if gained + lost else 0.0

    assert mcnemar_two_sided(gained, lost) == pytest.approx(min(max(exact - seen, 0), 1) if gained + lost else 1.0)


def test_one_sided_mid_ps_of_both_directions_sum_to_one():
    assert mcnemar(7, 12) + mcnemar(12, 7) == pytest.approx(1)
    assert mcnemar(0, 5) == pytest.approx(2**-6)  # the minimum is 2^-(D + 1)


@pytest.mark.slow
def test_holm_equals_statsmodels():
    p = [0.01, 0.04, 0.03, 0.005, 0.5, 0.04]

    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("groups", [0, 60, 200])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_p_agrees_with_the_interval(metric, groups):
    measured, predicted = answers(600, 0.8, 1, groups)
    estimate = score(metric, measured, predicted, 0.9)

    assert below(metric, measured, predicted, estimate.high) == pytest.approx(0.05, abs=1e-6)
    assert below(metric, measured, predicted, estimate.value) > 0.05


@pytest.mark.parametrize("groups", [0, 60, 200])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_p_of_a_difference_agrees_with_the_interval(metric, groups):
    measured, predicted = answers(600, 0.8, 1, groups)
    other = answers(600, 0.85, 2, groups)[1]
    estimate = difference(metric, measured, predicted, other, 0.9)

    assert difference_below(metric, measured, predicted, other, estimate.high) == pytest.approx(0.05, abs=1e-5)


def test_accuracy_without_groups_uses_mcnemar():
    measured, predicted = answers(600, 0.8, 1)
    other = answers(600, 0.85, 2)[1]
    right, others = predicted == np.array(LABELS)[measured.truth.expected], other == np.array(LABELS)[measured.truth.expected]
    expected = mcnemar(int(np.sum(right & ~others)), int(np.sum(others & ~right)))

    assert difference_below("accuracy", measured, predicted, other) == pytest.approx(expected)
    assert fewer_right(right, others, measured.units) == pytest.approx(expected)


def test_mean_below_equals_scipy():
    values = np.random.default_rng(0).normal(0.1, 1, 80)

    assert mean_below(values, Units.from_groups(np.arange(80))) == pytest.approx(stats.ttest_1samp(values, 0, alternative="less").pvalue)


def test_edge_cases_are_defined():
    single, many = Units.from_groups([0]), Units.from_groups(np.arange(50))

    assert mean_below([0.5], single) == 1.0
    assert mean_below(np.zeros(50), many) == 1.0
    assert mean_below(np.full(50, -0.2), many) < 1e-9
    assert mcnemar(0, 0) == mcnemar_two_sided(0, 0) == 1.0


def test_units_needed_gives_the_power():
    """n = (z_a + z_b)² psi / m²; checked by simulation with the true share of discordant rows."""
    draw, psi, margin = np.random.default_rng(3), 0.1, 0.03
    right = np.arange(2000) < 1700
    other = right.copy()
    other[:100], other[1700:1800] = False, True
    estimate = proportion_difference(right, other, Units.from_groups(np.arange(2000)), 0.9)
    needed = units_needed(estimate, Units.from_groups(np.arange(2000)), margin, 0.05)
    assert needed == pytest.approx(6.18 * psi / margin**2, rel=0.02)

    passes = 0
    for _ in range(400):
        gained, lost = draw.multinomial(needed, [psi / 2, psi / 2, 1 - psi])[:2]
        rows = np.zeros(needed, bool)
        first, second = rows.copy(), rows.copy()
        first[:gained], second[gained : gained + lost] = True, True
        passes += proportion_difference(first, second, Units.from_groups(np.arange(needed)), 0.9).low > -margin
    assert passes / 400 == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / 400))


def test_units_needed_is_none_beyond_the_margin():
    first, second = np.arange(100) < 80, np.arange(100) < 90

    assert (
        units_needed(
            proportion_difference(first, second, Units.from_groups(np.arange(100)), 0.9), Units.from_groups(np.arange(100)), 0.1, 0.05
        )
        is None
    )


def test_units_needed_without_a_margin_use_the_difference():
    draw, psi, gap = np.random.default_rng(9), 0.1, 0.02
    gained, lost = (np.arange(2000) < 120), (np.arange(2000) >= 1920)
    needed = units_needed(
        proportion_difference(gained, lost, Units.from_groups(np.arange(2000)), 0.9), Units.from_groups(np.arange(2000)), 0, 0.05
    )

    assert needed == pytest.approx(6.18 * (psi - gap**2) / gap**2, rel=0.02)
    rows, passes = Units.from_groups(np.arange(needed)), 0
    for _ in range(400):
        more, fewer = draw.multinomial(needed, [0.06, 0.04, 0.9])[:2]
        passes += proportion_difference(np.arange(needed) < more, np.arange(needed) >= needed - fewer, rows, 0.9).low > 0
    assert passes / 400 == pytest.approx(0.8, abs=3 * math.sqrt(0.16 / 400))


def test_units_needed_without_an_improvement_exceed_the_rows():
    right, rows = np.arange(100) % 4 != 0, Units.from_groups(np.arange(100))

    assert units_needed(proportion_difference(right, right, rows, 0.9), rows, 0, 0.05) is None


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.1])
def test_equal_models_pass_from_the_computed_rows(margin):
    z = float(stats.norm.ppf(0.95))
    turn = z**2 * (1 - margin) / margin  # without discordant rows Tango's interval is ±z²/(n + z²)
    passes = []
    for n in (int(turn) - 1, int(turn) + 2):
        right = np.arange(n) % 4 != 0
        passes.append(proportion_difference(right, right, Units.from_groups(np.arange(n)), 0.9).low > -margin)

    assert passes == [False, True]


def test_standard_error_and_detectable_effect_fit_the_interval():
    right = np.arange(1000) < 800
    units = Units.from_groups(np.arange(1000))
    estimate = proportion(right, units, 0.9)

    assert standard_error(estimate, units) == pytest.approx(math.sqrt(0.16 / 1000), rel=0.03)
    assert minimum_detectable(0.01, 0.05) == pytest.approx(0.01 * (1.6449 + 0.8416), rel=1e-4)


@pytest.mark.parametrize("groups", [0, 300])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_bootstrap_agrees_with_the_interval(metric, groups):
    measured, predicted = answers(1500, 0.8, 1, groups)
    other = answers(1500, 0.82, 2, groups)[1]
    estimate = difference(metric, measured, predicted, other, 0.95)

    resampled = partial(percentile_bootstrap, measured.estimator(metric).counts_difference, measured.truth, predicted)
    low, high = resampled(other, 0.95)
    assert (low, high) == pytest.approx((estimate.low, estimate.high), abs=0.2 * (estimate.high - estimate.low) / 2)
    assert resampled(predicted, 0.95) == (0, 0)


def test_difference_of_shares_equals_agresti_caffo():
    gap, error = difference_of_shares(np.arange(50) < 40, np.arange(80) < 40)

    assert gap == pytest.approx(41 / 52 - 41 / 82)
    assert error == pytest.approx(math.sqrt(41 / 52 * 11 / 52 / 52 + 0.25 / 82))
