"""What two versions answer to the cases: each is asked every text once, all in one question."""

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from components.artifacts.behaviour import Behaviour, Case, CaseReply, CaseResult
from components.core.errors import BadParams
from components.core.section import nearest

log = logging.getLogger(__name__)


class Answered(Protocol):
    """Answers to texts: labels (n,), probabilities (n, k) in the order of `labels`."""

    @property
    def predicted(self) -> list[str]:
        """The label of each text."""

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """The probability of each label for each text."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the columns."""


class Answerer(Protocol):
    """A version that answers texts, as `registry.ask.Session` does."""

    def answer(self, texts: Sequence[str]) -> Answered:
        """Answer `texts`."""


def collect(cases: Sequence[Case], candidate: Answerer, champion: Answerer | None = None, notes: Sequence[str] = ()) -> Behaviour:
    """Ask the candidate, and the champion where there is one, and say which cases each fails.

    Raises:
        BadParams: a case names a label that the candidate does not know; with all of them.
    """
    texts = sorted({text for case in cases for text in (case.text, case.changed) if text is not None})
    if not texts:
        return Behaviour(notes=tuple(notes))
    mine = _Answers(texts, candidate.answer(texts))
    if unknown := [case for case in cases if not mine.knows(case)]:
        labels = list(mine.labels)
        faults = [
            f"{case.group.removeprefix('written: ')}: unknown label {case.label!r}{nearest(str(case.label), labels)}" for case in unknown
        ]
        raise BadParams("\n".join(f"gates.behaviour.cases, {fault}" for fault in faults))
    theirs = _Answers(texts, champion.answer(texts)) if champion is not None else None
    tried = [
        CaseResult(
            case=case, candidate=mine.reply(case), champion=theirs.reply(case) if theirs is not None and theirs.knows(case) else None
        )
        for case in cases
    ]
    log.info("%d cases tried with %d texts, %d failed", len(tried), len(texts), sum(one.candidate.failed for one in tried))
    return Behaviour(tried=tuple(tried), notes=tuple(notes))


class _Answers:
    """A version's answers, found by text."""

    def __init__(self, texts: Sequence[str], answered: Answered) -> None:
        self.labels = answered.labels
        self._place = {text: place for place, text in enumerate(texts)}
        self._predicted, self._probabilities = answered.predicted, answered.probabilities

    def knows(self, case: Case) -> bool:
        """Whether the case's label, if it has one, is a label of this version."""
        return case.label is None or case.label in self.labels

    def reply(self, case: Case) -> CaseReply:
        """Return the answers to the case's texts and whether they are a failure."""
        before = None if case.text is None else self._predicted[self._place[case.text]]
        after = self._predicted[self._place[case.changed]]
        first, second = self._probability(case, case.text), self._probability(case, case.changed)
        if case.must is not None and first is not None and second is not None:
            failed = not _moved(case, second - first)
        else:
            failed = after != (before if case.label is None else case.label)
        return CaseReply(before=before, after=after, probability_before=first, probability_after=second, failed=failed)

    def _probability(self, case: Case, text: str | None) -> float | None:
        if case.label is None or text is None:
            return None
        return float(self._probabilities[self._place[text], self.labels.index(case.label)])


def _moved(case: Case, change: float) -> bool:
    """Whether the probability moved as it must; a change that is not a number did not."""
    if case.must in ("rise", "fall"):
        size = change if case.must == "rise" else -change
        return size > 0 and size >= case.by
    return (change if case.must == "not rise" else -change) <= case.by
