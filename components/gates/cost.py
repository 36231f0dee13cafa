"""Cost: latency, size and memory against the champion and against budgets."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from components.artifacts.cost import Blocks, Cost, Weight
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Remedy
from components.gates.support import Evidence, GateSection, Need, hypothesis, inconclusive, interval
from components.gates.support.evidence import measured
from components.gates.support.evidence_settings import CostSettings
from components.gates.support.remedies import beyond
from components.stats.means import mean
from components.stats.significance import mean_below
from components.stats.units import Floats, Units

NEEDS: frozenset[Need] = frozenset({"cost"})
MIB = 1 << 20
_RANGE = (float(np.log(1e-9)), float(np.log(1e9)))  # bounds of the logarithm of a time, ratio or rate


class Params(CostSettings, GateSection):
    """Limits for latency, size and memory, measured on the machine that runs the gates; null: no budget."""

    max_others: float = Field(0.25, gt=0, le=1, description="CPU share of other processes above which times are inconclusive")
    slower_than: float = Field(1.1, ge=1, description="allowed ratio of the median and 95 % quantile to the champion's")
    bigger_than: float | None = Field(1.5, ge=1, description="allowed ratio of package size and memory to the champion's; null: no limit")
    p50_ms: float | None = Field(None, gt=0, description="budget: median milliseconds of a request at the smallest batch size")
    p95_ms: float | None = Field(None, gt=0, description="budget: 95 % quantile in milliseconds at the smallest batch size")
    throughput: float | None = Field(None, gt=0, description="budget: minimum texts per second at the largest batch size")
    size_mib: float | None = Field(None, gt=0, description="budget: size of the version's package")
    memory_mib: float | None = Field(None, gt=0, description="budget: peak memory of the serving process, libraries included")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if every interval is within its limit, else INCONCLUSIVE; a slower candidate rejects, and a size over its limit is FAIL."""
    cost = evidence.cost
    if cost is None:
        return inconclusive("cost", "no request was timed", change="`retune judge --again`")
    if fault := _fault(cost, evidence):
        return inconclusive("cost", fault, change="`retune judge --again`", may_pass=True)
    doubt = _busy(cost, params)
    limits = [*_slower(cost, params, evidence, doubt), *_budgets(cost, params, evidence.confidence, doubt)]
    over = [*_oversize(cost, params), *_bigger(cost, params, evidence)]
    undecided = [limit for limit in limits if not limit.met]
    parts = over or [part for part in (evidence.champion_fault, _summary(limits, undecided, doubt)) if part]
    has_limit = bool(parts) or any(budget is not None for budget in (params.size_mib, params.memory_mib))
    passed = Outcome.PASS if has_limit else Outcome.NOT_APPLICABLE
    outcome = Outcome.FAIL if over else Outcome.INCONCLUSIVE if undecided or evidence.champion_fault else passed
    reason = "; ".join(parts) or "there is no champion yet, and no latency budget"
    details: dict[str, Any] = {"may_pass": doubt is not None and outcome is Outcome.INCONCLUSIVE}
    details["change"] = "`retune judge --again` while no other process uses the processors" if doubt and undecided else None
    details["remedies"] = (_remedy(undecided, evidence, params),) if undecided or over else ()
    shown = None if over else next(iter(undecided or limits), None)
    if shown is not None:
        details |= {**measured(shown.estimate), "metric": shown.name.rstrip(":"), "threshold": shown.limit}
    return GateResult(
        gate="cost",
        outcome=outcome,
        reason=reason,
        method="Student's t on the logarithms of block medians and block 95 % quantiles, pairs of blocks in random order",
        hypotheses=tuple(limit.hypothesis() for limit in limits),
        tables=(_times(cost), _weights(cost)),
        **details | {"n": len(cost.timed[0].candidate)},
    )


