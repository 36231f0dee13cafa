"""The public API for gate authors: evidence, settings, and helpers that build a gate's result.

Gates that compare models, slice the test set, or look for copies of training rows in it also use the modules of this package.
"""

from components.gates.support.evidence import (
    LEVEL,
    ROLE,
    Evidence,
    GateSection,
    Need,
    ReferenceModel,
    hypothesis,
    inconclusive,
    interval,
    result,
)

__all__ = ["LEVEL", "ROLE", "Evidence", "GateSection", "Need", "ReferenceModel", "hypothesis", "inconclusive", "interval", "result"]
