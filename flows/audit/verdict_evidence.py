"""Read the stored evidence of a verdict; nothing is recomputed."""

from components.artifacts.verdict import GateResult, Hypothesis, Verdict
from components.core.errors import NotFound
from components.core.section import nearest
from components.mlflow_store import registry
from flows.audit.registered_model import RegisteredModel


def why(model: RegisteredModel, number: int, gate: str | None = None, evidence: str | None = None) -> tuple[Verdict, str]:
    """Return the newest verdict on a version, or the one whose digest starts with `evidence`, with `gate` only, and its digest.

    Approvals and ledger entries refer to the digest, which is that of the verdict with all gates.

    Raises:
        NotFound: the version or gate does not exist, there is no verdict, or its evidence is missing or was changed.
    """
    version = model.version(number)
    verdict = registry.read_verdict(model.uri, version, whole_digest(model, number, evidence) if evidence else None)
    if verdict is None:
        wanted = f"verdict {evidence}" if evidence else "verdict"
        raise NotFound(f"{version.uri} has no readable {wanted}: it was not judged, or its evidence was deleted or changed")
    digest = verdict.evidence
    if gate is not None:
        names = [result.gate for result in verdict.gates]
        if gate not in names:
            raise NotFound(f"the verdict on {version.uri} has no gate {gate!r}{nearest(gate, names)}")
        verdict = verdict.model_copy(update={"gates": tuple(result for result in verdict.gates if result.gate == gate)})
    return verdict, digest


def whole_digest(model: RegisteredModel, number: int, prefix: str) -> str:
    """Return the one digest with this prefix among a version's newest verdict, promotions and requests; NotFound unless one matches."""
    promotions = [entry.evidence for entry in model.entries if entry.version == number]
    requests = [request.evidence for request in model.requests if request.version == number]
    digests = {digest for digest in (*promotions, *requests, model.version(number).evidence) if digest}
    matches = sorted(digest for digest in digests if digest.startswith(prefix.lower()))
    if len(matches) != 1:
        known = ", ".join(sorted(digest[:12] for digest in digests)) or "none"
        raise NotFound(f"{len(matches)} verdicts on version {number} of {model.name} start with {prefix!r}; its verdicts: {known}")
    return matches[0]


def numbers(result: GateResult | Hypothesis) -> str:
    """Format a result's numbers: `accuracy -0.012 (-0.034 to 0.010), threshold -0.02, n 512`; empty if there are none."""
    gate = result if isinstance(result, GateResult) else None
    interval = f" ({result.low:.4g} to {result.high:.4g})" if result.low is not None and result.high is not None else ""
    parts = (
        f"{result.metric or 'measured'} {result.estimate:.4g}{interval}" if result.estimate is not None else "",
        f"threshold {gate.threshold:g}" if gate and gate.threshold is not None else "",
        f"n {result.n:,}" if result.n is not None else "",
        gate.method if gate else "",
    )
    return ", ".join(filter(None, parts))


def as_tested(hypothesis: Hypothesis) -> str:
    """Format a hypothesis with its p-value: the finding if it rejects, else its name."""
    adjusted = f", {hypothesis.adjusted:.2g} after correction" if hypothesis.adjusted is not None else ""
    return f"{hypothesis.says if hypothesis.rejected else hypothesis.name} (one-sided p {hypothesis.p:.2g}{adjusted})"
