"""Metrics that are functions of sums over rows: against closed forms, and in simulations with a known truth."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from components.artifacts.predictions import Predictions
from components.evaluation.metric_set import metric_set as yardstick_of
from components.model.support.metrics import Metric, mean, ratio
from components.stats.metric_sets import MetricSet
from components.stats.units import Units
from tests.support.additive_cases import ENTITY_F1, documents, predictions

MEASURES = {
    "f1": ENTITY_F1,
    "share": mean("hits", "of the rows"),
    "loglik": Metric(("loglik", "bytes"), ratio, "nats a byte", (-np.inf, 0.0)),
}


def metric_set(rows: Predictions) -> MetricSet:
    return MetricSet.from_predictions(rows, MEASURES, lambda answers: answers.measured)


def test_jackknife_of_a_mean_equals_students_interval():
    values = np.random.default_rng(1).random(80)
    answers = predictions(np.arange(80), hits=values)
    estimate = metric_set(answers).score("share", answers, 0.9)

    half = stats.t.ppf(0.95, 79) * values.std(ddof=1) / np.sqrt(80)
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert metric_set(answers).below("share", answers, 0.6) == pytest.approx(
        stats.ttest_1samp(values, 0.6, alternative="less").pvalue, rel=1e-9
    )


def test_paired_difference_of_means_equals_students_test():
    generator = np.random.default_rng(2)
    first, second = generator.random(60), generator.random(60)
    candidate_rows, champion_rows = predictions(np.arange(60), hits=first), predictions(np.arange(60), hits=second)

    assert metric_set(candidate_rows).difference_below("share", candidate_rows, champion_rows) == pytest.approx(
        stats.ttest_rel(first, second, alternative="less").pvalue
    )
    forward, backward = (
        metric_set(candidate_rows).difference("share", candidate_rows, champion_rows),
        metric_set(candidate_rows).difference("share", champion_rows, candidate_rows),
    )
    assert (forward.low, forward.high) == pytest.approx((-backward.high, -backward.low))


def test_left_out_group_equals_metric_without_its_rows():
    generator = np.random.default_rng(3)
    groups = generator.integers(0, 12, 90)
    sums = {"hits": generator.poisson(2, 90), "predicted": generator.poisson(3, 90) + 2, "expected": generator.poisson(3, 90) + 2}
    answers = predictions(groups, **{name: values.astype(float) for name, values in sums.items()})
    whole = MEASURES["f1"].of(answers.measured)
    without = [
        MEASURES["f1"].of({name: values[groups != group] for name, values in answers.measured.items()}) for group in np.unique(groups)
    ]

    variance = (12 - 1) / 12 * np.sum((np.array(without) - whole) ** 2)
    half = stats.t.ppf(0.975, 11) * np.sqrt(variance)
    assert metric_set(answers).score("f1", answers).high == pytest.approx(whole + half)


def test_equal_models_have_an_interval_and_few_units_a_doubt():
    answers = predictions(np.arange(49), hits=np.ones(49))
    estimate = metric_set(answers).difference("share", answers, answers, 0.9)

    squared = stats.t.ppf(0.95, 48) ** 2
    assert estimate.high == pytest.approx(2 * 0.5 * squared / (49 + squared))
    assert "49 rows" in str(estimate.doubt)
    assert metric_set(predictions(np.arange(50), hits=np.ones(50))).doubt("share") is None


def test_constant_difference_depends_on_the_number_of_units():
    worse, better = predictions(np.arange(60), hits=np.zeros(60)), predictions(np.arange(60), hits=np.ones(60))

    assert metric_set(worse).difference_below("share", worse, better) == pytest.approx(0.5**60)
    assert metric_set(worse).difference_below("share", better, worse) == 1.0


def truth_of(recall, precision, spread):
    """Return the entity F1 of a million documents."""
    return MEASURES["f1"].of(documents(np.random.default_rng(99), 1_000_000, recall, precision, spread))


@pytest.mark.slow
@pytest.mark.parametrize("count", [60, 300])
def test_intervals_of_entity_f1_keep_their_level(count):
    generator, truth = np.random.default_rng(4), truth_of(0.7, 0.8, 0.2)
    low = high = 0
    for _ in range(2000):
        answers = predictions(np.arange(count), **documents(generator, count, 0.7, 0.8, 0.2))
        estimate = metric_set(answers).score("f1", answers, 0.9)
        low, high = low + (estimate.low > truth), high + (estimate.high < truth)

    # 5 % per side; 2,000 repetitions have a standard error of 0.5 points
    assert low / 2000 < 0.068
    assert high / 2000 < 0.068
    assert (low + high) / 2000 > 0.06


@pytest.mark.slow
@pytest.mark.parametrize("count", [60, 300])
def test_model_worse_by_the_margin_rarely_passes(count):
    """False promotions of non-inferiority at 5 %: the true F1 of the candidate is below the champion's by the margin."""
    generator, margin = np.random.default_rng(5), truth_of(0.75, 0.8, 0.1) - truth_of(0.70, 0.8, 0.1)
    passed = 0
    for _ in range(2000):
        champion = documents(generator, count, 0.75, 0.8, 0.1)
        candidate = documents(generator, count, 0.70, 0.8, 0.1) | {"expected": champion["expected"]}
        candidate["hits"] = np.minimum(generator.binomial(champion["expected"].astype(int), 0.70), candidate["predicted"])
        champion["hits"] = generator.binomial(champion["expected"].astype(int), 0.75).astype(float)
        champion["predicted"] = champion["hits"] + generator.poisson(4 * 0.75 * 0.25, count)
        candidate["predicted"] = candidate["hits"] + generator.poisson(4 * 0.70 * 0.25, count)
        candidate_rows, champion_rows = predictions(np.arange(count), **candidate), predictions(np.arange(count), **champion)
        passed += metric_set(candidate_rows).difference("f1", candidate_rows, champion_rows, 0.9).low > -margin

    assert passed / 2000 < 0.068


