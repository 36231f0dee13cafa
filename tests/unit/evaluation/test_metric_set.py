"""The metrics of classification are ordinary metrics: one definition is enough for evaluation, gates and self-test."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import BadParams
from components.evaluation.evaluate import compute_metrics, flatten
from components.evaluation.metric_set import decidable_metrics, metric_set, metrics_of
from components.gates import GatesParams
from components.gates.support import Evidence, ReferenceModel
from components.judge import check_metrics, decide
from components.judge.selftest import selftest
from components.model import tasks
from components.model.support.metrics import Metric, ratio
from components.stats.scores import CLASSIFICATION

LABELS = ("a", "b", "c")
BALANCED = Metric(("class_hits", "class_expected"), lambda hits, expected: ratio(hits, expected).mean(axis=-1), "mean recall of the labels")
SECTIONS = {name: {"metric": "balanced_accuracy"} for name in ("floor", "baseline", "champion")}
PARAMS = GatesParams.parse({**SECTIONS, "champion": {"metric": "balanced_accuracy", "margin": 0.05, "also": []}}, "gates")


def model(right: float, seed: int, groups: int | None = None, rows: int = 900) -> Predictions:
    """Return predictions with a share `right` of right answers for labels of unequal frequency."""
    draw, names = np.random.default_rng(seed), np.array(LABELS)
    expected = np.arange(rows) % 10 // 4
    predicted = np.where(draw.random(rows) < right, expected, (expected + 1) % 3)
    ids = np.array([f"r{row:04}" for row in range(rows)])
    names_of_groups = ids if groups is None else np.array([f"g{row % groups}" for row in range(rows)])
    return Predictions(ids, names_of_groups, names[expected], names[predicted], np.eye(3)[predicted], LABELS)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> tasks.Task:
    """Text classification with one more metric."""
    monkeypatch.setitem(CLASSIFICATION, "balanced_accuracy", BALANCED)
    return tasks.load("text_classification")


def results(candidate: Predictions, champion: Predictions, task: tasks.Task) -> dict[str, GateResult]:
    evidence = Evidence(candidate, {"tfidf": champion}, ReferenceModel("4", champion), 10, metric_set=metric_set(task, candidate, 10))
    return {result.gate: result for result in decide(evidence, PARAMS)}


@pytest.mark.parametrize("groups", [None, 90])
def test_a_new_metric_is_evaluated_with_an_interval(task, groups):
    candidate, baseline = model(0.9, 1, groups), model(0.8, 2, groups)
    metrics = compute_metrics(task, candidate, {"tfidf": baseline}, SimpleNamespace(test_digest="t", snapshot="s"), "m", 10)

    estimate, gain = metrics.headline["balanced_accuracy"], metrics.differences["tfidf"]["balanced_accuracy"]
    values = [balanced_accuracy_score(each.expected, each.predicted) for each in (candidate, baseline)]
    assert estimate.value == pytest.approx(values[0])
    assert estimate.low < estimate.value < estimate.high
    assert gain.value == pytest.approx(values[0] - values[1])
    assert metrics.says == {"balanced_accuracy": BALANCED.description}
    assert flatten(metrics)["tfidf_balanced_accuracy"] == pytest.approx(values[1])


def test_a_gate_decides_on_a_new_metric(task):
    check_metrics(PARAMS, decidable_metrics(task), task.baselines)
    equal, worse = results(model(0.9, 1), model(0.9, 2), task), results(model(0.7, 1), model(0.9, 2), task)

    assert (equal["floor"].outcome, equal["champion"].outcome) == (Outcome.PASS, Outcome.PASS)
    assert equal["champion"].metric == "balanced_accuracy"
    assert worse["champion"].outcome is Outcome.FAIL
    assert not any("cross-check" in note for note in equal["champion"].notes)  # only of a function of class counts


def test_the_self_test_names_a_metric_that_it_does_not_cover(task):
    candidate = model(0.9, 1)
    evidence = Evidence(candidate, {}, ReferenceModel("4", candidate), 10, level=0.01, metric_set=metric_set(task, candidate, 10))
    sentences = selftest(evidence, PARAMS)

    assert "champion decides on balanced_accuracy, which the self-test does not cover" in sentences
    assert any(sentence.startswith("the champion against itself: best_champion PASS") for sentence in sentences)


def test_a_metric_that_is_only_reported_is_refused_by_gates():
    task = tasks.load("text_classification")

    assert set(metrics_of(task)) - set(decidable_metrics(task)) == {"micro_f1", "weighted_f1"}
    with pytest.raises(BadParams, match=r"gates\.floor\.metric: unknown metric 'micro_f1'"):
        check_metrics(GatesParams.parse({"floor": {"metric": "micro_f1"}}, "gates"), decidable_metrics(task), task.baselines)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_value_of_sums_equals_the_score(name):
    candidate = model(0.8, 1)
    measured, metric = metric_set(tasks.load("text_classification"), candidate, 250), CLASSIFICATION[name]  # `c` is too rare
    statistics = {each: measured.truth.statistic(each, candidate.predicted) for each in metric.sums}

    assert metric.of(statistics) == pytest.approx(measured.score(name, candidate).value)
    assert (name == "macro_f1") == (measured.estimator(name).left_out == ("c",))
