"""The evidence behind a verdict, as it was written when it was reached: nothing is computed anew."""

from dataclasses import dataclass
from typing import Any

from components.artifacts.verdict import GateResult, Hypothesis, Verdict
from components.core.errors import NotFound
from components.core.section import nearest
from components.mlflow_store import registry
from flows.audit.registered_model import RegisteredModel


@dataclass(frozen=True)
class VerdictEvidence:
    """A version's verdict, and the digest of all that it says, to which approvals and the ledger's entries are bound."""

    version: int
    verdict: Verdict
    digest: str

    def as_json(self) -> dict[str, Any]:
        """Return the evidence for a program."""
        return {"version": self.version, "evidence": self.digest, **self.verdict.model_dump(mode="json")}


def why(model: RegisteredModel, number: int, gate: str | None = None, evidence: str | None = None) -> VerdictEvidence:
    """Return the evidence behind the newest verdict on a version, or behind the one whose digest begins with `evidence`; of `gate` alone.

    Raises:
        NotThere: no such version, nobody judged it, its evidence is gone or was changed, or it has no such gate.
    """
    version = model.version(number)
    verdict = registry.read_verdict(model.uri, version, whole_digest(model, number, evidence) if evidence else None)
    if verdict is None:
        asked = f"verdict {evidence}" if evidence else "verdict"
        raise NotFound(f"{version.uri} has no {asked} that can be read: nobody judged it, or its evidence was deleted or changed since")
    digest = verdict.evidence
    if gate is not None:
        names = [result.gate for result in verdict.gates]
        if gate not in names:
            raise NotFound(f"the verdict on {version.uri} has no gate {gate!r}{nearest(gate, names)}")
        verdict = verdict.model_copy(update={"gates": tuple(result for result in verdict.gates if result.gate == gate)})
    return VerdictEvidence(number, verdict, digest)


def whole_digest(model: RegisteredModel, number: int, beginning: str) -> str:
    """Return the one digest that begins so, among those of a version's newest verdict, its promotions and its requests.

    Raises:
        NotThere: none begins so, or several do.
    """
    promotions = [entry.evidence for entry in model.entries if entry.version == number]
    asked = [request.evidence for request in model.requests if request.version == number]
    known = {digest for digest in (*promotions, *asked, model.version(number).evidence) if digest}
    found = sorted(digest for digest in known if digest.startswith(beginning.lower()))
    if len(found) != 1:
        there = ", ".join(sorted(digest[:12] for digest in known)) or "none"
        raise NotFound(f"{len(found)} known verdicts on version {number} of {model.name} begin with {beginning!r}; there are: {there}")
    return found[0]


def numbers(result: GateResult | Hypothesis) -> str:
    """Return what was measured as a person reads it: `accuracy -0.012 (-0.034 to 0.010), threshold -0.02, n 512`; empty for nothing."""
    parts = []
    if result.estimate is not None:
        interval = f" ({result.low:.4g} to {result.high:.4g})" if result.low is not None and result.high is not None else ""
        parts.append(f"{result.metric or 'measured'} {result.estimate:.4g}{interval}")
    if isinstance(result, GateResult) and result.threshold is not None:
        parts.append(f"threshold {result.threshold:g}")
    if result.n is not None:
        parts.append(f"n {result.n:,}")
    if isinstance(result, GateResult) and result.method:
        parts.append(result.method)
    return ", ".join(parts)


def as_tested(hypothesis: Hypothesis) -> str:
    """Return a hypothesis with its p: what it found where it rejects, else what it asked."""
    adjusted = f", {hypothesis.adjusted:.2g} after correction" if hypothesis.adjusted is not None else ""
    return f"{hypothesis.says if hypothesis.rejected else hypothesis.name} (one-sided p {hypothesis.p:.2g}{adjusted})"
