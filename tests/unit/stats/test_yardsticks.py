"""Metrics that are functions of sums over rows: against closed forms, and in simulations whose truth is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from components.artifacts.predictions import Predictions
from components.evaluation.metric_set import metric_set as yardstick_of
from components.model.support.metrics import Metric, f1, mean, ratio
from components.stats import AdditiveMetrics, Units

MEASURES = {
    "f1": Metric(("hits", "predicted", "expected"), f1, "entities"),
    "share": mean("hits", "of the rows"),
    "loglik": Metric(("loglik", "bytes"), ratio, "nats a byte", (-np.inf, 0.0)),
}


def predictions(groups, **measured) -> Predictions:
    n = len(groups)
    ids = np.array([f"r{place:05d}" for place in range(n)])
    nothing = np.array([""] * n)
    return Predictions(ids, np.asarray(groups).astype(np.str_), nothing, nothing, np.zeros((n, 0)), (), {"rows": np.ones(n), **measured})


def yardstick(found: Predictions) -> AdditiveMetrics:
    return AdditiveMetrics.of(found, MEASURES, lambda given: given.measured)


def test_the_jackknife_of_a_mean_is_the_textbook_interval():
    values = np.random.default_rng(1).random(80)
    found = predictions(np.arange(80), hits=values)
    estimate = yardstick(found).score("share", found, 0.9)

    half = stats.t.ppf(0.95, 79) * values.std(ddof=1) / np.sqrt(80)
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert yardstick(found).below("share", found, 0.6) == pytest.approx(stats.ttest_1samp(values, 0.6, alternative="less").pvalue, rel=1e-9)


def test_a_paired_difference_of_means_is_students_paired_test():
    generator = np.random.default_rng(2)
    one, other = generator.random(60), generator.random(60)
    mine, theirs = predictions(np.arange(60), hits=one), predictions(np.arange(60), hits=other)

    assert yardstick(mine).difference_below("share", mine, theirs) == pytest.approx(stats.ttest_rel(one, other, alternative="less").pvalue)
    there, back = yardstick(mine).difference("share", mine, theirs), yardstick(mine).difference("share", theirs, mine)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_leaving_a_group_out_is_computing_the_metric_without_it():
    generator = np.random.default_rng(3)
    groups = generator.integers(0, 12, 90)
    sums = {"hits": generator.poisson(2, 90), "predicted": generator.poisson(3, 90) + 2, "expected": generator.poisson(3, 90) + 2}
    found = predictions(groups, **{name: values.astype(float) for name, values in sums.items()})
    whole = MEASURES["f1"].of(found.measured)
    without = [MEASURES["f1"].of({name: values[groups != one] for name, values in found.measured.items()}) for one in np.unique(groups)]

    variance = (12 - 1) / 12 * np.sum((np.array(without) - whole) ** 2)
    half = stats.t.ppf(0.975, 11) * np.sqrt(variance)
    assert yardstick(found).score("f1", found).high == pytest.approx(whole + half)


def test_a_model_against_itself_leaves_room_and_few_units_decide_nothing():
    found = predictions(np.arange(49), hits=np.ones(49))
    estimate = yardstick(found).difference("share", found, found, 0.9)

    squared = stats.t.ppf(0.95, 48) ** 2
    assert estimate.high == pytest.approx(2 * 0.5 * squared / (49 + squared))
    assert "49 rows" in str(estimate.doubt)
    assert yardstick(predictions(np.arange(50), hits=np.ones(50))).doubt("share") is None


def test_a_certain_difference_is_no_more_certain_than_its_units():
    worse, better = predictions(np.arange(60), hits=np.zeros(60)), predictions(np.arange(60), hits=np.ones(60))

    assert yardstick(worse).difference_below("share", worse, better) == pytest.approx(0.5**60)
    assert yardstick(worse).difference_below("share", better, worse) == 1.0


def documents(generator, count, recall, precision, spread):
    """Entities of `count` documents: recall varies from one to the next, so that a document is a unit."""
    expected = generator.poisson(4, count) + 1
    own = np.clip(recall + spread * generator.standard_normal(count), 0, 1)
    hits = generator.binomial(expected, own)
    wrong = generator.poisson(4 * recall * (1 - precision) / precision, count)
    return {"hits": hits.astype(float), "predicted": (hits + wrong).astype(float), "expected": expected.astype(float)}


def truth_of(recall, precision, spread):
    """The entity F1 of a million documents."""
    return MEASURES["f1"].of(documents(np.random.default_rng(99), 1_000_000, recall, precision, spread))


@pytest.mark.parametrize("count", [60, 300])
def test_intervals_of_entity_f1_hold_their_level(count):
    generator, truth = np.random.default_rng(4), truth_of(0.7, 0.8, 0.2)
    low = high = 0
    for _ in range(2000):
        found = predictions(np.arange(count), **documents(generator, count, 0.7, 0.8, 0.2))
        estimate = yardstick(found).score("f1", found, 0.9)
        low, high = low + (estimate.low > truth), high + (estimate.high < truth)

    # 5 % a side; 2,000 repetitions have a standard error of 0.5 points
    assert low / 2000 < 0.068
    assert high / 2000 < 0.068
    assert (low + high) / 2000 > 0.06


@pytest.mark.slow
@pytest.mark.parametrize("count", [60, 300])
def test_a_model_that_is_worse_by_the_margin_is_rarely_let_through(count):
    """The false promotion of non-inferiority at 5 %: the candidate's F1 is truly below the champion's by just the margin."""
    generator, margin = np.random.default_rng(5), truth_of(0.75, 0.8, 0.1) - truth_of(0.70, 0.8, 0.1)
    passed = 0
    for _ in range(2000):
        champion = documents(generator, count, 0.75, 0.8, 0.1)
        candidate = documents(generator, count, 0.70, 0.8, 0.1) | {"expected": champion["expected"]}
        candidate["hits"] = np.minimum(generator.binomial(champion["expected"].astype(int), 0.70), candidate["predicted"])
        champion["hits"] = generator.binomial(champion["expected"].astype(int), 0.75).astype(float)
        champion["predicted"] = champion["hits"] + generator.poisson(4 * 0.75 * 0.25, count)
        candidate["predicted"] = candidate["hits"] + generator.poisson(4 * 0.70 * 0.25, count)
        mine, theirs = predictions(np.arange(count), **candidate), predictions(np.arange(count), **champion)
        passed += yardstick(mine).difference("f1", mine, theirs, 0.9).low > -margin

    assert passed / 2000 < 0.068


def test_log_likelihood_is_decided_on_without_bounds():
    generator = np.random.default_rng(6)
    size = generator.integers(20, 200, 120).astype(float)
    found = predictions(np.arange(120), loglik=-size * generator.normal(1.0, 0.1, 120), bytes=size)
    better = predictions(np.arange(120), loglik=found.measured["loglik"] + 0.05 * size, bytes=size)

    assert yardstick(found).score("loglik", found).value == pytest.approx(-1.0, abs=0.03)
    gain = yardstick(found).difference("loglik", better, found, 0.9)
    assert gain.low <= gain.value == pytest.approx(0.05)
    assert yardstick(found).difference_below("loglik", found, better) < 1e-6


def test_units_are_groups_where_rows_share_one():
    found = predictions([0, 0, 1, 1, 2], hits=np.ones(5))

    assert yardstick(found).units.index.tolist() == Units.of(found.groups).index.tolist() == [0, 0, 1, 1, 2]
    assert yardstick(found).on(found.take(np.array([True, False, True, False, True]))).units.count == 3


def test_the_same_answers_are_counted_once_and_as_a_whole():
    asked = []

    def statistics(expected, predicted):
        asked.append(len(expected))
        hits = np.array([one == other for one, other in zip(expected, predicted, strict=True)], dtype=np.float64)
        return {"hits": hits - hits.mean(), "rows": np.ones(len(expected))}

    task = SimpleNamespace(test_metrics={"share": MEASURES["share"]}, classes=False, statistics=statistics)
    texts = np.array(["a", "b", "a", "c"] * 20)
    found = Predictions(texts, np.arange(80).astype(np.str_), texts, np.array(["a", "b", "b", "c"] * 20), np.zeros((80, 0)), ())
    made, part = yardstick_of(task, found, 10), found.take(texts == "a")

    for one in (found, part, found):
        assert made.on(one).score("share", one).value == pytest.approx(0)
    assert made.difference("share", found, found).value == 0
    assert asked == [80, 40]
