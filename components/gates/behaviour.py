"""Behaviour: does the answer survive a typo, and does it follow what it should follow?"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator, Field, field_validator

from components.artifacts.behaviour import Behaviour, CaseResult
from components.artifacts.metrics import Estimate
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome
from components.core.section import Section, nearest
from components.gates.support.evidence import Evidence, GateSection, hypothesis, interval
from components.stats import Units, fewer_right, proportion, proportion_difference
from components.stats.proportions import proportion_rows
from components.stats.significance import share_below

PERTURBED = ("typos", "case", "width", "diacritics", "punctuation", "padding")
SHOWN = 20


class AtMost(Section):
    """The share of cases of each kind that may fail.

    Of 400 cases each on the worked example, logistic regression on the frozen base (69 % accuracy, 44 characters a text) changed its
    answer at 31 % of the typos, 33 % of the wide words, 13 % of the padding and 10 % of the punctuation; the rest is set by judgement.
    """

    typos: float = Field(0.5, gt=0, lt=1, description="a letter lost, doubled or swapped in one word")
    case: float = Field(0.25, gt=0, lt=1, description="all capitals, or all small letters")
    width: float = Field(0.5, gt=0, lt=1, description="one word in full-width characters; preprocess.unicode_form NFKC undoes it")
    diacritics: float = Field(0.25, gt=0, lt=1, description="accents and dots left out")
    punctuation: float = Field(0.25, gt=0, lt=1, description="a full stop, typographic quotes and dashes")
    padding: float = Field(0.25, gt=0, lt=1, description="a polite phrase before or after")
    invariance: float = Field(0.25, gt=0, lt=1, description="the user's own invariances")
    directional: float = Field(0.25, gt=0, lt=1, description="the user's directional cases")
    minimum_functionality: float = Field(0.25, gt=0, lt=1, description="what every model must know")


def _known_kind(kind: str) -> str:
    if kind not in PERTURBED:
        raise ValueError(f"unknown kind of change{nearest(kind, list(PERTURBED))}")
    return kind


class Params(GateSection):
    """How a model must behave when a text is changed on purpose."""

    cases: str = Field("", description="a YAML file of own cases, relative to params.yaml; empty: none")
    kinds: tuple[Annotated[str, AfterValidator(_known_kind)], ...] = Field(PERTURBED, description="the changes made to test rows")
    rows: int = Field(100, ge=1, le=10_000, description="test rows changed in each way")
    seed: int = Field(7, ge=0, description="which rows, and how they are changed")
    padding: tuple[str, ...] = Field(
        ("Please note: {text}", "{text} (as noted)", "{text} Thank you."), description="phrases in the texts' language; {text} is the text"
    )
    min_cases: int = Field(20, ge=5, description="of a kind; with fewer it is shown and cannot reject")
    margin: float = Field(0.05, gt=0, lt=1, description="more failures than the champion's that are allowed; a share")
    at_most: AtMost = Field(default_factory=AtMost, description="the share of cases of each kind that may fail")

    @field_validator("padding")
    @classmethod
    def _hold_the_text(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if any("{text}" not in phrase for phrase in phrases):
            raise ValueError("every phrase must hold {text}, where the text goes")
        return phrases


class _Limit(NamedTuple):
    """A quantity that must be at most `threshold`, with its interval: `what` it is, and the `setting` of the threshold."""

    kind: str
    what: str
    estimate: Estimate
    threshold: float
    setting: str

    @property
    def paired(self) -> bool:
        """Whether it is a difference to the champion."""
        return self.setting == "gates.behaviour.margin"

    @property
    def excess(self) -> float:
        """How far the interval's upper end is above the threshold; 0 or less where it is settled."""
        return self.estimate.high - self.threshold

    @property
    def settled(self) -> bool:
        """Whether the interval proves it."""
        return not self.estimate.doubt and self.excess <= 0


