import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss, log_loss

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import BadParams
from components.gates import Evidence, ReferenceModel, calibration
from tests.support.gate_cases import LABELS, against, answered, decided


def spoken(logits: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None) -> Predictions:
    """A model with the softmax of `logits` (rows, 3) as its probabilities."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids, names = np.array([f"r{i:05d}" for i in range(len(truth))]), np.array(LABELS)
    return Predictions(ids, ids if groups is None else groups, names[truth], names[probabilities.argmax(axis=1)], probabilities, LABELS)


def calibrated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and truths drawn from them: probabilities that mean exactly what they say."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, 3))
    return logits, (logits + generator.gumbel(size=(n, 3))).argmax(axis=1)


def held(mine: np.ndarray, theirs: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None, **settings) -> GateResult:
    return decided("calibration", against(spoken(mine, truth, groups), spoken(theirs, truth, groups)), **settings)


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_an_overconfident_candidate_with_the_same_answers_is_rejected(metric):
    logits, truth = calibrated(3000)
    found = held(3 * logits, logits, truth, metric=metric)

    assert found.outcome is Outcome.FAIL
    assert f"{metric} is worse than that of champion version 4" in found.reason


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_a_better_calibrated_candidate_passes(metric):
    logits, truth = calibrated(3000)

    assert held(logits, 3 * logits, truth, metric=metric).outcome is Outcome.PASS


def test_the_champion_against_itself_passes_when_there_are_rows_enough():
    assert held(*[calibrated(3000)[0]] * 2, calibrated(3000)[1]).outcome is Outcome.PASS
    assert held(*[calibrated(100)[0]] * 2, calibrated(100)[1]).outcome is Outcome.INCONCLUSIVE


def test_within_the_margin_the_hypothesis_stays_in_the_family_and_cannot_reject():
    logits, truth = calibrated(3000)
    found = held(1.2 * logits, logits, truth, margin=0.05)

    assert found.outcome is Outcome.PASS
    assert [one.p for one in found.hypotheses] == [1.0]


def test_the_scores_are_those_of_scikit_learn():
    logits, truth = calibrated(400)
    model = spoken(logits, truth)

    assert calibration.terms("log_loss", model).mean() == pytest.approx(log_loss(truth, model.probabilities))
    brier = brier_score_loss(model.expected, model.probabilities, labels=list(LABELS), scale_by_half=False)
    assert calibration.terms("brier", model).mean() == pytest.approx(brier)


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_the_p_is_that_of_the_paired_t_test(metric):
    logits, truth = calibrated(300)
    mine, theirs = spoken(1.3 * logits, truth), spoken(logits, truth)
    found = decided("calibration", against(mine, theirs), metric=metric, margin=1e-4)
    expected = stats.ttest_rel(calibration.terms(metric, mine), calibration.terms(metric, theirs), alternative="greater")

    assert found.hypotheses[0].p == pytest.approx(expected.pvalue)


def test_exchanging_the_models_mirrors_the_interval():
    logits, truth = calibrated(500)
    there, back = held(1.3 * logits, logits, truth), held(logits, 1.3 * logits, truth)

    assert (there.estimate, there.low, there.high) == pytest.approx((-back.estimate, -back.high, -back.low))


def test_one_certain_mistake_costs_log_loss_no_more_than_its_bound():
    truth = np.zeros(2, int)
    model = dataclasses.replace(spoken(np.zeros((2, 3)), truth), probabilities=np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))

    assert calibration.terms("log_loss", model).tolist() == pytest.approx([13.8155, 0.0], abs=1e-4)


def test_rows_with_a_label_that_the_champion_lacks_are_left_out():
    logits, truth = calibrated(3000)
    candidate = spoken(logits, truth)
    two = np.exp(logits[:, :2]) / np.exp(logits[:, :2]).sum(axis=1, keepdims=True)
    champion = dataclasses.replace(candidate, predicted=np.array(LABELS)[two.argmax(axis=1)], probabilities=two, labels=LABELS[:2])
    found = decided("calibration", against(candidate, champion))

    assert found.n == int(np.sum(truth < 2))
    assert "left out of the comparison; the probabilities are those that each model serves" in " ".join(found.notes)


def test_groups_are_the_units():
    logits, truth = calibrated(1000)
    groups = np.array([f"g{i // 25}" for i in range(1000)])
    found = held(3 * logits, logits, truth, groups)

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "40 groups" in found.reason
    assert [one.p for one in found.hypotheses] == [1.0]


def test_calibration_error_and_reliability_are_shown_for_both():
    logits, truth = calibrated(2000)
    found = held(3 * logits, logits, truth)
    rows = found.tables[0].rows

    assert [note.split(":")[0] for note in found.notes[:2]] == ["calibration error of the candidate", "calibration error of the champion"]
    assert sum(row[3] for row in rows if row[0] == "candidate") == sum(row[3] for row in rows if row[0] == "champion") == 2000


def test_the_scores_of_both_stand_beside_the_difference():
    logits, truth = calibrated(2000)
    found = held(3 * logits, logits, truth)
    mine, theirs = (calibration.terms("brier", spoken(factor * logits, truth)).mean() for factor in (3, 1))

    assert found.notes[2].startswith(f"brier: candidate {mine:.4f} (90 % interval ")
    assert f"champion {theirs:.4f} (" in found.notes[2]


def test_probabilities_that_are_not_numbers_settle_nothing():
    logits, truth = calibrated(200)
    good = spoken(logits, truth)
    broken = dataclasses.replace(good, probabilities=np.where(np.arange(200)[:, None] < 7, np.nan, good.probabilities))

    for pair, name in [((broken, good), "the candidate"), ((good, broken), "champion version 4")]:
        found = decided("calibration", against(*pair))
        assert found.outcome is Outcome.INCONCLUSIVE
        assert f"{name} has probabilities that are none on 7 of 200 rows" in found.reason


def test_without_a_champion_there_is_none_to_be_worse_than():
    logits, truth = calibrated(200)
    model = spoken(logits, truth)
    gone = dataclasses.replace(against(model, None), champion=ReferenceModel("3", None, "it is gone"))

    assert decided("calibration", against(model, None)).outcome is Outcome.PASS
    assert decided("calibration", gone).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_a_handful_of_rows_settles_nothing_and_breaks_nothing(n, right, metric):
    model = answered(np.full(n, right))
    found = decided("calibration", against(model, model), metric=metric)

    assert found.outcome is Outcome.INCONCLUSIVE
    assert np.isfinite([found.estimate, found.low, found.high, *(one.p for one in found.hypotheses)]).all()


@pytest.mark.parametrize(("raw", "message"), [({"metric": "breir"}, "metric"), ({"margin": 0}, "margin"), ({"margn": 1}, "did you mean")])
def test_a_wrong_setting_is_named(raw, message):
    with pytest.raises(BadParams, match=message):
        calibration.Params.parse(raw, "gates.calibration")


@pytest.mark.parametrize("n", [200, 500])
def test_an_equal_model_is_called_worse_in_no_more_than_five_of_a_hundred_test_sets(n):
    """Both models see the truth's logits through noise of the same size, so neither is better."""
    repetitions, rejected = 300, 0
    for seed in range(repetitions):
        logits, truth = calibrated(n, seed)
        mine, theirs = logits + np.random.default_rng([seed, 1]).normal(0, 0.7, (2, n, 3))
        evidence: Evidence = against(spoken(mine, truth), spoken(theirs, truth))
        rejected += decided("calibration", evidence, margin=1e-6).outcome is Outcome.FAIL

    assert rejected / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
