"""Run behaviour cases on two versions; each version answers every text once, in one batch."""

import logging
from collections.abc import Sequence
from typing import Protocol

from components.artifacts.behaviour import Behaviour, Case, CaseReply, CaseResult
from components.artifacts.predictions import ModelOutput
from components.core.errors import BadParams
from components.core.section import nearest

log = logging.getLogger(__name__)


class TextModel(Protocol):
    """A version that answers texts, such as a model session of the registry."""

    def answer(self, texts: Sequence[str]) -> ModelOutput:
        """Answer `texts`."""


def evaluate_cases(cases: Sequence[Case], candidate: TextModel, champion: TextModel | None = None, notes: Sequence[str] = ()) -> Behaviour:
    """Run the cases on the candidate and the champion, if any, and return which cases fail.

    Raises:
        BadParams: cases use labels that the candidate does not have; lists all of them.
    """
    texts = sorted({text for case in cases for text in (case.text, case.changed) if text is not None})
    if not texts:
        return Behaviour(notes=tuple(notes))
    answers = _Answers(texts, candidate.answer(texts))
    if unknown := [case for case in cases if not answers.has_label(case)]:
        labels = list(answers.labels)
        faults = [
            f"{case.group.removeprefix('written: ')}: unknown label {case.label!r}{nearest(str(case.label), labels)}" for case in unknown
        ]
        raise BadParams("\n".join(f"gates.behaviour.cases, {fault}" for fault in faults))
    reference = _Answers(texts, champion.answer(texts)) if champion is not None else None
    tried = [
        CaseResult(
            case=case,
            candidate=answers.reply(case),
            champion=reference.reply(case) if reference is not None and reference.has_label(case) else None,
        )
        for case in cases
    ]
    log.info("ran %d cases with %d texts, %d failed", len(tried), len(texts), sum(case.candidate.failed for case in tried))
    return Behaviour(tried=tuple(tried), notes=tuple(notes))


class _Answers:
    """A version's answers by text."""

    def __init__(self, texts: Sequence[str], answers: ModelOutput) -> None:
        self.labels = answers.labels
        self._index = {text: index for index, text in enumerate(texts)}
        self._predicted, self._probabilities = answers.predicted, answers.probabilities

    def has_label(self, case: Case) -> bool:
        return case.label is None or case.label in self.labels

    def reply(self, case: Case) -> CaseReply:
        """Return the answers to the case's texts, and whether the case fails."""
        before = None if case.text is None else self._predicted[self._index[case.text]]
        after = self._predicted[self._index[case.changed]]
        first, second = self._probability(case, case.text), self._probability(case, case.changed)
        if case.must is not None and first is not None and second is not None:
            failed = not _moved(case, second - first)
        else:
            failed = after != (before if case.label is None else case.label)
        return CaseReply(before=before, after=after, probability_before=first, probability_after=second, failed=failed)

    def _probability(self, case: Case, text: str | None) -> float | None:
        if case.label is None or text is None:
            return None
        return float(self._probabilities[self._index[text], self.labels.index(case.label)])


def _moved(case: Case, change: float) -> bool:
    """Return whether the probability moved as required; NaN counts as not moved."""
    if case.must in ("rise", "fall"):
        size = change if case.must == "rise" else -change
        return size > 0 and size >= case.by
    return (change if case.must == "not rise" else -change) <= case.by
