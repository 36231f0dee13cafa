"""Interval, equals and optimism against known truth."""

import numpy as np
import pytest

from components.training.tune.auto import selection


def columns(right):
    """Return a score over columns of a (candidates, rows) table of 0 and 1, and one group a row."""
    return (lambda candidate, rows: float(right[candidate][rows].mean())), [str(row) for row in range(right.shape[1])]


def test_standard_error_is_that_of_a_share():
    right = np.repeat([1.0, 0.0], [60, 140])[None, :]
    score, rows = columns(right)

    error = selection.resample(score, 1, rows, seed=3).errors()[0]

    assert error == pytest.approx((0.3 * 0.7 / 200) ** 0.5, rel=0.15)


def test_difference_of_paired_candidates_is_sure():
    right = np.stack([np.repeat([1.0, 0.0], [60, 140]), np.repeat([1.0, 0.0], [58, 142])])
    score, rows = columns(right)

    resampled = selection.resample(score, 2, rows, seed=3)

    assert resampled.error_of_difference(0, 1) == pytest.approx((0.01 * 0.99 / 200) ** 0.5, rel=0.2)
    assert resampled.error_of_difference(0, 1) < 0.4 * resampled.errors()[0]


def test_groups_widen_the_error():
    right = np.tile(np.repeat([1.0, 0.0], [10, 10]), (1, 10)).reshape(1, -1)
    score, rows = columns(right)
    groups = [str(int(row) // 10) for row in rows]

    alone, together = (selection.resample(score, 1, names, seed=3).errors()[0] for names in (rows, groups))

    assert together == pytest.approx(alone * 10**0.5, rel=0.2)


def test_optimism_of_equal_candidates_is_that_of_a_maximum():
    generator = np.random.default_rng(1)
    found, true = [], []
    for _ in range(40):
        right = (generator.random((6, 100)) < 0.7).astype(float)
        score, rows = columns(right)
        bias = selection.optimism(selection.resample(score, 6, rows, seed=1))
        assert bias is not None
        assert bias[1] < bias[0] < bias[2]
        found.append(bias[0])
        true.append(right.mean(axis=1).max() - 0.7)

    assert np.mean(found) == pytest.approx(np.mean(true), rel=0.3)


def test_optimism_of_a_clear_winner_is_small():
    right = (np.random.default_rng(1).random((4, 200)) < np.array([[0.9], [0.4], [0.4], [0.4]])).astype(float)
    score, rows = columns(right)

    bias = selection.optimism(selection.resample(score, 4, rows, seed=1))

    assert bias is not None
    assert abs(bias[0]) < 0.01


def test_nested_optimism_of_equal_candidates():
    generator = np.random.default_rng(2)
    tables = [0.7 + 0.05 * generator.standard_normal((4, 5)) for _ in range(400)]

    found = [selection.nested_optimism(table)[0] for table in tables]

    assert np.mean(found) == pytest.approx(np.mean([table.mean(axis=1).max() - 0.7 for table in tables]), rel=0.25)


def test_one_holdout_has_no_nested_optimism():
    assert selection.nested_optimism(np.array([[0.7], [0.6]])) is None


@pytest.mark.parametrize(
    ("scores", "costs", "error", "chosen"),
    [
        ([0.80, 0.79], [60.0, 5.0], 0.02, 1),  # equal: the cheaper
        ([0.80, 0.70], [60.0, 5.0], 0.02, 0),  # better: the better
        ([0.80, 0.79, 0.785], [60.0, 5.0, 5.0], 0.02, 1),  # equally cheap: the better
        ([0.79, 0.80], [55.0, 60.0], 0.02, 1),  # hardly cheaper: the better
        ([0.80, 0.795, 0.79], [60.0, 2.0, 1.99], 0.02, 1),  # of two that are equally cheap, the better
    ],
)
def test_cheapest_of_equals(scores, costs, error, chosen):
    assert selection.cheapest_of_equals(scores, costs, lambda first, second: error) == chosen


def test_optimism_follows_the_rule_of_the_choice():
    right = (np.random.default_rng(1).random((4, 100)) < 0.7).astype(float)
    score, rows = columns(right)
    resampled = selection.resample(score, 4, rows, seed=1)

    first = selection.optimism(resampled, lambda scores: 0)
    assert first is not None
    assert abs(first[0]) < 0.02 < selection.optimism(resampled)[0]
