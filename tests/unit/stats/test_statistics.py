import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from components.stats.calibration import brier, calibration_error, reliability
from components.stats.means import mean, mean_difference
from components.stats.proportions import proportion, proportion_difference, tango
from components.stats.units import Units

Z95 = float(stats.norm.ppf(0.975))


def rows(n: int) -> Units:
    return Units.from_groups(np.arange(n))


def paired(gained: int, lost: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.ones(n, bool), np.ones(n, bool)
    second[:gained] = False
    first[gained : gained + lost] = False
    return first, second


def test_tango_equals_the_published_interval():
    low, high = tango(1, 7, 1 + 1 + 7 + 12, Z95)  # Fagerland, Lydersen and Laake 2014

    assert (round(float(low), 3), round(float(high), 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("gained", "lost", "n"), [(1, 7, 21), (30, 52, 1000), (0, 9, 50), (4, 0, 400)])
def test_tango_limits_solve_the_score_equation(gained, lost, n):
    def statistic(delta):
        b = -gained - lost + (2 * n - gained + lost) * delta
        q = (math.sqrt(b * b - 4 * 2 * n * -lost * delta * (1 - delta)) - b) / (4 * n)
        return (gained - lost - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))

    low, high = tango(gained, lost, n, 1.645)

    assert statistic(float(low)) == pytest.approx(1.645, abs=1e-6)
    assert statistic(float(high)) == pytest.approx(-1.645, abs=1e-6)


@pytest.mark.parametrize("n", [1, 7, 2000])
def test_tango_without_discordant_rows_has_a_closed_form(n):
    low, high = tango(0, 0, n, Z95)

    assert (float(low), float(high)) == pytest.approx((-(Z95**2) / (n + Z95**2), Z95**2 / (n + Z95**2)))


def test_tango_vectorises_and_reaches_its_bounds():
    low, high = tango([5, 0, 1], [0, 5, 7], [5, 5, 21], Z95)

    assert low.shape == high.shape == (3,)
    assert high[0] == 1
    assert low[1] == -1
    assert float(low[2]) == pytest.approx(float(tango(1, 7, 21, Z95)[0]), abs=1e-12)


@pytest.mark.parametrize("groups", [np.arange(300), np.arange(300) // 3])
def test_swapped_models_mirror_the_interval(groups):
    first, second = paired(20, 31, 300)
    forward, backward = (
        proportion_difference(first, second, Units.from_groups(groups)),
        proportion_difference(second, first, Units.from_groups(groups)),
    )

    assert (forward.value, forward.low, forward.high) == (-backward.value, -backward.high, -backward.low)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (17, 40), (1421, 2000)])
def test_proportion_equals_scipys_exact_interval(hits, n):
    estimate, exact = proportion(np.arange(n) < hits, rows(n), 0.9), stats.binomtest(hits, n).proportion_ci(0.9, "exact")

    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((hits / n, exact.low, exact.high))
    assert estimate.confidence == 0.9


def test_uniform_groups_count_as_one_row_each():
    right = np.repeat(np.random.default_rng(0).random(400) < 0.7, 5)
    by_group, by_unit = proportion(right, Units.from_groups(np.arange(2000) // 5)), proportion(right[::5], rows(400))

    assert by_group.n == 400
    assert by_group.low == pytest.approx(by_unit.low, abs=0.002)
    assert by_group.high == pytest.approx(by_unit.high, abs=0.002)


def test_groups_never_narrow_the_interval():
    right = np.tile([True, False], 300)  # each group has one of each: less variation than chance
    by_group, by_row = proportion(right, Units.from_groups(np.arange(600) // 2)), proportion(right, rows(600))

    assert by_group.low <= by_row.low <= by_row.high <= by_group.high


def test_effective_rows_equal_the_brute_force_jackknife():
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 60, 400)
    first, second = rng.random(400) < 0.8, rng.random(400) < 0.75
    units, diff = Units.from_groups(groups), first.astype(float) - second
    left_out = np.array([diff[groups != g].mean() for g in np.unique(groups)])
    variance = (units.count - 1) / units.count * np.sum((left_out - diff.mean()) ** 2)
    share = 1 / max(variance / (diff.var() / 400), 1)
    gained, lost = np.sum(first & ~second), np.sum(second & ~first)
    low, high = tango(gained * share, lost * share, 400 * share, float(stats.t.ppf(0.975, units.count - 1)))

    estimate = proportion_difference(first, second, units)

    assert (estimate.low, estimate.high) == pytest.approx((float(low), float(high)))


def test_fewer_than_50_groups_have_a_doubt():
    right = np.tile([True, True, False], 50)

    assert "49 groups" in str(proportion(right[:147], Units.from_groups(np.arange(147) // 3)).doubt)
    assert proportion(right, Units.from_groups(np.arange(150) // 3)).doubt is None
    assert proportion(right[:20], rows(20)).doubt is None


@pytest.mark.parametrize("groups", [[0], [0, 0, 0], [0, 1, 1], [0, 1, 2]])
@pytest.mark.parametrize("value", [True, False])
def test_all_right_or_all_wrong_has_an_interval(groups, value):
    units, same = Units.from_groups(groups), np.full(len(groups), value)
    single, pair = proportion(same, units), proportion_difference(same, same, units)

    assert 0 <= single.low <= single.value <= single.high <= 1
    assert single.high - single.low > 0.3
    assert -1 <= pair.low < pair.value == 0 < pair.high <= 1


def test_mean_over_rows_equals_statsmodels():
    values = np.random.default_rng(1).random(80)

    estimate = mean(values, rows(80), (0, 1), 0.9)

    assert (estimate.low, estimate.high) == pytest.approx(DescrStatsW(values).tconfint_mean(0.1))


def test_mean_over_groups_equals_the_brute_force_jackknife():
    rng = np.random.default_rng(2)
    groups, values, others = rng.integers(0, 70, 300), rng.random(300), rng.random(300)
    left_out = np.array([(values - others)[groups != g].mean() for g in np.unique(groups)])
    count, value = len(left_out), (values - others).mean()
    half = stats.t.ppf(0.975, count - 1) * math.sqrt((count - 1) / count * np.sum((left_out - value) ** 2))

    estimate = mean_difference(values, others, Units.from_groups(groups), (0, 1))

    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, value - half, value + half))


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_constant_mean_has_an_interval(n):
    estimate = mean(np.zeros(n), rows(n), (0, 2))

    assert estimate.low == estimate.value == 0
    assert estimate.high == pytest.approx(2 * (1 - 0.025 ** (1 / n)))


def test_brier_is_the_squared_distance():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])

    assert brier(probabilities, np.array([0, 1, -1]), rows(3)).value == pytest.approx((0.14 + 0 + 1.5) / 3)


def test_reliability_bins_contain_each_row_once():
    confidences = np.array([0.0, 0.34, 0.35, 0.99, 1.0])
    bins = reliability(confidences, np.array([False, True, False, True, True]))

    assert [(b.rows, round(b.confidence, 3), b.accuracy) for b in bins] == [(1, 0, 0), (2, 0.345, 0.5), (2, 0.995, 1)]


def test_debiased_calibration_error_of_a_calibrated_model_is_near_zero():
    rng = np.random.default_rng(5)
    plain, debiased = [], []
    for _ in range(200):
        confidences = rng.beta(4, 1.5, 1000)
        errors = calibration_error(confidences, rng.random(1000) < confidences)
        plain.append(errors[0])
        debiased.append(errors[1] ** 2)

    assert np.mean(plain) > 0.02
    assert np.mean(debiased) < 0.0004


def test_debiased_calibration_error_is_accurate():
    rng = np.random.default_rng(6)
    squared = []
    for _ in range(400):
        confidences = rng.uniform(0.3, 1.0, 500)
        squared.append(calibration_error(confidences, rng.random(500) < confidences - 0.1)[1] ** 2)

    assert math.sqrt(np.mean(squared)) == pytest.approx(0.1, abs=0.005)


def test_calibration_of_a_single_row_is_defined():
    assert calibration_error(np.array([0.8]), np.array([True])) == (pytest.approx(0.2), 0.0)