class _Kind:
    """All cases of one kind: the rate of failure, and what it can be rejected by."""

    def __init__(self, kind: str, tried: Sequence[CaseResult], evidence: Evidence, params: Params) -> None:
        self.kind, self.tried = kind, tried
        self.at_most: float = getattr(params.at_most, kind)
        self.margin = params.margin
        self.gated = len(tried) >= params.min_cases
        passed = np.array([not one.candidate.failed for one in tried], dtype=bool)
        self.units = Units.from_groups([one.case.group for one in tried])
        self.passed, self.confidence = passed, evidence.confidence
        self.failing = proportion(~passed, self.units, evidence.confidence)
        both = [one for one in tried if one.champion is not None]
        self.compared = len(both) >= params.min_cases
        self.mine = np.array([not one.candidate.failed for one in both], dtype=bool)
        self.theirs = np.array([one.champion is not None and not one.champion.failed for one in both], dtype=bool)
        self.shared = Units.from_groups([one.case.group for one in both]) if both else None

    @property
    def more(self) -> Estimate | None:
        """The candidate's failures minus the champion's, paired by case; None where fewer than two are comparable."""
        if self.shared is None or len(self.mine) < 2:
            return None
        return proportion_difference(self.theirs, self.mine, self.shared, self.confidence)

    def limits(self, called: str) -> list[_Limit]:
        """Return what is asked of this kind: not too many failures, and not many more than the champion's."""
        often = f"{self.failing.value:.3f} of {len(self.tried)} cases of {self.kind} fail"
        limits = [_Limit(self.kind, often, self.failing, self.at_most, f"gates.behaviour.at_most.{self.kind}")]
        if self.compared and (more := self.more) is not None:
            worse = f"{more.value:+.3f} more cases of {self.kind} fail than with {called}"
            limits.append(_Limit(self.kind, worse, more, self.margin, "gates.behaviour.margin"))
        return limits

    def hypotheses(self, called: str) -> list[Hypothesis]:
        """Return the ways to fail: too often, and more often than the champion beyond the margin."""
        where = f"gates.behaviour.at_most.{self.kind} {self.at_most:g} ({interval(self.failing)})"
        says = f"{self.failing.value * 100:.1f} % of {len(self.tried)} cases of {self.kind} fail, above {where}"
        p = share_below(self.passed, 1 - self.at_most, proportion_rows(self.passed, self.units, self.confidence))
        ways = [hypothesis(f"{self.kind}: too many failures", says, p, "failing cases", self.failing)]
        more = self.more if self.compared else None
        if more is not None and self.shared is not None:
            p = 1.0 if more.high < self.margin and not more.doubt else fewer_right(self.mine, self.theirs, self.shared)
            says = f"{self.kind}: {more.value:+.3f} more cases fail than with {called}, not within gates.behaviour.margin {self.margin:g} "
            says += f"({interval(more, signed=True)})"
            ways.append(hypothesis(f"{self.kind}: more failures than {called}", says, p, "difference of failing cases", more))
        return ways

    def row(self) -> tuple[str | float | int | bool | None, ...]:
        """Return the kind's line of the table."""
        more, failing = self.more, self.failing
        theirs = float(np.mean(~self.theirs)) if len(self.theirs) else None
        compared = (more.value, more.low, more.high) if more is not None else (None, None, None)
        return (self.kind, len(self.tried), self.units.count, failing.value, failing.low, failing.high, self.at_most, theirs, *compared)


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when every kind's interval is within its limits, else INCONCLUSIVE; it fails by what is above them, or above the champion."""
    seen = evidence.behaviour
    if not evidence.classes:
        return GateResult.not_asked("behaviour", "cases are texts with one label, and the task has other answers")
    if seen is None or not seen.tried:
        reason = "no case was tried" + (f": {'; '.join(seen.notes)}" if seen and seen.notes else "")
        return GateResult(gate="behaviour", outcome=Outcome.INCONCLUSIVE, reason=reason, change="gates.behaviour.kinds or .cases")
    kinds = _kinds(seen, evidence, params)
    gated = [kind for kind in kinds if kind.gated]
    called = f"champion {evidence.champion.called}" if evidence.champion is not None else "the champion"
    limits = [limit for kind in gated for limit in kind.limits(called)]
    found = _result(seen, kinds, limits, tuple(way for kind in gated for way in kind.hypotheses(called)), params)
    if not evidence.unscorable:
        return found
    return found.model_copy(update={"outcome": Outcome.INCONCLUSIVE, "reason": f"{evidence.unscorable}; {found.reason}"})


