"""Estimates with confidence intervals: pure functions on arrays, no I/O.

`Truth` describes the test set; evaluation and gates use the `MetricSet` of a task. Simulations with a known truth determined where
each method keeps its level; `tests/unit/stats/test_statistics_coverage.py` repeats the relevant ones.
"""
