"""Estimates with intervals that keep their promise: pure arithmetic on arrays, no files.

`Truth` is the test set as the statistics see it; `score` and `difference` are what evaluation and gates ask.
Which method holds its level where was measured in simulations with a known truth;
`tests/unit/test_statistics_coverage.py` repeats those that are relied on.
"""

from components.statistics.calibration import brier, calibration_error, reliability
from components.statistics.f1 import class_counts, f1_per_class
from components.statistics.means import mean, mean_difference
from components.statistics.proportions import proportion, proportion_difference, tango
from components.statistics.scores import COMPARABLE, METRICS, Truth, difference, score
from components.statistics.units import MIN_GROUPS, Units

__all__ = [
    "COMPARABLE",
    "METRICS",
    "MIN_GROUPS",
    "Truth",
    "Units",
    "brier",
    "calibration_error",
    "class_counts",
    "difference",
    "f1_per_class",
    "mean",
    "mean_difference",
    "proportion",
    "proportion_difference",
    "reliability",
    "score",
    "tango",
]
