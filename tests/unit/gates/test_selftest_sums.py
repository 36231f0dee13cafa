"""The self-test and the gates where a task has measures of its own."""

from dataclasses import replace

import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.core.errors import SelfTestFailed
from components.gates import Evidence, GatesParams, ReferenceModel, champion
from components.judge import decide
from components.judge.selftest import selftest
from components.judge.selftest.sums import AdditiveSelfTest
from components.model import tasks
from components.model.support.metrics import Metric, f1
from components.stats import AdditiveMetrics
from tests.unit.stats.test_metric_sets import documents, predictions

MEASURES = {"entity_f1": Metric(("hits", "predicted", "expected"), f1, "entities")}
METRICS = {name: {"metric": "entity_f1"} for name in ("floor", "baseline", "champion", "best_champion")}
PARAMS = GatesParams.parse(
    METRICS | {"champion": {"metric": "entity_f1", "also": []}, "floor": {"metric": "entity_f1", "at_least": 0.5}}, "gates"
)


def evidence(count=400, seed=1, **rest) -> Evidence:
    generator = np.random.default_rng(seed)
    theirs = documents(generator, count, 0.7, 0.8, 0.2)
    candidate, other = predictions(np.arange(count), **theirs), predictions(np.arange(count), **theirs)
    yardstick = AdditiveMetrics.from_predictions(candidate, MEASURES, lambda found: found.measured)
    return Evidence(
        candidate, {"tfidf": other}, ReferenceModel("4", other), 10, anchor=ReferenceModel("3", other), yardstick=yardstick, look=1, **rest
    )


def test_gates_that_decide_rightly_are_told_what_they_were_tried_on():
    said = selftest(replace(evidence(), level=0.01), PARAMS)

    assert said[0].startswith("a model against itself: baseline INCONCLUSIVE, champion ")
    assert sum("FAIL; exchanged: every interval mirrored" in one for one in said) == 3
    assert said[-1] == "candidate 6 on this test set: test_budget INCONCLUSIVE"


def test_a_gate_that_asks_for_more_than_the_baseline_may_fail_an_equal_model():
    asked = PARAMS.model_copy(update={"baseline": PARAMS.baseline.model_copy(update={"margin": 0.2})})

    assert selftest(replace(evidence(), level=0.01), asked)[0].startswith("a model against itself: baseline FAIL, champion ")


def test_a_test_set_that_is_too_small_is_said_to_be():
    assert any(
        "can prove nothing on entity_f1: the test set has 40 rows" in one for one in selftest(replace(evidence(40), level=0.01), PARAMS)
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


def middling(task, options, count, generator):
    """Row statistics of a middling model: of numbers that are a little off, or sums of about six a row divided by about ten."""
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
def test_what_is_made_worse_on_a_tasks_measure_is_made_better_on_no_other(name, options):
    task = tasks.load(name, options)
    measures = task.test_metrics
    candidate = predictions(np.arange(300), **middling(task, options, 300, np.random.default_rng(5)))
    yardstick = AdditiveMetrics.from_predictions(candidate, measures, lambda found: found.measured)
    trial = AdditiveSelfTest.of(Evidence(candidate, {}, None, 10, yardstick=yardstick, look=1), PARAMS)

    worse = trial.moved(next(iter(measures)), 0.05)

    assert trial.difference(next(iter(measures)), worse) > 0
    assert all(trial.difference(other, worse) >= -1e-9 for other in measures)


@pytest.mark.parametrize("fault", ["always passes", "never fails", "measures nothing"])
def test_a_gate_that_decides_wrongly_ends_the_run(monkeypatch, fault):
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
        selftest(replace(evidence(), level=0.01), PARAMS)


def test_a_worse_model_fails_and_an_equal_one_passes():
    same = evidence(2000)
    outcomes = {one.gate: one.outcome for one in decide(same, PARAMS)}
    rival = same.champion.predictions
    lost = {**rival.measured, "hits": np.floor(rival.measured["hits"] * 0.8)}
    worse = {one.gate: one.outcome for one in decide(replace(same, candidate=replace(same.candidate, measured=lost)), PARAMS)}

    assert (outcomes["champion"], outcomes["best_champion"], outcomes["floor"]) == (Outcome.PASS,) * 3
    assert (worse["champion"], worse["best_champion"], worse["baseline"]) == (Outcome.FAIL,) * 3


def test_slices_of_the_task_are_compared_by_its_measure():
    import pandas as pd

    same = evidence(600)
    rows = pd.DataFrame({"id": same.candidate.ids, "group": same.candidate.groups, "text": "a text", "label": ""})
    parts = {"kind": ["short" if place % 3 else "" for place in range(600)]}
    lost = same.candidate.measured["hits"].copy()
    lost[1::3] = 0
    found = {
        one.gate: one
        for one in decide(
            replace(same, candidate=replace(same.candidate, measured={**same.candidate.measured, "hits": lost}), rows=rows, parts=parts),
            PARAMS,
        )
    }["slices"]

    assert found.outcome is Outcome.FAIL
    assert any(way.rejected and way.name.startswith("entity_f1 on kind=short") for way in found.hypotheses)
    assert not any("label=" in way.name for way in found.hypotheses)


def test_what_only_classes_have_is_not_asked():
    found = {one.gate: one for one in decide(evidence(), PARAMS)}

    assert (found["calibration"].outcome, found["behaviour"].outcome) == (Outcome.PASS, Outcome.PASS)
    assert (found["calibration"].asked, found["behaviour"].asked) == (False, False)