class _CostLimit:
    """A logarithm per block (blocks,) whose mean must not exceed `log(limit)`; with `at_least`, must not be below it."""

    def __init__(
        self, name: str, logs: Floats, limit: float, setting: str, unit: str, confidence: float, doubt: str | None, at_least: bool = False
    ) -> None:
        sign = -1.0 if at_least else 1.0
        units = Units.from_groups(np.arange(len(logs)))
        estimate = mean(logs, units, _RANGE, confidence)
        self.name, self.setting, self.limit, self.unit, self.at_least = name, f"{setting} {limit:g}", limit, unit, at_least
        ends = {end: float(np.exp(getattr(estimate, end))) for end in ("value", "low", "high")}
        self.estimate = estimate.model_copy(update={**ends, "doubt": doubt})
        self.excess = sign * (estimate.value - float(np.log(limit)))
        self.met = not doubt and sign * ((estimate.low if at_least else estimate.high) - float(np.log(limit))) <= 0
        self.p = mean_below(-sign * logs, units, -sign * float(np.log(limit)))

    @property
    def description(self) -> str:
        return f"{self.name} {self.estimate.value:.3g}{self.unit} ({interval(self.estimate)})"

    def hypothesis(self) -> Hypothesis:
        return hypothesis(self.name, f"{self.description} is beyond {self.setting}", self.p, self.name, self.estimate)


def _summary(limits: list[_CostLimit], undecided: list[_CostLimit], doubt: str | None) -> str | None:
    """Describe the first undecided limit, else the nearest one; None without limits."""
    if undecided:
        return f"{undecided[0].description}, inconclusive for {undecided[0].setting}{f': {doubt}' * bool(doubt)}"
    if not limits:
        return None
    worst = max(limits, key=lambda limit: limit.excess)
    return f"{worst.description}, within {worst.setting}" + (f", and {len(limits) - 1} more" * (len(limits) > 1))


def _remedy(undecided: list[_CostLimit], evidence: Evidence, params: Params) -> Remedy:
    """Return the limits and budgets within which the candidate is proven to be."""
    settings: dict[str, float | str] = {}
    for limit in undecided:
        name, spread = limit.setting.rpartition(" ")[0].removeprefix("gates.cost."), limit.estimate.high - limit.estimate.low
        nearest = beyond(limit.estimate.low if limit.at_least else limit.estimate.high, not limit.at_least, spread)
        settings[name] = max(nearest, float(settings.get(name, 0.0)))
    assert evidence.cost is not None
    own, champion = evidence.cost.candidate, evidence.cost.champion
    for name, size in (("size_mib", own.package_bytes / MIB), ("memory_mib", own.peak_memory_mib)):
        if (budget := getattr(params, name)) is not None and not size <= budget:
            settings[name] = beyond(size, up=True)
    if champion is not None and list(_bigger(evidence.cost, params, evidence)):
        ratios = (own.package_bytes / max(champion.package_bytes, 1), own.peak_memory_mib / max(champion.peak_memory_mib, 1e-9))
        settings["bigger_than"] = beyond(max(ratios), up=True)
    return Remedy(outcome=Outcome.PASS, settings=settings)


def _slower(cost: Cost, params: Params, evidence: Evidence, doubt: str | None) -> Iterator[_CostLimit]:
    """Yield the limits for the ratios to the champion's medians and 95 % quantiles, at every batch size."""
    champion = f"champion {evidence.champion.display_name}" if evidence.champion is not None else "the champion"
    for timed in cost.timed:
        if timed.champion is not None:
            for name, share in (("median", 50.0), ("95 % quantile", 95.0)):
                logs = log_ratios(timed.candidate, timed.champion, share)
                ratio = f"{name} of requests with {timed.batch_size} texts over that of {champion}:"
                yield _CostLimit(ratio, logs, params.slower_than, "gates.cost.slower_than", "", evidence.confidence, doubt)


def log_ratios(candidate: Blocks, champion: Blocks, share: float) -> Floats:
    """Return the logarithm of the ratio of the blocks' quantiles at `share` (percent), candidate over champion, pair by pair."""
    return np.asarray(_log_quantiles(candidate, share) - _log_quantiles(champion, share), dtype=np.float64)


def _budgets(cost: Cost, params: Params, confidence: float, doubt: str | None) -> Iterator[_CostLimit]:
    smallest, largest = (edge(cost.timed, key=lambda timed: timed.batch_size) for edge in (min, max))
    for budget, share, name in ((params.p50_ms, 50.0, "p50"), (params.p95_ms, 95.0, "p95")):
        if budget is not None:
            logs = _log_quantiles(smallest.candidate, share) + np.log(1000)
            quantity = f"{name} of a request with {smallest.batch_size} texts:"
            yield _CostLimit(quantity, logs, budget, f"gates.cost.{name}_ms", " ms", confidence, doubt)
    if params.throughput is not None:
        logs = np.log(_throughput(largest.candidate, largest.batch_size))
        quantity = f"throughput with {largest.batch_size} texts per request:"
        yield _CostLimit(quantity, logs, params.throughput, "gates.cost.throughput", " texts/s", confidence, doubt, at_least=True)