def test_unbounded_log_likelihood_is_tested():
    generator = np.random.default_rng(6)
    size = generator.integers(20, 200, 120).astype(float)
    answers = predictions(np.arange(120), loglik=-size * generator.normal(1.0, 0.1, 120), bytes=size)
    better = predictions(np.arange(120), loglik=answers.measured["loglik"] + 0.05 * size, bytes=size)

    assert metric_set(answers).score("loglik", answers).value == pytest.approx(-1.0, abs=0.03)
    gain = metric_set(answers).difference("loglik", better, answers, 0.9)
    assert gain.low <= gain.value == pytest.approx(0.05)
    assert metric_set(answers).difference_below("loglik", answers, better) < 1e-6


def test_units_are_groups_if_rows_share_one():
    answers = predictions([0, 0, 1, 1, 2], hits=np.ones(5))

    assert metric_set(answers).units.index.tolist() == Units.from_groups(answers.groups).index.tolist() == [0, 0, 1, 1, 2]
    assert metric_set(answers).on(answers.take(np.array([True, False, True, False, True]))).units.count == 3


def test_statistics_are_computed_once_per_predictions():
    calls = []

    def statistics(expected, predicted):
        calls.append(len(expected))
        hits = np.array([label == answer for label, answer in zip(expected, predicted, strict=True)], dtype=np.float64)
        return {"hits": hits - hits.mean(), "rows": np.ones(len(expected))}

    task = SimpleNamespace(test_metrics={"share": MEASURES["share"]}, classes=False, statistics=statistics)
    texts = np.array(["a", "b", "a", "c"] * 20)
    answers = Predictions(texts, np.arange(80).astype(np.str_), texts, np.array(["a", "b", "b", "c"] * 20), np.zeros((80, 0)), ())
    metric_set, part = yardstick_of(task, answers, 10), answers.take(texts == "a")

    for rows in (answers, part, answers):
        assert metric_set.on(rows).score("share", rows).value == pytest.approx(0)
    assert metric_set.difference("share", answers, answers).value == 0
    assert calls == [80, 40]
