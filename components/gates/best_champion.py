"""Not worse than the best champion so far: without this gate, the margins of successive retrainings add up."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from components.artifacts.verdict import GateResult, Role
from components.gates.support import ROLE, Evidence, GateSection, MetricName, Need, inconclusive
from components.gates.support.noninferiority import common_rows, compare, margin_faults

NEEDS: frozenset[Need] = frozenset({"best_champion"})


class Params(GateSection):
    """Margin by which the candidate may be worse than the best champion so far."""

    role: Role = Field(Role.REQUIRED, description=ROLE)
    metric: MetricName = Field("accuracy", description="a metric of the task, on the test split")
    margin: float = Field(
        0.02, gt=0, description="non-inferiority: lower limit for the difference's interval is minus this; in the metric's unit"
    )

    def faults(self, metrics: Mapping[str, tuple[float, float]], baselines: Sequence[str]) -> Iterator[str]:
        """Check the metric and the margin."""
        yield from super().faults(metrics, baselines)
        yield from margin_faults(self.metric, self.margin, metrics)


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if the difference's interval is above minus the margin, else INCONCLUSIVE; a difference below 0 rejects."""
    best = evidence.best_champion
    if best is None:
        reason = "the current champion is the best so far" if evidence.champion else "there is no champion yet"
        return GateResult.not_applicable("best_champion", reason)
    name = f"{best.display_name}, the best champion so far"
    rows = common_rows(evidence, best.predictions, best) if best.predictions is not None else None
    if rows is None:
        fault = f"cannot be scored: {best.fault}" if best.predictions is None else "knows none of the test set's labels"
        return inconclusive("best_champion", f"{name}, {fault}", change="gates.best_champion.role: informational")
    return compare("best_champion", *rows, name, params.metric, params.margin, -params.margin)
