"""The public API for gate authors: evidence, settings, and helpers that build a gate's result.

Gates that compare models, slice the test set, or look for copies of training rows in it also use the modules of this package. A gate that
needs evidence may control how it is gathered: see `evidence_settings`.
"""

from components.gates.support.evidence import (
    LEVEL,
    ROLE,
    Evidence,
    GateSection,
    MetricName,
    Need,
    ReferenceModel,
    hypothesis,
    inconclusive,
    interval,
    result,
)
from components.gates.support.remedies import beyond

__all__ = [
    "LEVEL",
    "ROLE",
    "Evidence",
    "GateSection",
    "MetricName",
    "Need",
    "ReferenceModel",
    "beyond",
    "hypothesis",
    "inconclusive",
    "interval",
    "result",
]