def _kinds(seen: Behaviour, evidence: Evidence, params: Params) -> list[_Kind]:
    names = list(dict.fromkeys(one.case.kind for one in seen.tried))
    return [_Kind(name, [one for one in seen.tried if one.case.kind == name], evidence, params) for name in names]


def _result(seen: Behaviour, kinds: list[_Kind], limits: list[_Limit], ways: tuple[Hypothesis, ...], params: Params) -> GateResult:
    shown = [f"{kind.kind}: {len(kind.tried)} cases, shown only" for kind in kinds if not kind.gated]
    shown += [f"{kind.kind}: {kind.failing.doubt}" for kind in kinds if kind.gated and kind.failing.doubt]
    known = {"gate": "behaviour", "notes": (*seen.notes, *shown), "tables": tuple(_tables(kinds))}
    if not limits:
        reason = f"no kind has gates.behaviour.min_cases {params.min_cases} cases"
        return GateResult(outcome=Outcome.INCONCLUSIVE, reason=reason, change="more cases, or more test rows", **known)
    worst = max(limits, key=lambda limit: (not limit.settled, limit.excess))
    undecided = dict.fromkeys(limit.kind for limit in limits if not limit.settled)
    said = f"{worst.what} ({interval(worst.estimate, signed=worst.paired)}, {worst.setting} {worst.threshold:g})"
    return GateResult(
        outcome=Outcome.INCONCLUSIVE if undecided else Outcome.PASS,
        reason=f"{said}; not settled: {', '.join(undecided)}" if undecided else f"{said}, the nearest of {len(limits)} to its limit",
        metric=f"{'difference of ' if worst.paired else ''}failing cases, {worst.kind}",
        estimate=worst.estimate.value,
        low=worst.estimate.low,
        high=worst.estimate.high,
        threshold=worst.threshold,
        n=worst.estimate.n,
        method="Tango, paired by case" if worst.paired else worst.estimate.method,
        change=f"{worst.setting} {'above' if undecided else 'below'} {worst.estimate.high:.3f}",
        hypotheses=ways,
        **known,
    )


def _tables(kinds: list[_Kind]) -> list[ReportTable]:
    columns = ("kind", "cases", "groups", "failing", "low", "high", "at most", "champion failing", "difference", "difference low")
    tables = [ReportTable(title="Kinds of cases", columns=(*columns, "difference high"), rows=tuple(kind.row() for kind in kinds))]
    failing = [[one for one in kind.tried if one.candidate.failed] for kind in kinds]
    turns = [ones[turn] for turn in range(max(map(len, failing))) for ones in failing if turn < len(ones)]
    if turns:
        total = f"{sum(map(len, failing))} fail" + (f", the first {SHOWN}" if len(turns) > SHOWN else "")
        told = ("kind", "text", "changed", "answer", "answer to the changed text", "expected", "champion")
        tables.append(ReportTable(title=f"Failing cases ({total})", columns=told, rows=tuple(_line(one) for one in turns[:SHOWN])))
    return tables


def _line(one: CaseResult) -> tuple[str | None, ...]:
    """Return a failing case as a line of the table."""
    case, reply = one.case, one.candidate
    before, after, expected = reply.before, reply.after, case.label
    if case.must is not None:
        before = f"{case.label} {reply.probability_before:.3f}"
        after = f"{reply.probability_after:.3f}"
        expected = f"must {case.must} by {'at least' if case.must in ('rise', 'fall') else 'at most'} {case.by:g}"
    champion = None if one.champion is None else ("fails" if one.champion.failed else "passes")
    return (
        case.kind if case.kind == case.name else f"{case.kind}: {case.name}",
        case.text,
        case.changed,
        before,
        after,
        expected,
        champion,
    )
