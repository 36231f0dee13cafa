"""Estimates with confidence intervals: pure functions on arrays, no I/O.

Evaluation and gates use the `MetricSet` of a task on a test set; `TrueClasses` describes the test set of a classification task.
Simulations with a known truth determined where each method keeps its level; `tests/unit/stats/test_statistics_coverage.py` repeats the
relevant ones.
"""
