"""`reports/verdict.json`: the decision of the gates and its evidence."""

import json
import operator
from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from components.artifacts.base import Artifact, Record
from components.artifacts.table import ReportTable
from components.core.hashing import digest_value


class Outcome(StrEnum):
    """PASS promotes, FAIL keeps the champion, INCONCLUSIVE requests an approval; a gate with nothing to judge is NOT APPLICABLE."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_APPLICABLE = "NOT APPLICABLE"


_FORMER_PREFIX = "not asked: "


class Role(StrEnum):
    """The effect of a gate's outcome: promotion needs every required gate; a blocking gate can only reject."""

    REQUIRED = "required"
    BLOCKING = "blocking"
    INFORMATIONAL = "informational"
    OFF = "off"

    @property
    def former_name(self) -> str:
        """The name before 0.1.0: stored verdicts contain it, and hashes of verdicts and settings are computed with it."""
        return {"required": "decides", "blocking": "vetoes", "informational": "shows"}.get(self.value, self.value)

    @classmethod
    def _missing_(cls, value: object) -> "Role | None":
        return next((role for role in cls if role.former_name == value), None)


class Hypothesis(Record):
    """A test that can reject a candidate; `p` is one-sided, and small if the data are evidence against the candidate.

    All hypotheses are corrected together (Holm): `adjusted` is the corrected p, and `rejected` means that the candidate fails this test,
    with `says` as the reason. `estimate`, `low` and `high` are in the unit of the metric.
    """

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


class Remedy(Record):
    """Settings of a gate, by their path in its section, with which it states to have `outcome`; the judge checks it."""

    outcome: Outcome
    settings: dict[str, float | str]


class GateResult(Record):
    """The result of a gate: an estimate with its interval, a threshold, and a reason that names the setting to change.

    `estimate`, `low`, `high` and `threshold` are in the unit of the metric; None if nothing was measured. `change` describes what would
    change the outcome; the judge adds those of the `remedies` that have the outcome they state. `hypotheses` are the tests that can
    reject; `notes` and `tables` are evidence.
    """

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
    # Defaults of newer fields are not written, so that stored verdicts keep their digest (also in `Verdict`).
    may_pass: bool = Field(default=False, exclude_if=operator.not_)
    remedies: tuple[Remedy, ...] = Field(default=(), exclude_if=operator.not_)
    hypotheses: tuple[Hypothesis, ...] = ()
    notes: tuple[str, ...] = ()
    tables: tuple[ReportTable, ...] = ()

    @classmethod
    def not_applicable(cls, gate: str, reason: str, **rest: Any) -> "GateResult":
        """Return the result of a gate that has nothing to judge: it blocks nothing, and is no evidence."""
        return cls(gate=gate, outcome=Outcome.NOT_APPLICABLE, reason=reason, **rest)

    @property
    def applicable(self) -> bool:
        """Whether the gate had something to judge."""
        return self.outcome is not Outcome.NOT_APPLICABLE

    @model_validator(mode="before")
    @classmethod
    def _read_former(cls, fields: Any) -> Any:
        """Read a stored result of 0.1.0, in which a gate with nothing to judge is a PASS that was not asked."""
        if not isinstance(fields, dict) or "asked" not in fields:
            return fields
        read = {name: value for name, value in fields.items() if name != "asked"}
        if not fields["asked"]:
            read |= {"outcome": Outcome.NOT_APPLICABLE.value, "reason": str(read["reason"]).removeprefix(_FORMER_PREFIX)}
        return read


class Verdict(Artifact):
    """The combined outcome of all gates for a candidate, champion, test set and gate settings.

    `key` is the hash of these; a verdict with the same key is reused. `champion` and `anchor` (the best champion) are version numbers.
    `level` is the one-sided error of each required gate, `look` counts the candidates judged on this test set. `off` lists disabled
    gates, `tested` the checks of the self-test. `left_out` are the ids of test rows that a compared model was trained on; they are
    excluded from all comparisons.
    """

    FILE = "verdict.json"

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
    left_out: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)

    @property
    def may_pass(self) -> bool:
        """Whether the verdict is inconclusive for a reason that may not apply at the next attempt."""
        return self.outcome is Outcome.INCONCLUSIVE and any(gate.may_pass and gate.role is Role.REQUIRED for gate in self.gates)

    @property
    def evidence(self) -> str:
        """A digest of the whole verdict, which an approval refers to."""
        content = json.loads(self.model_dump_json())  # as stored: NaN becomes null
        for gate, result in zip(content["gates"], self.gates, strict=True):
            gate["role"] = result.role.former_name
            if not result.applicable:
                gate |= {"outcome": Outcome.PASS.value, "asked": False, "reason": f"{_FORMER_PREFIX}{result.reason}"}
        return digest_value(content)
