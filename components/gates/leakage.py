"""Test rows that are no test: a compared model has learnt them, or the result is too good to be believed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import pandas as pd
from pydantic import Field

from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role
from components.core.errors import shorten
from components.gates.support.evidence import Evidence, GateSection, TrainingRows, interval
from components.gates.support.leak_probe import probe
from components.gates.support.learned_rows import LEARNT, measure_exposure, rows_name
from components.gates.support.noninferiority import common_rows
from components.gates.support.overlap import Overlap, Pair, TestExposure, repeated
from components.gates.support.slicing import test_rows

_PAIRS = 20  # rows in the table of pairs
_TOO_GOOD_FROM = 100  # rows or groups: a model that is right on 97 % answers them all in 5 % of test sets, and the alarm blocks nothing


class Params(GateSection):
    """How much of the test set a compared model may have learnt, and what is too good to be true."""

    role: Role = Field(
        Role.REQUIRED, description="required | blocking | informational | off; such rows leave every comparison whatever the role"
    )
    max_exact_share: float = Field(0.0, ge=0, lt=1, description="of the test rows, word for word among the rows learnt from")
    max_near_share: float = Field(0.01, ge=0, lt=1, description="of the test rows, nearly so")
    max_learnt_share: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="of the test rows that are left out, since a compared model has learnt them, or near copies",
    )
    unknown: Literal["ask", "skip"] = Field(
        "ask",
        description="what the champion, the best one so far, or a registered base of a compared version has learnt is not at hand: "
        "ask a person | let the other gates decide",
    )
    near_duplicate: float = Field(0.8, gt=0.3, le=1, description="Jaccard similarity of word shingles; 1: exact copies only")
    max_conflict_share: float = Field(0.0, ge=0, lt=1, description="of the test rows, word for word but with another label")
    max_test_duplicate_share: float = Field(
        0.05, ge=0, lt=1, description="of the test rows, twice in the test set: it is smaller than it seems"
    )
    too_good: float = Field(
        0.999,
        gt=0,
        le=1,
        description="an accuracy, or first measure, above this on 100 rows or more makes the answer INCONCLUSIVE; 1: never",
    )
    suspicious_gain: float = Field(0.15, gt=0, le=1, description="so does a gain over the champion whose lower end is above this; 1: never")


@dataclass(frozen=True)
class _Count:
    """Test rows counted against a limit. `field` is the setting that holds the limit, `among` where the rows stand too."""

    what: str
    among: str
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
    def said(self) -> str:
        share = f"{len(self.pairs):,} of {self.rows:,} test rows ({self.share:.2%})".replace("%", " %")
        return f"{share} {self.what} {self.among}, above gates.leakage.{self.field} {self.limit:g}"


def decide(evidence: Evidence, params: Params) -> GateResult:
    """FAIL where the candidate learnt more test rows than allowed, as counted; INCONCLUSIVE where a person should look, else PASS."""
    held = evidence.held
    if held is None:
        if isinstance(found := test_rows(evidence), str):
            return GateResult(gate="leakage", outcome=Outcome.INCONCLUSIVE, reason=found)
        held = measure_exposure(found, evidence.train, evidence.seen, params.near_duplicate)
    rows = held.rows
    twice = _Count(
        "stand twice in",
        "the test set",
        repeated(rows, evidence.one_answer),
        len(rows),
        params.max_test_duplicate_share,
        "max_test_duplicate_share",
    )
    own = [twice, *(_counts(held.sides[LEARNT], len(rows), params, evidence.one_answer) if LEARNT in held.sides else ())]
    theirs = [_learnt(held.sides[rows_name(one)], rows_name(one), len(rows), params) for one in evidence.seen if one.rows is not None]
    doubts = ["the rows that the candidate learnt from were not handed over"] if evidence.train is None else []
    unknown = _unknown(evidence.seen) if params.unknown == "ask" else []
    decided = _decided(
        own,
        theirs,
        [*doubts, *unknown, *_left_out(held, params), *_too_good(evidence, params)],
        _probed(evidence, evidence.train, rows, params) if evidence.train is not None else (),
        list(_notes(held, evidence.seen)),
    )
    if not unknown or decided.outcome is not Outcome.INCONCLUSIVE:
        return decided
    return decided.model_copy(update={"may_pass": True, "change": "`dvc pull` of what they were made with, or gates.leakage.unknown: skip"})


def _unknown(seen: Sequence[TrainingRows]) -> list[str]:
    """Say of which compared versions nobody can tell what they have learnt."""
    return [
        f"what {one.called} learnt from is not at hand ({one.fault}): whether it has learnt test rows cannot be told"
        for one in seen
        if one.rows is None and one.compared
    ]


def _left_out(held: TestExposure, params: Params) -> Iterator[str]:
    """Say where more rows were left out than the comparison may lack."""
    count, rows = len(held.left_out), len(held.rows)
    if count > params.max_learnt_share * rows:
        share = f"{count:,} of {rows:,} test rows ({count / rows:.2%})".replace("%", " %")
        yield (
            f"{share} were learnt by a compared model and leave every comparison, above gates.leakage.max_learnt_share "
            f"{params.max_learnt_share:g}"
        )


def _notes(held: TestExposure, seen: Sequence[TrainingRows]) -> Iterator[str]:
    """Say what was left out of the comparisons, and of whom nobody knows what they have learnt."""
    if held.left_out:
        count = f"{len(held.left_out):,} of {len(held.rows):,} test rows"
        yield f"{count} leave every comparison: a compared model has learnt them or near copies"
    for one in seen:
        if one.rows is None:
            yield f"what {one.called} learnt from is not at hand ({one.fault}): whether it has seen test rows is not known"


def _counts(found: Overlap, rows: int, params: Params, one_answer: bool) -> list[_Count]:
    """Count what the candidate has learnt."""
    conflicting = found.conflicting if one_answer else ()
    return [
        _Count("stand word for word among", LEARNT, found.exact, rows, params.max_exact_share, "max_exact_share"),
        _Count("stand with another label among", LEARNT, conflicting, rows, params.max_conflict_share, "max_conflict_share"),
        _Count("have a near copy among", LEARNT, found.near, rows, params.max_near_share, "max_near_share"),
    ]


def _learnt(found: Overlap, among: str, rows: int, params: Params) -> _Count:
    """Count what another version has learnt."""
    return _Count(
        "stand, or have a near copy, among", among, (*found.exact, *found.near), rows, params.max_learnt_share, "max_learnt_share"
    )


def _too_good(evidence: Evidence, params: Params) -> list[str]:
    """Return why the result is not to be believed without a look."""
    doubts, metric = [], evidence.main
    found = evidence.score(metric)
    if found.value > params.too_good and found.n >= _TOO_GOOD_FROM:
        said = f"{metric} {found.value:.4f} ({interval(found)}) is above gates.leakage.too_good {params.too_good:g}"
        doubts.append(f"too good to be true: {said}; look for the label in the text")
    rival = evidence.champion
    if rival is not None and rival.predictions is not None and (common := common_rows(evidence, rival.predictions, rival)) is not None:
        gain = common[0].difference(metric, common[1])
        if gain.low > params.suspicious_gain:
            said = f"{metric} is above the champion's by {gain.value:.3f}, at least {gain.low:.3f}"
            doubts.append(f"too good to be true: {said}, above gates.leakage.suspicious_gain {params.suspicious_gain:g}")
    return doubts


def _probed(evidence: Evidence, train: pd.DataFrame, rows: pd.DataFrame, params: Params) -> tuple[Hypothesis, ...]:
    """Return the probe's way to fail: more permuted labels foretold than chance and the limits allow."""
    allowed = params.max_exact_share + params.max_near_share
    texts = [[str(text) for text in table["text"]] for table in (train, rows)]
    found = probe(texts[0], texts[1], [str(label) for label in chain(train["label"], rows["label"])], allowed, evidence.confidence)
    if found is None:
        return ()
    limit = f"gates.leakage.max_exact_share + max_near_share {allowed:g}"
    says = (
        f"permuted labels are foretold as if {max(found.share, 0.0):.1%} of the test texts stood in training".replace("%", " %")
        + f", above {limit}"
    )
    name = "permuted labels are foretold"
    return (
        Hypothesis(
            name=name,
            says=says,
            p=found.p,
            metric="share of test texts",
            estimate=found.share,
            low=found.low,
            high=found.high,
            n=found.texts,
        ),
    )


