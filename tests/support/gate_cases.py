"""Models with known answers, and helpers to judge them, for the tests of all gates."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from components import gates
from components.artifacts.predictions import Predictions
from components.artifacts.served_answers import ServedAnswer, ServedAnswers
from components.artifacts.verdict import GateResult, Verdict
from components.gates import GatesParams
from components.gates.support import Evidence, ReferenceModel
from components.judge import judge, verdict_key
from components.judge.multiple_testing import correct_tests

LABELS = ("billing", "device", "network")
DEFAULT = GatesParams.parse({"leakage": {"role": "blocking"}}, "gates")  # leakage needs test rows, which these models do not have


def answered(right: np.ndarray, groups: np.ndarray | None = None, labels: tuple[str, ...] = LABELS) -> Predictions:
    """Return predictions that are correct on the rows `right`, and one label off elsewhere."""
    n = len(right)
    ids = np.array([f"r{i:06d}" for i in range(n)])
    expected = np.arange(n) % len(labels)
    predicted = np.where(right, expected, (expected + 1) % len(labels))
    names = np.array(labels)
    return Predictions(ids, ids if groups is None else groups, names[expected], names[predicted], np.eye(len(labels))[predicted], labels)


def models(n: int, accuracy: float, worse_by: float = 0.0, changed: float = 0.10) -> tuple[Predictions, Predictions]:
    """Return champion and candidate with exactly these accuracies and different answers on a share `changed` of the rows."""
    order = np.random.default_rng(0).permutation(n)
    right = np.zeros(n, bool)
    right[order[: round(n * accuracy)]] = True
    lost, gained = round(n * (changed + worse_by) / 2), round(n * (changed - worse_by) / 2)
    candidate = right.copy()
    candidate[np.flatnonzero(right)[:lost]] = False
    candidate[np.flatnonzero(~right)[:gained]] = True
    return answered(right), answered(candidate)


def against(candidate: Predictions, champion: Predictions | None, **more: Any) -> Evidence:
    """Return the evidence on a candidate, with champion version 4 and a poor baseline."""
    poor = answered(np.random.default_rng(9).random(len(candidate.ids)) < 0.4)
    fields = {"baselines": {"tfidf": poor, "majority": poor}, "min_class_units": 10, "level": 0.05, "served": served(candidate), **more}
    return Evidence(candidate=candidate, champion=None if champion is None else ReferenceModel("4", champion), **fields)


def served(candidate: Predictions, rows: int = 10, **more: Any) -> ServedAnswers:
    """Return the evaluated answers to the first rows, served by a server that rejects malformed requests."""
    answers = [
        ServedAnswer(id=str(name), label=str(label), probabilities=dict(zip(candidate.labels, map(float, row), strict=True)))
        for name, label, row in zip(candidate.ids[:rows], candidate.predicted, candidate.probabilities, strict=False)
    ]
    fields = {"asked": len(answers), "answers": tuple(answers), "malformed": {"no JSON": 400}, "seconds": 5.0}
    return ServedAnswers(version="models:/tickets/5", **{**fields, **more})


def decided(name: str, evidence: Evidence, **settings: Any) -> GateResult:
    """Return the result of one gate, corrected without any other gate."""
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
    """Return the verdict of all gates."""
    if baselines is not None:
        more |= {"baselines": baselines}
    evidence = against(candidate, champion, **more)
    key = verdict_key("c", None if champion is None else "4", "t", params, evidence.min_class_units)
    return judge(evidence, params, key=key, candidate_digest="c", test_digest="t")


def gate(verdict: Verdict, name: str) -> GateResult:
    """Return one gate's result in a verdict."""
    return next(result for result in verdict.gates if result.gate == name)
