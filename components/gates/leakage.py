"""Leakage: test rows that a compared model was trained on, and results that are too good to be true."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import pandas as pd
from pydantic import Field

from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role
from components.core.errors import shorten
from components.gates.support import ROLE, Evidence, GateSection, Need, inconclusive, interval
from components.gates.support.evidence import TrainingRows
from components.gates.support.evidence_settings import OverlapSettings
from components.gates.support.leak_probe import probe
from components.gates.support.learned_rows import CANDIDATE_ROWS, measure_exposure, rows_name
from components.gates.support.noninferiority import common_rows
from components.gates.support.overlap import Overlap, Pair, TestExposure, repeated
from components.gates.support.slicing import test_rows

NEEDS: frozenset[Need] = frozenset({"training_rows"})
_PAIRS = 20  # rows of the table of pairs
_TOO_GOOD_FROM = 100  # rows or groups: a model with 97 % accuracy answers all of them correctly in 5 % of test sets


class Params(OverlapSettings, GateSection):
    """Allowed overlap of test and training rows, and limits for suspicious results."""

    role: Role = Field(Role.REQUIRED, description=f"{ROLE}; rows that a compared model was trained on are excluded in any case")
    max_exact_share: float = Field(0.0, ge=0, lt=1, description="share of the test rows that occur word for word in the training rows")
    max_near_share: float = Field(0.01, ge=0, lt=1, description="share of the test rows with a near copy in the training rows")
    max_learnt_share: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="maximum share of learnt test rows: a compared model was trained on them or on near copies; they are excluded",
    )
    unknown: Literal["ask", "skip"] = Field(
        "ask",
        description="if the training rows of the champion, the best champion so far, or a registered base model are unavailable: "
        "ask for approval | let the other gates decide",
    )
    max_conflict_share: float = Field(
        0.0, ge=0, lt=1, description="share of the test rows that occur in the training rows with another label"
    )
    max_test_duplicate_share: float = Field(0.05, ge=0, lt=1, description="share of the test rows that repeat another test row")
    too_good: float = Field(
        0.999,
        gt=0,
        le=1,
        description="an accuracy, or first metric, above this on 100 or more rows makes the outcome INCONCLUSIVE; 1: never",
    )
    suspicious_gain: float = Field(0.15, gt=0, le=1, description="so does a gain over the champion whose interval is above this; 1: never")


@dataclass(frozen=True)
class _Count:
    """Test rows counted against a limit: what they do, in which rows, and the setting `field` of the limit."""

    what: str
    source: str
    pairs: tuple[Pair, ...]
    rows: int
    limit: float
    field: str

    @property
    def share(self) -> float:
        return len(self.pairs) / self.rows

    @property
    def exceeded(self) -> bool:
        return self.share > self.limit

    @property
    def reason(self) -> str:
        share = f"{len(self.pairs):,} of {self.rows:,} test rows ({self.share:.2%})".replace("%", " %")
        return f"{share} {self.what} {self.source}, above gates.leakage.{self.field} {self.limit:g}"


def decide(evidence: Evidence, params: Params) -> GateResult:
    """FAIL if too many test rows are training rows of the candidate (counted); INCONCLUSIVE if a person must check, else PASS."""
    exposure = evidence.exposure
    if exposure is None:
        if isinstance(table := test_rows(evidence), str):
            return inconclusive("leakage", table)
        exposure = measure_exposure(table, evidence.train, evidence.training_rows, params.near_duplicate)
    rows = exposure.rows
    repeats = repeated(rows, evidence.one_answer)
    counts = [_Count("occur twice in", "the test set", repeats, len(rows), params.max_test_duplicate_share, "max_test_duplicate_share")]
    if CANDIDATE_ROWS in exposure.overlaps:
        counts += _counts(exposure.overlaps[CANDIDATE_ROWS], len(rows), params, evidence.one_answer)
    reference_counts = [
        _reference_count(exposure.overlaps[rows_name(other)], rows_name(other), len(rows), params)
        for other in evidence.training_rows
        if other.rows is not None
    ]
    doubts = ["the candidate's training rows are unavailable"] if evidence.train is None else []
    unknown = _unknown(evidence.training_rows) if params.unknown == "ask" else []
    decided = _decide(
        counts,
        reference_counts,
        [*doubts, *unknown, *_left_out(exposure, params), *_too_good(evidence, params)],
        _probe(evidence, evidence.train, rows, params) if evidence.train is not None else (),
        list(_notes(exposure, evidence.training_rows)),
    )
    if not unknown or decided.outcome is not Outcome.INCONCLUSIVE:
        return decided
    return decided.model_copy(update={"may_pass": True, "change": "`dvc pull` of their training data, or gates.leakage.unknown: skip"})


def _unknown(training_rows: Sequence[TrainingRows]) -> list[str]:
    """Describe the compared versions whose training rows are unavailable."""
    return [
        f"the training rows of {other.display_name} are unavailable ({other.fault}): cannot check whether they contain test rows"
        for other in training_rows
        if other.rows is None and other.compared
    ]


def _left_out(exposure: TestExposure, params: Params) -> Iterator[str]:
    """Report that more rows than allowed are excluded from the comparison."""
    count, rows = len(exposure.left_out), len(exposure.rows)
    if count > params.max_learnt_share * rows:
        share = f"{count:,} of {rows:,} test rows ({count / rows:.2%})".replace("%", " %")
        limit = f"gates.leakage.max_learnt_share {params.max_learnt_share:g}"
        yield f"{share} are training rows of a compared model and excluded from every comparison, above {limit}"


def _notes(exposure: TestExposure, training_rows: Sequence[TrainingRows]) -> Iterator[str]:
    """Report the excluded rows, and the versions whose training rows are unavailable."""
    if exposure.left_out:
        count = f"{len(exposure.left_out):,} of {len(exposure.rows):,} test rows"
        yield f"{count} are excluded from every comparison: they are training rows of a compared model, or near copies"
    for other in training_rows:
        if other.rows is None:
            yield f"the training rows of {other.display_name} are unavailable ({other.fault}): they may contain test rows"


def _counts(overlap: Overlap, rows: int, params: Params, one_answer: bool) -> list[_Count]:
    conflicting = overlap.conflicting if one_answer else ()
    return [
        _Count("occur word for word in", CANDIDATE_ROWS, overlap.exact, rows, params.max_exact_share, "max_exact_share"),
        _Count("occur with another label in", CANDIDATE_ROWS, conflicting, rows, params.max_conflict_share, "max_conflict_share"),
        _Count("have a near copy in", CANDIDATE_ROWS, overlap.near, rows, params.max_near_share, "max_near_share"),
    ]


def _reference_count(overlap: Overlap, source: str, rows: int, params: Params) -> _Count:
    pairs = (*overlap.exact, *overlap.near)
    return _Count("occur, or have a near copy, in", source, pairs, rows, params.max_learnt_share, "max_learnt_share")


def _too_good(evidence: Evidence, params: Params) -> list[str]:
    doubts, metric = [], evidence.main_metric
    score = evidence.score(metric)
    if score.value > params.too_good and score.n >= _TOO_GOOD_FROM:
        excess = f"{metric} {score.value:.4f} ({interval(score)}) is above gates.leakage.too_good {params.too_good:g}"
        doubts.append(f"too good to be true: {excess}; check whether the texts contain the label")
    champion = evidence.champion
    if champion is None or champion.predictions is None or (common := common_rows(evidence, champion.predictions, champion)) is None:
        return doubts
    gain = common[0].difference(metric, common[1])
    if gain.low > params.suspicious_gain:
        excess = f"{metric} is above the champion's by {gain.value:.3f}, at least {gain.low:.3f}"
        doubts.append(f"too good to be true: {excess}, above gates.leakage.suspicious_gain {params.suspicious_gain:g}")
    return doubts


def _probe(evidence: Evidence, train: pd.DataFrame, rows: pd.DataFrame, params: Params) -> tuple[Hypothesis, ...]:
    """Return the hypothesis of the leak probe: permuted labels are predictable beyond chance and the limits."""
    allowed = params.max_exact_share + params.max_near_share
    texts = [[str(text) for text in table["text"]] for table in (train, rows)]
    labels = [str(label) for label in chain(train["label"], rows["label"])]
    leak = probe(texts[0], texts[1], labels, allowed, evidence.confidence)
    if leak is None:
        return ()
    share = f"{max(leak.share, 0.0):.1%}".replace("%", " %")
    limit = f"gates.leakage.max_exact_share + max_near_share {allowed:g}"
    says = f"permuted labels are predictable as if {share} of the test texts were training texts, above {limit}"
    ends = {"estimate": leak.share, "low": leak.low, "high": leak.high, "n": leak.texts}
    return (Hypothesis(name="permuted labels are predictable", says=says, p=leak.p, metric="share of test texts", **ends),)


def _decide(
    counts: Sequence[_Count],
    reference_counts: Sequence[_Count],
    doubts: Sequence[str],
    hypotheses: tuple[Hypothesis, ...],
    notes: Sequence[str],
) -> GateResult:
    """Return the result; `reference_counts` are about other versions and never make the candidate fail."""
    exceeded = [count.reason for count in counts if count.exceeded]
    summary = [f"{len(count.pairs):,} {count.what} {count.source}" for count in counts]
    outcome = Outcome.FAIL if exceeded else Outcome.INCONCLUSIVE if doubts else Outcome.PASS
    exact = next((count for count in counts if count.field == "max_exact_share"), counts[0])
    probes = [f"probe: {way.says.partition(', above')[0]}, p {way.p:.2g}" for way in hypotheses]
    return GateResult(
        gate="leakage",
        outcome=outcome,
        reason="; ".join(exceeded or doubts) or f"of {exact.rows:,} test rows {', '.join(summary)}",
        metric=f"share of test rows that {exact.what} {exact.source}",
        estimate=exact.share,
        threshold=exact.limit,
        n=exact.rows,
        method="copies counted exactly, near copies found by MinHash LSH and verified; the probe permutes labels per distinct text",
        change="a new split, or a test set without these rows (preprocess.near_duplicate)" if exceeded else None,
        hypotheses=hypotheses,
        notes=(*probes, *(doubts if exceeded else ()), *notes),
        tables=(_count_table([*counts, *reference_counts]), _pair_table([*counts, *reference_counts])),
    )


def _count_table(counts: Iterable[_Count]) -> ReportTable:
    columns = ("test rows that", "rows", "share", "limit", "setting", "exceeded")
    rows = tuple((f"{one.what} {one.source}", len(one.pairs), round(one.share, 5), one.limit, one.field, one.exceeded) for one in counts)
    return ReportTable(title="Leaked test rows", columns=columns, rows=rows)


def _pair_table(counts: Sequence[_Count]) -> ReportTable:
    """List the first pairs, those above a limit before the others."""
    pairs = [pair for count in sorted(counts, key=lambda count: not count.exceeded) for pair in count.pairs][:_PAIRS]
    columns = ("reason", "test row", "other row", "similarity", "test text", "other text")
    rows = tuple(
        (pair.reason, pair.test_id, pair.other_id, round(pair.similarity, 3), shorten(pair.test_text, 80), shorten(pair.other_text, 80))
        for pair in pairs
    )
    return ReportTable(title=f"The first {len(rows)} pairs", columns=columns, rows=rows)
