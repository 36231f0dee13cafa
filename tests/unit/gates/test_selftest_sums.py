"""The self-test and the gates with task-specific metrics."""

from dataclasses import replace

import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.core.errors import SelfTestFailed
from components.gates import GatesParams, champion
from components.gates.support import Evidence
from components.judge import decide
from components.judge.selftest import selftest
from components.judge.selftest.sums import AdditiveSelfTest
from components.model import tasks
from components.stats.metric_sets import MetricSet
from tests.support.additive_cases import entity_evidence, predictions

METRICS = {name: {"metric": "entity_f1"} for name in ("floor", "baseline", "champion", "best_champion")}
PARAMS = GatesParams.parse(
    METRICS | {"champion": {"metric": "entity_f1", "also": []}, "floor": {"metric": "entity_f1", "at_least": 0.5}}, "gates"
)


def test_correct_gates_pass_the_selftest():
    sentences = selftest(replace(entity_evidence(), level=0.01), PARAMS)

    assert sentences[0].startswith("a model against itself: baseline INCONCLUSIVE, champion ")
    assert sum("FAIL; both models swapped: every interval mirrored" in sentence for sentence in sentences) == 3
    assert sentences[-1] == "candidate 6 on this test set: test_budget INCONCLUSIVE"


def test_baseline_margin_may_fail_an_equal_model():
    params = PARAMS.model_copy(update={"baseline": PARAMS.baseline.model_copy(update={"margin": 0.2})})

    assert selftest(replace(entity_evidence(), level=0.01), params)[0].startswith("a model against itself: baseline FAIL, champion ")


def test_too_small_test_set_is_reported():
    assert any(
        "cannot decide on entity_f1: the test set has 40 rows" in sentence
        for sentence in selftest(replace(entity_evidence(40), level=0.01), PARAMS)
    )


MEASURED = [
    ("causal_lm", {"data": "completion"}),
    ("contrastive", {}),
    ("masked_lm", {}),
    ("question_answering", {}),
    ("sequence_to_sequence", {}),
    ("text_classification", {"kind": "multi"}),
    ("text_classification", {"kind": "ordinal"}),
    ("text_classification", {"kind": "regression"}),
    ("token_classification", {"scheme": "BIO"}),
]


def mediocre(task, options, count, generator):
    """Return row statistics of a mediocre model: numbers off by one, or sums of about six per row divided by about ten."""
    if options.get("kind") in ("ordinal", "regression"):
        expected = generator.integers(1, 6, count)
        off = np.clip(expected + generator.integers(-1, 2, count), 1, 5)
        return task.statistics([str(number) for number in expected], [str(number) for number in off])
    measures = task.test_metrics
    below = {measure.sums[-1] for measure in measures.values()} | {"rows"}
    sums = {name for measure in measures.values() for name in measure.sums}
    found = {name: generator.poisson(10 if name in below else 6, count).astype(np.float64) + 1 for name in sorted(sums)}
    return found | {name: -values for name, values in found.items() if "likelihood" in name} | {"rows": np.ones(count)}


@pytest.mark.parametrize(("name", "options"), MEASURED)
def test_shifted_model_improves_no_other_metric(name, options):
    task = tasks.load(name, options)
    measures = task.test_metrics
    candidate = predictions(np.arange(300), **mediocre(task, options, 300, np.random.default_rng(5)))
    metric_set = MetricSet.from_predictions(candidate, measures, lambda predictions: predictions.measured)
    trial = AdditiveSelfTest.from_evidence(Evidence(candidate, {}, None, 10, metric_set=metric_set, candidate_number=1), PARAMS)

    worse = trial.shifted(next(iter(measures)), 0.05)

    assert trial.difference(next(iter(measures)), worse) > 0
    assert all(trial.difference(other, worse) >= -1e-9 for other in measures)


@pytest.mark.parametrize("fault", ["always passes", "never fails", "measures nothing"])
def test_wrong_gate_fails_the_selftest(monkeypatch, fault):
    right = champion.compare

    def wrong(*args, **rest):
        found = right(*args, **rest)
        if fault == "always passes":
            return found.model_copy(update={"outcome": Outcome.PASS, "hypotheses": ()})
        if fault == "never fails":
            return found.model_copy(update={"hypotheses": ()})
        return found.model_copy(update={"estimate": 0.0})

    monkeypatch.setattr(champion, "compare", wrong)
    with pytest.raises(SelfTestFailed, match="champion"):
        selftest(replace(entity_evidence(), level=0.01), PARAMS)


def test_worse_model_fails_and_equal_model_passes():
    same = entity_evidence(2000)
    outcomes = {result.gate: result.outcome for result in decide(same, PARAMS)}
    champion_predictions = same.champion.predictions
    lost = {**champion_predictions.measured, "hits": np.floor(champion_predictions.measured["hits"] * 0.8)}
    worse = {result.gate: result.outcome for result in decide(replace(same, candidate=replace(same.candidate, measured=lost)), PARAMS)}

    assert (outcomes["champion"], outcomes["best_champion"], outcomes["floor"]) == (Outcome.PASS,) * 3
    assert (worse["champion"], worse["best_champion"], worse["baseline"]) == (Outcome.FAIL,) * 3


def test_task_slices_use_the_task_metric():
    import pandas as pd

    same = entity_evidence(600)
    rows = pd.DataFrame({"id": same.candidate.ids, "group": same.candidate.groups, "text": "a text", "label": ""})
    task_slices = {"kind": ["short" if row % 3 else "" for row in range(600)]}
    lost = same.candidate.measured["hits"].copy()
    lost[1::3] = 0
    found = {
        result.gate: result
        for result in decide(
            replace(
                same,
                candidate=replace(same.candidate, measured={**same.candidate.measured, "hits": lost}),
                rows=rows,
                task_slices=task_slices,
            ),
            PARAMS,
        )
    }["slices"]

    assert found.outcome is Outcome.FAIL
    assert any(way.rejected and way.name.startswith("entity_f1 on kind=short") for way in found.hypotheses)
    assert not any("label=" in way.name for way in found.hypotheses)


def test_gates_for_classes_are_not_applicable():
    found = {result.gate: result for result in decide(entity_evidence(), PARAMS)}

    assert (found["calibration"].applicable, found["behaviour"].applicable) == (False, False)
