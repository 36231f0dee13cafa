"""Models whose answers are known, and what a gate makes of them: what the tests of all gates share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from components import gates
from components.artifacts.predictions import Predictions
from components.artifacts.served_answers import ServedAnswer, ServedAnswers
from components.artifacts.verdict import GateResult, Verdict
from components.gates import Evidence, GatesParams, ReferenceModel
from components.judge import judge, verdict_key
from components.judge.multiple_testing import correct_tests

LABELS = ("billing", "device", "network")
DEFAULT = GatesParams.parse({"leakage": {"role": "blocking"}}, "gates")  # these models come without test rows, of which it asks


def answered(right: np.ndarray, groups: np.ndarray | None = None, labels: tuple[str, ...] = LABELS) -> Predictions:
    """A model that is right where `right` says so, and one label off elsewhere."""
    n = len(right)
    ids = np.array([f"r{i:06d}" for i in range(n)])
    expected = np.arange(n) % len(labels)
    predicted = np.where(right, expected, (expected + 1) % len(labels))
    names = np.array(labels)
    return Predictions(ids, ids if groups is None else groups, names[expected], names[predicted], np.eye(len(labels))[predicted], labels)


def models(n: int, accuracy: float, worse_by: float = 0.0, changed: float = 0.10) -> tuple[Predictions, Predictions]:
    """Champion and candidate with exactly these accuracies, which answer `changed` of the rows differently."""
    order = np.random.default_rng(0).permutation(n)
    right = np.zeros(n, bool)
    right[order[: round(n * accuracy)]] = True
    lost, gained = round(n * (changed + worse_by) / 2), round(n * (changed - worse_by) / 2)
    candidate = right.copy()
    candidate[np.flatnonzero(right)[:lost]] = False
    candidate[np.flatnonzero(~right)[:gained]] = True
    return answered(right), answered(candidate)


def against(candidate: Predictions, champion: Predictions | None, **more: Any) -> Evidence:
    """The evidence on a candidate, its champion version 4, and a poor baseline."""
    poor = answered(np.random.default_rng(9).random(len(candidate.ids)) < 0.4)
    known = {"baselines": {"tfidf": poor, "majority": poor}, "min_class_units": 10, "level": 0.05, "served": served(candidate), **more}
    return Evidence(candidate=candidate, champion=None if champion is None else ReferenceModel("4", champion), **known)


def served(candidate: Predictions, rows: int = 10, **more: Any) -> ServedAnswers:
    """The evaluated answers to the first rows, as they came back from a scoring server that refuses what is no request."""
    answers = [
        ServedAnswer(id=str(name), label=str(said), probabilities=dict(zip(candidate.labels, map(float, row), strict=True)))
        for name, said, row in zip(candidate.ids[:rows], candidate.predicted, candidate.probabilities, strict=False)
    ]
    known = {"asked": len(answers), "answers": tuple(answers), "malformed": {"no JSON": 400}, "seconds": 5.0}
    return ServedAnswers(version="models:/tickets/5", **{**known, **more})


def decided(name: str, evidence: Evidence, **settings: Any) -> GateResult:
    """What one gate says when the panel has nobody else to hear."""
    section = gates.load(name).Params.model_validate(settings)
    (result,) = correct_tests([gates.load(name).decide(evidence, section).model_copy(update={"role": section.role})])
    return result


def verdict(
    candidate: Predictions,
    champion: Predictions | None = None,
    baselines: Mapping[str, Predictions] | None = None,
    params: GatesParams = DEFAULT,
    **more: Any,
) -> Verdict:
    """The verdict of all gates."""
    if baselines is not None:
        more |= {"baselines": baselines}
    evidence = against(candidate, champion, **more)
    key = verdict_key("c", None if champion is None else "4", "t", params, evidence.min_class_units)
    return judge(evidence, params, key=key, candidate_digest="c", test_digest="t")


def gate(found: Verdict, name: str) -> GateResult:
    """What one gate contributed to a verdict."""
    return next(result for result in found.gates if result.gate == name)
