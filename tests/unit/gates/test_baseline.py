import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from tests.support.gate_cases import against, answered, decided


def baseline(mine: int, theirs: int, n: int = 600, **settings):
    evidence = against(answered(np.arange(n) < mine), None, baselines={"tfidf": answered(np.arange(n) < theirs)})
    return decided("baseline", evidence, **settings)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize(
    ("mine", "outcome"), [(500, Outcome.PASS), (451, Outcome.INCONCLUSIVE), (450, Outcome.INCONCLUSIVE), (400, Outcome.FAIL)]
)
def test_the_candidate_must_be_provably_better(metric, mine, outcome):
    assert baseline(mine, 450, metric=metric).outcome is outcome


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_margin_asks_for_more(metric):
    assert baseline(500, 450, margin=0.05, metric=metric).outcome is Outcome.PASS
    assert baseline(500, 450, margin=0.08, metric=metric).outcome is Outcome.INCONCLUSIVE
    assert baseline(500, 450, margin=0.12, metric=metric).outcome is Outcome.FAIL


def test_the_reason_names_baseline_and_setting():
    reason = baseline(400, 450, metric="accuracy").reason

    assert reason.startswith("accuracy difference -0.083 is not above gates.baseline.margin 0 over tfidf (90 % interval -0.1")


def test_the_baseline_that_is_named_is_the_one_that_counts():
    right = answered(np.arange(600) < 450)
    evidence = against(right, None, baselines={"tfidf": right, "majority": answered(np.arange(600) < 200)})

    assert decided("baseline", evidence, against="majority").outcome is Outcome.PASS
    assert decided("baseline", evidence, against="tfidf").outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("theirs", "outcome", "named"),
    [
        ({"majority": 200, "tfidf": 450}, Outcome.PASS, "tfidf"),
        ({"majority": 500, "tfidf": 450}, Outcome.INCONCLUSIVE, "majority"),
        ({"majority": 560, "tfidf": 100}, Outcome.FAIL, "majority"),
    ],
)
def test_the_strongest_baseline_must_be_beaten(theirs, outcome, named):
    others = {name: answered(np.arange(600) < right) for name, right in theirs.items()}
    found = decided("baseline", against(answered(np.arange(600) < 500), None, baselines=others), against="strongest", metric="accuracy")

    assert found.outcome is outcome
    assert f"over {named} " in found.reason
    assert {one.name for one in found.hypotheses} == {"no better than majority", "no better than tfidf"}


def test_a_baseline_that_was_not_evaluated_is_named_and_asks_a_person():
    found = decided("baseline", against(answered(np.ones(60, bool)), None, baselines={"majority": answered(np.ones(60, bool))}))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == "gates.baseline.against: no predictions of 'tfidf'; there are: majority"