def _busy(cost: Cost, params: Params) -> str | None:
    """Report that other processes used the CPU: equal versions then differed consistently by a factor of three."""
    if cost.others is None or cost.others <= params.max_others:
        return None
    return f"other processes used {cost.others:.0%} of the processors, above gates.cost.max_others {params.max_others:g}".replace("%", " %")


def _oversize(cost: Cost, params: Params) -> list[str]:
    """Return the sizes over their budgets; they are counted, not estimated."""
    limits = (
        (cost.candidate.package_bytes / MIB, params.size_mib, "the package", "size_mib"),
        (cost.candidate.peak_memory_mib, params.memory_mib, "memory", "memory_mib"),
    )
    return [
        f"{name} of {size:.1f} MiB exceeds gates.cost.{setting} {budget:g}"
        for size, budget, name, setting in limits
        if budget is not None and not size <= budget
    ]


def _bigger(cost: Cost, params: Params, evidence: Evidence) -> Iterator[str]:
    """Yield the sizes that exceed the champion's by more than the allowed ratio."""
    if evidence.champion is None or cost.champion is None or params.bigger_than is None:
        return
    sizes = [(weight.package_bytes / MIB, weight.peak_memory_mib) for weight in (cost.candidate, cost.champion)]
    for name, size, reference in zip(("the package", "memory"), *sizes, strict=True):
        if reference > 0 and not size <= params.bigger_than * reference:
            limit = f"gates.cost.bigger_than {params.bigger_than:g} times the {reference:.1f} MiB"
            yield f"{name} of {size:.1f} MiB exceeds {limit} of champion {evidence.champion.display_name}"


def _log_quantiles(blocks: Blocks, share: float) -> Floats:
    return np.log([np.percentile(block, share) for block in blocks])


def _throughput(blocks: Blocks, batch_size: int) -> Floats:
    return np.array([batch_size * len(block) / sum(block) for block in blocks], dtype=np.float64)


def _fault(cost: Cost, evidence: Evidence) -> str | None:
    """Return why the times cannot be used; None if they can."""
    if not cost.timed:
        return "no request was timed"
    for timed in cost.timed:
        for blocks in (timed.candidate, timed.champion):
            if blocks is not None and not all(block and np.isfinite(block).all() and min(block) > 0 for block in blocks):
                return f"a time of requests with {timed.batch_size} texts is missing or not a positive number of seconds"
        if len(timed.candidate) < 2 or (timed.champion is not None and len(timed.champion) != len(timed.candidate)):
            return f"requests with {timed.batch_size} texts were not timed in pairs of blocks"
    if evidence.champion is not None and evidence.champion.fault is None and any(timed.champion is None for timed in cost.timed):
        return f"champion {evidence.champion.display_name} was not timed"
    return None


def _times(cost: Cost) -> ReportTable:
    rows = []
    for timed in cost.timed:
        for name, blocks in (("candidate", timed.candidate), ("champion", timed.champion)):
            if blocks is not None:
                p50, p95 = (1000 * float(np.exp(_log_quantiles(blocks, share).mean())) for share in (50.0, 95.0))
                rate = float(np.exp(np.log(_throughput(blocks, timed.batch_size)).mean()))
                rows.append((timed.batch_size, name, len(blocks), len(blocks[0]), p50, p95, rate))
    columns = ("texts per request", "version", "blocks", "requests per block", "p50 ms", "p95 ms", "texts per second")
    return ReportTable(title="Times (geometric means over the blocks)", columns=columns, rows=tuple(rows))


def _weights(cost: Cost) -> ReportTable:
    sides: list[tuple[str, Weight | None]] = [("candidate", cost.candidate), ("champion", cost.champion)]
    rows = tuple((name, weight.package_bytes / MIB, weight.peak_memory_mib) for name, weight in sides if weight is not None)
    return ReportTable(title="Sizes", columns=("version", "package, MiB", "peak memory, MiB"), rows=rows)
