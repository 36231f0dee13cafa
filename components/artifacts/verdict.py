"""`reports/verdict.json`: what the gates decided, and on which evidence."""

import json
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from components.artifacts.base import Artifact
from components.artifacts.table import ReportTable
from components.core.hashing import digest_value


class Outcome(StrEnum):
    """PASS promotes, FAIL keeps the champion, INCONCLUSIVE asks a human."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


NOT_ASKED = "NOT ASKED"
"""Stands in the place of the outcome of a gate that had nothing to judge."""


class Role(StrEnum):
    """What a gate's outcome does: promotion needs every required gate; a blocking gate can only reject; the rest is information."""

    REQUIRED = "required"
    BLOCKING = "blocking"
    INFORMATIONAL = "informational"
    OFF = "off"

    @classmethod
    def _missing_(cls, value: object) -> "Role | None":
        """Return the role for a name of before 0.1.0, which stored verdicts contain."""
        return {"decides": cls.REQUIRED, "vetoes": cls.BLOCKING, "shows": cls.INFORMATIONAL}.get(str(value))


class Hypothesis(BaseModel):
    """One way in which a candidate may be unfit, put as a test: `p` is one-sided, and small when the data speak against it.

    The panel corrects all of them together (Holm): `adjusted` is that p, and `rejected` says that the candidate is unfit in this way.
    `says` is the sentence that is then the reason. `estimate`, `low` and `high` are in the metric's own unit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    says: str
    p: float
    adjusted: float | None = None
    rejected: bool = False
    metric: str | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


class GateResult(BaseModel):
    """One gate's outcome: an estimate with its interval against a threshold, and a reason that names the setting to change.

    `estimate`, `low`, `high` and `threshold` are in the metric's own unit; None where the gate had nothing to measure. `change` says
    what would change the outcome. `hypotheses` are what the gate may fail by, `notes` and `tables` the evidence behind it.
    Without `asked` the gate had nothing to judge: it stands in nobody's way, and its PASS is no evidence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gate: str
    outcome: Outcome
    reason: str
    role: Role = Role.REQUIRED
    metric: str | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    n: int | None = None
    method: str | None = None
    change: str | None = None
    may_pass: bool = False
    asked: bool = True
    hypotheses: tuple[Hypothesis, ...] = ()
    notes: tuple[str, ...] = ()
    tables: tuple[ReportTable, ...] = ()

    @model_serializer(mode="wrap")
    def _without_what_is_not_so(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `may_pass` where it is false and `asked` where it is true: verdicts of an earlier layout keep their digest."""
        written: dict[str, Any] = write(self)
        usual = {"may_pass": False, "asked": True}
        return {name: value for name, value in written.items() if name not in usual or value is not usual[name]}

    @classmethod
    def not_asked(cls, gate: str, why: str, **rest: Any) -> "GateResult":
        """Return the result of a gate that has nothing to judge, and `why`."""
        return cls(gate=gate, outcome=Outcome.PASS, asked=False, reason=f"not asked: {why}", **rest)

    @property
    def shown(self) -> str:
        """What a reader is shown: the outcome, or that the gate was not asked."""
        return self.outcome.value if self.asked else NOT_ASKED


class Verdict(Artifact):
    """All gates folded into one outcome, bound to the candidate, the champion, the test set and the gates' settings.

    `key` is the hash of those: a verdict with the same key need not be reached again. `champion` and `anchor` are version numbers.
    `level` is the one-sided error of each deciding gate, `look` which candidate on this test set this is. `off` names the gates that were
    switched off, `tested` what the self-test of the gates went through before the decision. `left_out` are the ids of the test rows that a
    compared model has learnt: they left every comparison.
    """

    FILE: ClassVar[str] = "verdict.json"

    key: str
    candidate: str
    champion: str | None
    test_digest: str
    outcome: Outcome
    reason: str
    gates: tuple[GateResult, ...]
    anchor: str | None = None
    level: float = 0.05
    look: int | None = None
    off: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _without_what_is_not_so(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `left_out` out where it is empty: verdicts of an earlier layout keep their digest."""
        written: dict[str, Any] = write(self)
        return written if self.left_out else {name: value for name, value in written.items() if name != "left_out"}

    @property
    def may_pass(self) -> bool:
        """Whether it is undecided, and a gate that decides says that its reason may be gone by the next attempt."""
        return self.outcome is Outcome.INCONCLUSIVE and any(gate.may_pass and gate.role is Role.REQUIRED for gate in self.gates)

    @property
    def evidence(self) -> str:
        """A digest of everything the verdict says: an approval is bound to it."""
        return digest_value(json.loads(self.model_dump_json()))  # as it is stored and read back: a NaN is none in JSON
