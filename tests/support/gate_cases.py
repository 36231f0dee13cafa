"""Predictions of known quality, and functions that judge them with one gate or all gates."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import yaml

from components import gates
from components.artifacts.predictions import Predictions
from components.artifacts.served_answers import ServedAnswer, ServedAnswers
from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.gates import GatesParams
from components.gates.support import Evidence, ReferenceModel
from components.judge import judge, verdict_key
from components.judge.multiple_testing import correct_tests
from components.judge.remedies import with_checked_remedies

LABELS = ("billing", "device", "network")
WORDS = np.array([f"word{i}" for i in range(3000)])
SHIPPED = ("baseline", "behaviour", "best_champion", "calibration", "champion", "cost", "fairness", "floor", "forgetting", "leakage")
SHIPPED += ("servability", "slices", "test_budget")
ADDED = {name: {"role": "off"} for name in gates.available() if name not in SHIPPED}  # a user's gates do not change these tests
DEFAULT = GatesParams.parse({"leakage": {"role": "blocking"}} | ADDED, "gates")  # leakage needs test rows, which these models do not have


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


def gained_and_lost(gained: int, lost: int, n: int = 1000, groups: np.ndarray | None = None) -> tuple[Predictions, Predictions]:
    """Return a candidate and a champion: only the candidate is correct on `gained` rows, only the champion on `lost` rows."""
    right, champion_right = np.arange(n) % 10 != 0, np.arange(n) % 10 != 0
    champion_right[np.flatnonzero(right)[:gained]] = False
    right[np.flatnonzero(right)[gained : gained + lost]] = False
    return answered(right, groups), answered(champion_right, groups)


def random_texts(n: int, seed: int, length: int = 8) -> list[str]:
    """Return `n` texts of `length` random words."""
    return [" ".join(row) for row in np.random.default_rng(seed).choice(WORDS, (n, length))]


def text_rows(n: int, seed: int) -> pd.DataFrame:
    """Return `n` rows with texts of eight random words, each in a separate group."""
    ids = [f"t{seed}-{i:06d}" for i in range(n)]
    return pd.DataFrame({"id": ids, "group": ids, "text": random_texts(n, seed), "label": np.array(LABELS)[np.arange(n) % 3]})


def text_evidence(n: int = 400, champion: bool = False, **changes: Any) -> Evidence:
    """Return the evidence on `n` test rows with texts, none of which is in the 3 n training rows."""
    candidate = answered(np.arange(n) % 5 != 0)
    rows = text_rows(n, 1).assign(id=candidate.ids, group=candidate.groups, label=candidate.expected)
    known = {"rows": rows, "train": text_rows(3 * n, 2), **changes}
    return against(candidate, candidate if champion else None, **known)


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


def faults(name: str, **settings: Any) -> list[str]:
    """Return what is wrong with the settings of a gate, for a task with a share and a metric from -1 to 1."""
    params = gates.load(name).Params.parse(settings, f"gates.{name}")
    return list(params.faults({"accuracy": (0.0, 1.0), "kappa": (-1.0, 1.0)}, ("tfidf",)))


def decided(name: str, evidence: Evidence, **settings: Any) -> GateResult:
    """Return the result of one gate, corrected without any other gate, with its checked remedies."""
    section = gates.load(name).Params.model_validate(settings)
    results = correct_tests([gates.load(name).decide(evidence, section).model_copy(update={"role": section.role})])
    (result,) = with_checked_remedies(evidence, {name: section}, results)
    return result


def advised(result: GateResult) -> tuple[Outcome, dict[str, Any]]:
    """Return the outcome that the advice of a result states, and the settings that it names."""
    outcome, _, rest = str(result.change).partition(" with ")
    settings: dict[str, Any] = {}
    for path, value in re.findall(rf"`gates\.{result.gate}\.([\w.]+): ([^`]+)`", rest):
        section = settings
        *parents, name = path.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = yaml.safe_load(value)
    return Outcome(outcome), settings


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
