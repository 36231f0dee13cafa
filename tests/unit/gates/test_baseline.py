import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from tests.support.gate_cases import advised, against, answered, decided, faults, gained_and_lost


def baseline(right: int, baseline_right: int, n: int = 600, **settings):
    evidence = against(answered(np.arange(n) < right), None, baselines={"tfidf": answered(np.arange(n) < baseline_right)})
    return decided("baseline", evidence, **settings)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize(
    ("right", "outcome"), [(500, Outcome.PASS), (451, Outcome.INCONCLUSIVE), (450, Outcome.INCONCLUSIVE), (400, Outcome.FAIL)]
)
def test_difference_decides_by_its_interval(metric, right, outcome):
    assert baseline(right, 450, metric=metric).outcome is outcome


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_margin_requires_a_larger_gain(metric):
    assert baseline(500, 450, margin=0.05, metric=metric).outcome is Outcome.PASS
    assert baseline(500, 450, margin=0.08, metric=metric).outcome is Outcome.INCONCLUSIVE
    assert baseline(500, 450, margin=0.12, metric=metric).outcome is Outcome.FAIL


def test_reason_contains_baseline_and_setting():
    reason = baseline(400, 450, metric="accuracy").reason

    assert reason.startswith("accuracy difference -0.083 is not above gates.baseline.margin 0 over tfidf (90 % interval -0.1")


def test_configured_baseline_is_used():
    right = answered(np.arange(600) < 450)
    evidence = against(right, None, baselines={"tfidf": right, "majority": answered(np.arange(600) < 200)})

    assert decided("baseline", evidence, against="majority").outcome is Outcome.PASS
    assert decided("baseline", evidence, against="tfidf").outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("baseline_right", "outcome", "named"),
    [
        ({"majority": 200, "tfidf": 450}, Outcome.PASS, "tfidf"),
        ({"majority": 500, "tfidf": 450}, Outcome.INCONCLUSIVE, "majority"),
        ({"majority": 560, "tfidf": 100}, Outcome.FAIL, "majority"),
    ],
)
def test_strongest_requires_beating_every_baseline(baseline_right, outcome, named):
    others = {name: answered(np.arange(600) < right) for name, right in baseline_right.items()}
    result = decided("baseline", against(answered(np.arange(600) < 500), None, baselines=others), against="strongest", metric="accuracy")

    assert result.outcome is outcome
    assert f"over {named} " in result.reason
    assert {way.name for way in result.hypotheses} == {"not better than majority", "not better than tfidf"}


def test_missing_baseline_is_inconclusive():
    result = decided("baseline", against(answered(np.ones(60, bool)), None, baselines={"majority": answered(np.ones(60, bool))}))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.reason == "gates.baseline.against: no predictions of 'tfidf'; available: majority"


def compared(rights: dict[str, int], scores: dict[str, float], method: str = "full", **settings):
    """Return the result for a candidate with 500 of 600 rows right; `scores` are on validation."""
    others = {name: answered(np.arange(600) < right) for name, right in rights.items()}
    known = {name: {"accuracy": score} for name, score in scores.items()}
    evidence = against(answered(np.arange(600) < 500), None, baselines=others, baseline_scores=known, method=method)
    return decided("baseline", evidence, metric="accuracy", **{"against": "best", **settings})


def test_best_is_chosen_on_validation_rows():
    result = compared({"tfidf": 450, "probe": 560}, {"tfidf": 0.9, "probe": 0.8})

    assert result.outcome is Outcome.PASS
    assert "over tfidf, the best baseline on validation (90 % interval " in result.reason
    assert [way.name for way in result.hypotheses] == ["not better than tfidf"]


def test_worse_than_the_best_baseline_is_rejected():
    assert compared({"tfidf": 450, "probe": 560}, {"tfidf": 0.8, "probe": 0.9}).outcome is Outcome.FAIL


def test_last_of_equal_baselines_is_the_best():
    assert "over probe" in compared({"tfidf": 450, "probe": 450}, {"tfidf": 0.8, "probe": 0.8}).reason


def test_best_needs_validation_scores():
    result = compared({"tfidf": 450}, {})

    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.reason == "gates.baseline.against: no validation scores of 'best'; available: tfidf"


@pytest.mark.parametrize("selector", ["best", "strongest"])
def test_probe_is_not_compared_with_itself(selector):
    result = compared({"tfidf": 450, "probe": 500}, {"tfidf": 0.8, "probe": 0.9}, method="probe", against=selector)

    assert result.outcome is Outcome.PASS
    assert result.notes == ("the baseline probe is left out: the candidate is itself a linear probe",)


def test_probe_against_the_probe_is_inconclusive():
    result = compared({"tfidf": 450, "probe": 500}, {}, method="probe", against="probe")

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "the candidate is itself a linear probe" in result.reason


@pytest.mark.parametrize("against", ["tfidf", "best", "strongest"])
def test_settings_of_the_task_are_valid(against):
    assert faults("baseline", metric="accuracy", against=against, margin=0.99) == []


def test_settings_that_the_task_lacks_are_listed():
    assert faults("baseline", metric="kapa", against="tf-idf", margin=3) == [
        "metric: unknown metric 'kapa'; did you mean 'kappa'?",
        "against: unknown baseline 'tf-idf'; did you mean 'tfidf'?",
    ]
    assert faults("baseline", metric="kappa", margin=2) == ["margin: expected less than 2, the largest possible difference of the metric"]


@pytest.mark.parametrize(("right", "margin"), [(500, 0.0), (500, 0.08), (500, 0.12)])
def test_advice_has_the_stated_outcome(right, margin):
    result = baseline(right, 450, margin=margin)
    stated, settings = advised(result)

    assert stated is not result.outcome
    assert baseline(right, 450, **settings).outcome is stated


def test_test_rows_in_change_pass():
    def judged(gained: int, lost: int, n: int):
        candidate, other = gained_and_lost(gained, lost, n)
        return decided("baseline", against(candidate, None, baselines={"tfidf": other}), metric="accuracy")

    result = judged(30, 20, 1000)
    needed = int(str(result.change).split("with ")[1].split(" test rows")[0].replace(",", ""))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert judged(30 * needed // 1000, 20 * needed // 1000, needed).outcome is Outcome.PASS


@pytest.mark.parametrize("right", [450, 600])
def test_tie_is_not_decided_by_more_rows(right):
    result = baseline(right, right)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "gates.baseline.margin:" not in str(result.change)  # a margin below 0 is no valid setting
    assert "no number of test rows" in str(result.change)
    assert baseline(400, 450).change is None
