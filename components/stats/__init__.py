"""Estimates with confidence intervals: pure functions on arrays, no I/O.

`Truth` describes the test set; evaluation and gates call `score` and `difference`. Simulations with a known truth determined where
each method keeps its level; `tests/unit/stats/test_statistics_coverage.py` repeats the relevant ones.
"""

from components.stats.bootstrap import percentile_bootstrap
from components.stats.calibration import brier, brier_terms, calibration_error, reliability
from components.stats.f1 import class_counts, f1_per_class
from components.stats.means import mean, mean_difference
from components.stats.metric_sets import AdditiveMetrics, ClassificationMetrics, MetricSet
from components.stats.proportions import proportion, proportion_difference, tango
from components.stats.scores import COMPARABLE, METRICS, Truth, below, difference, difference_below, score
from components.stats.significance import (
    POWER,
    difference_of_shares,
    equal_passes_from,
    estimate_below,
    fewer_right,
    holm,
    mcnemar,
    mcnemar_two_sided,
    mean_below,
    minimum_detectable,
    standard_error,
    units_needed,
)
from components.stats.units import MIN_GROUPS, Units

__all__ = [
    "COMPARABLE",
    "METRICS",
    "MIN_GROUPS",
    "POWER",
    "AdditiveMetrics",
    "ClassificationMetrics",
    "MetricSet",
    "Truth",
    "Units",
    "below",
    "brier",
    "brier_terms",
    "calibration_error",
    "class_counts",
    "difference",
    "difference_below",
    "difference_of_shares",
    "equal_passes_from",
    "estimate_below",
    "f1_per_class",
    "fewer_right",
    "holm",
    "mcnemar",
    "mcnemar_two_sided",
    "mean",
    "mean_below",
    "mean_difference",
    "minimum_detectable",
    "percentile_bootstrap",
    "proportion",
    "proportion_difference",
    "reliability",
    "score",
    "standard_error",
    "tango",
    "units_needed",
]
