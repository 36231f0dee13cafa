import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, precision_recall_fscore_support

from components.artifacts.predictions import Predictions
from components.stats.f1 import class_counts, f1, f1_difference, f1_influence, f1_left_out, f1_value
from components.stats.metric_sets import MetricSet
from components.stats.scores import CLASSIFICATION, classification
from components.stats.units import Units
from tests.support.scores import difference, score

AVERAGES = ("macro", "micro", "weighted")


def answers(seed: int, n: int, classes: int, right: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    expected = rng.choice(classes, n, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    return expected, np.where(rng.random(n) < right, expected, rng.integers(0, classes, n))


def truth(expected: list[str], labels: tuple[str, ...], groups=None, min_units: int = 1) -> MetricSet:
    n = len(expected)
    ids = np.array([str(i) for i in range(n)])
    places = np.array(expected)
    groups = ids if groups is None else np.array([str(g) for g in groups])
    return classification(Predictions(ids, groups, places, places, np.full((n, len(labels)), 1 / len(labels)), labels), min_units)


@pytest.mark.parametrize("average", AVERAGES)
def test_averages_equal_sklearn(average):
    expected, predicted = answers(0, 60, 5, 0.5)
    expected[expected == 4] = 3  # the last class is predicted but never expected

    estimate = f1_value(expected, predicted, np.ones(6, bool), average)

    assert estimate == pytest.approx(f1_score(expected, predicted, average=average, labels=range(6), zero_division=0))


def test_macro_f1_counts_errors_into_other_classes():
    expected, predicted = answers(1, 200, 6, 0.6)
    chosen = np.array([True, False, True, True, False, True])

    estimate = f1_value(expected, predicted, chosen)

    assert estimate == pytest.approx(f1_score(expected, predicted, average="macro", labels=np.flatnonzero(chosen)))


def test_counts_equal_sklearns_precision_and_recall():
    expected, predicted = answers(2, 300, 4, 0.6)
    counts = class_counts(expected, predicted, 4)
    precision, recall, f1s, support = precision_recall_fscore_support(expected, predicted, labels=range(4))

    assert counts.hits / counts.predicted == pytest.approx(precision)
    assert counts.hits / counts.expected == pytest.approx(recall)
    assert counts.f1 == pytest.approx(f1s)
    assert counts.expected == pytest.approx(support)


@pytest.mark.parametrize("average", AVERAGES)
def test_left_out_counts_equal_left_out_rows(average):
    expected, predicted = answers(3, 90, 4, 0.6)
    predicted[::13] = -1
    groups = np.random.default_rng(3).integers(0, 20, 90)
    chosen = np.array([True, True, False, True]) if average == "macro" else np.ones(4, bool)

    fast = f1_left_out(expected, predicted, chosen, Units.from_groups(groups), average)
    slow = [f1_value(expected[groups != g], predicted[groups != g], chosen, average) for g in np.unique(groups)]

    assert fast == pytest.approx(np.array(slow))


def test_grouped_difference_equals_the_brute_force_jackknife():
    expected, first = answers(4, 400, 5, 0.7)
    _, second = answers(4, 400, 5, 0.6)
    groups, chosen = np.random.default_rng(4).integers(0, 80, 400), np.ones(5, bool)

    def both(kept):
        return f1_value(expected[kept], first[kept], chosen) - f1_value(expected[kept], second[kept], chosen)

    value = both(np.ones(400, bool))
    left_out = np.array([both(groups != g) for g in np.unique(groups)])
    count = len(left_out)
    half = stats.t.ppf(0.95, count - 1) * math.sqrt((count - 1) / count * np.sum((left_out - value) ** 2))

    estimate = f1_difference(expected, first, second, chosen, Units.from_groups(groups), 0.9)

    assert (estimate.value, estimate.low, estimate.high, estimate.n) == pytest.approx((value, value - half, value + half, count))


def test_influences_sum_to_zero_and_predict_left_out_rows():
    expected, predicted = answers(5, 3000, 4, 0.7)
    chosen = np.ones(4, bool)
    influence = f1_influence(expected, predicted, chosen)
    left_out = f1_left_out(expected, predicted, chosen, Units.from_groups(np.arange(3000)))

    assert influence.sum() == pytest.approx(0, abs=1e-12)
    assert f1_value(expected, predicted, chosen) - left_out == pytest.approx(influence, abs=2e-6)


def test_pseudo_rows_widen_the_interval():
    expected, first = answers(6, 500, 3, 0.8)
    second = first.copy()
    second[:8] = (second[:8] + 1) % 3
    chosen = np.ones(3, bool)
    squares = (f1_influence(expected, first, chosen) - f1_influence(expected, second, chosen)) ** 2
    error = math.sqrt(squares[:8].sum() * 10 / 8 + squares[8:].sum())

    estimate = f1_difference(expected, first, second, chosen, Units.from_groups(np.arange(500)))

    assert estimate.high - estimate.value == pytest.approx(1.959964 * error, rel=1e-6)


@pytest.mark.parametrize("groups", [np.arange(300), np.arange(300) // 3])
def test_swapped_models_mirror_the_interval(groups):
    expected, first = answers(7, 300, 4, 0.8)
    _, second = answers(8, 300, 4, 0.7)
    chosen = np.array([True, True, False, True])
    forward = f1_difference(expected, first, second, chosen, Units.from_groups(groups))
    backward = f1_difference(expected, second, first, chosen, Units.from_groups(groups))

    assert (forward.value, forward.low, forward.high) == (-backward.value, -backward.high, -backward.low)


def test_difference_without_discordant_rows_is_like_tangos():
    expected = np.arange(400) % 4
    estimate = f1_difference(expected, expected, expected, np.ones(4, bool), Units.from_groups(np.arange(400)))

    assert estimate.value == 0
    assert estimate.high == -estimate.low == pytest.approx(1.959964**2 / 400, rel=1e-6)


@pytest.mark.parametrize("shift", [0, 1])
def test_all_right_or_all_wrong_has_an_interval(shift):
    expected = np.arange(90) % 3
    estimate = f1(expected, (expected + shift) % 3, np.ones(3, bool), Units.from_groups(np.arange(90)))

    assert estimate.value == 1 - shift
    assert 0.02 < estimate.high - estimate.low < 0.2


def test_micro_f1_over_all_classes_is_the_accuracy():
    expected, predicted = answers(9, 120, 3, 0.7)
    estimate = f1(expected, predicted, np.ones(3, bool), Units.from_groups(np.arange(120)), "micro")

    assert estimate.value == pytest.approx(np.mean(expected == predicted))
    assert estimate.low < estimate.value < estimate.high


def test_rare_class_is_excluded_from_macro_f1():
    expected = ["a"] * 150 + ["b"] * 150 + ["c"] * 9
    test_set = truth(expected, ("a", "b", "c"), min_units=10)
    predicted = np.array(["a"] * 150 + ["b"] * 150 + ["a"] * 9)

    estimate = score("macro_f1", test_set, predicted)

    assert test_set.estimator("macro_f1").left_out == ("c",)
    assert estimate.value == pytest.approx((300 / 309 + 1) / 2)
    assert estimate.doubt is None


def test_minimum_counts_groups():
    test_set = truth(["a"] * 300 + ["b"] * 30, ("a", "b"), groups=[*range(300), *(300 + i // 6 for i in range(30))], min_units=10)

    assert test_set.estimator("macro_f1").left_out == ("b",)


def test_no_eligible_class_gives_the_full_interval():
    estimate = score("macro_f1", truth(["a", "b"] * 4, ("a", "b"), min_units=10), np.array(["a", "a"] * 4))

    assert (estimate.low, estimate.high) == (0, 1)
    assert "min_class_units" in str(estimate.doubt)


def test_two_classes_need_100_rows_of_the_rarer_one():
    labels = ("no", "yes")
    few, enough = (truth(["no"] * 900 + ["yes"] * n, labels, min_units=10) for n in (99, 100))

    assert "99 test rows" in str(score("macro_f1", few, np.array(["no"] * 999)).doubt)
    assert score("macro_f1", enough, np.array(["no"] * 1000)).doubt is None
    assert score("accuracy", few, np.array(["no"] * 999)).doubt is None


@pytest.mark.parametrize(
    ("counts", "doubted"),
    [
        ({"no": 950, "yes": 45}, "45 test rows"),
        ({"no": 950, "yes": 45, "rare": 5}, "45 test rows"),  # without the third class, two remain
        ({"no": 950, "yes": 100, "rare": 5}, None),
        ({"no": 950, "yes": 45, "rare": 45}, None),
        ({"no": 950, "yes": 5}, "5 test rows"),  # one class cannot represent both
    ],
)
def test_rule_for_two_classes_counts_eligible_classes(counts, doubted):
    expected = [label for label, count in counts.items() for _ in range(count)]
    doubt = truth(expected, tuple(counts), min_units=10).doubt("macro_f1")

    assert doubt is None if doubted is None else doubted in str(doubt)


def test_unknown_label_is_wrong():
    test_set = truth(["a", "b"] * 20, ("a", "b"))
    predicted = np.array(["a", "z"] * 20)

    assert score("accuracy", test_set, predicted).value == 0.5
    assert score("macro_f1", test_set, predicted).value == 0.5
    assert score("micro_f1", test_set, predicted).value == pytest.approx(2 * 20 / 60)


@st.composite
def drawn_sets(draw):
    n, classes = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    labels = tuple("abcd"[:classes])
    texts = st.lists(st.sampled_from([*labels, "z"]), min_size=n, max_size=n)
    groups = draw(st.lists(st.integers(0, 8), min_size=n, max_size=n) | st.just(list(range(n))))
    test_set = truth(draw(texts), labels, groups, draw(st.integers(1, 5)))
    return test_set, np.array(draw(texts)), np.array(draw(texts))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(drawn_sets(), st.sampled_from([0.9, 0.95]))
def test_estimates_are_within_their_intervals(drawn, confidence):
    test_set, first, second = drawn
    for metric in CLASSIFICATION:
        estimate = score(metric, test_set, first, confidence)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1, metric
    for metric in test_set.metrics:
        forward, backward = difference(metric, test_set, first, second, confidence), difference(metric, test_set, second, first, confidence)
        assert -1 <= forward.low <= forward.value <= forward.high <= 1, metric
        assert (forward.low, forward.high) == (-backward.high, -backward.low), metric
        assert forward.low < forward.high, metric