def _decided(
    counts: Sequence[_Count],
    seen: Sequence[_Count],
    doubts: Sequence[str],
    hypotheses: tuple[Hypothesis, ...],
    notes: Sequence[str],
) -> GateResult:
    """Put what was counted into a result; `seen` is what other versions learnt, which does not make the candidate unfit."""
    over = [one.said for one in counts if one.exceeded]
    open_ = list(doubts)
    said = [f"{len(one.pairs):,} {one.what} {one.among}" for one in counts]
    outcome = Outcome.FAIL if over else Outcome.INCONCLUSIVE if open_ else Outcome.PASS
    exact = next((one for one in counts if one.field == "max_exact_share"), counts[0])
    probed = [f"probe: {one.says.partition(', above')[0]}, p {one.p:.2g}" for one in hypotheses]
    return GateResult(
        gate="leakage",
        outcome=outcome,
        reason="; ".join(over or open_) or f"of {exact.rows:,} test rows {', '.join(said)}",
        metric=f"share of test rows that {exact.what} {exact.among}",
        estimate=exact.share,
        threshold=exact.limit,
        n=exact.rows,
        method="copies counted exactly, near copies found by MinHash LSH and verified; the probe permutes labels per distinct text",
        change="a new split, or without these rows (preprocess.near_duplicate)" if over else None,
        hypotheses=hypotheses,
        notes=(*probed, *(open_ if over else ()), *notes),
        tables=(_table([*counts, *seen]), _listed([*counts, *seen])),
    )


def _table(counts: Iterable[_Count]) -> ReportTable:
    columns = ("test rows that", "rows", "share", "limit", "setting", "exceeded")
    rows = tuple((f"{one.what} {one.among}", len(one.pairs), round(one.share, 5), one.limit, one.field, one.exceeded) for one in counts)
    return ReportTable(title="Test rows that are no test", columns=columns, rows=rows)


def _listed(counts: Sequence[_Count]) -> ReportTable:
    """List the first pairs, those above a limit before the others."""
    pairs = [pair for one in sorted(counts, key=lambda one: not one.exceeded) for pair in one.pairs][:_PAIRS]
    columns = ("why", "test row", "other row", "similarity", "test text", "other text")
    rows = tuple(
        (pair.kind, pair.test_id, pair.other_id, round(pair.similarity, 3), shorten(pair.test_text, 80), shorten(pair.other_text, 80))
        for pair in pairs
    )
    return ReportTable(title=f"The first {len(rows)} pairs", columns=columns, rows=rows)
