"""The public API for gate authors: evidence and results, non-inferiority, slices of the test set, learned test rows, leak probe.

A gate needs `Evidence`, `GateSection`, `hypothesis`, `interval` and `result`; the other names are for gates that compare models, slice
the test set, or look for copies of training rows in it.
"""

from components.gates.support.evidence import (
    LEVEL,
    Evidence,
    Gate,
    GateSection,
    Need,
    ReferenceModel,
    TrainingRows,
    hypothesis,
    interval,
    result,
)
from components.gates.support.leak_probe import Probe, probe
from components.gates.support.learned_rows import measure_exposure, without_learned_rows
from components.gates.support.noninferiority import common_rows, compare, new_labels, unknown_labels
from components.gates.support.overlap import Overlap, Pair, TestExposure, overlaps, repeated
from components.gates.support.slicing import Slice, by_column, by_length, by_rare_words, by_values, is_large, required_size, test_rows

__all__ = [
    "LEVEL",
    "Evidence",
    "Gate",
    "GateSection",
    "Need",
    "Overlap",
    "Pair",
    "Probe",
    "ReferenceModel",
    "Slice",
    "TestExposure",
    "TrainingRows",
    "by_column",
    "by_length",
    "by_rare_words",
    "by_values",
    "common_rows",
    "compare",
    "hypothesis",
    "interval",
    "is_large",
    "measure_exposure",
    "new_labels",
    "overlaps",
    "probe",
    "repeated",
    "required_size",
    "result",
    "test_rows",
    "unknown_labels",
    "without_learned_rows",
]
