import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss, log_loss

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import BadParams
from components.gates import calibration
from components.gates.support import Evidence, ReferenceModel
from tests.support.gate_cases import LABELS, advised, against, answered, decided


def softmax_model(logits: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None) -> Predictions:
    """Return a model with the softmax of `logits` (rows, 3) as its probabilities."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids, names = np.array([f"r{i:05d}" for i in range(len(truth))]), np.array(LABELS)
    return Predictions(ids, ids if groups is None else groups, names[truth], names[probabilities.argmax(axis=1)], probabilities, LABELS)


def calibrated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels drawn from them: perfectly calibrated probabilities."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, 3))
    return logits, (logits + generator.gumbel(size=(n, 3))).argmax(axis=1)


def judge(candidate: np.ndarray, champion: np.ndarray, truth: np.ndarray, groups: np.ndarray | None = None, **settings) -> GateResult:
    return decided("calibration", against(softmax_model(candidate, truth, groups), softmax_model(champion, truth, groups)), **settings)


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_overconfident_candidate_is_rejected(metric):
    logits, truth = calibrated(3000)
    result = judge(3 * logits, logits, truth, metric=metric)

    assert result.outcome is Outcome.FAIL
    assert f"{metric} is worse than that of champion version 4" in result.reason


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_better_calibrated_candidate_passes(metric):
    logits, truth = calibrated(3000)

    assert judge(logits, 3 * logits, truth, metric=metric).outcome is Outcome.PASS


def test_equal_model_passes_with_enough_rows():
    assert judge(*[calibrated(3000)[0]] * 2, calibrated(3000)[1]).outcome is Outcome.PASS
    assert judge(*[calibrated(100)[0]] * 2, calibrated(100)[1]).outcome is Outcome.INCONCLUSIVE


def test_difference_within_the_margin_cannot_reject():
    logits, truth = calibrated(3000)
    result = judge(1.2 * logits, logits, truth, margin=0.05)

    assert result.outcome is Outcome.PASS
    assert [way.p for way in result.hypotheses] == [1.0]


def test_scores_equal_scikit_learn():
    logits, truth = calibrated(400)
    model = softmax_model(logits, truth)

    assert calibration.terms("log_loss", model).mean() == pytest.approx(log_loss(truth, model.probabilities))
    brier = brier_score_loss(model.expected, model.probabilities, labels=list(LABELS), scale_by_half=False)
    assert calibration.terms("brier", model).mean() == pytest.approx(brier)


@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_p_equals_the_paired_t_test(metric):
    logits, truth = calibrated(300)
    candidate, champion = softmax_model(1.3 * logits, truth), softmax_model(logits, truth)
    result = decided("calibration", against(candidate, champion), metric=metric, margin=1e-4)
    expected = stats.ttest_rel(calibration.terms(metric, candidate), calibration.terms(metric, champion), alternative="greater")

    assert result.hypotheses[0].p == pytest.approx(expected.pvalue)


def test_swapping_the_models_mirrors_the_interval():
    logits, truth = calibrated(500)
    forth, back = judge(1.3 * logits, logits, truth), judge(logits, 1.3 * logits, truth)

    assert (forth.estimate, forth.low, forth.high) == pytest.approx((-back.estimate, -back.high, -back.low))


def test_log_loss_of_a_certain_mistake_is_bounded():
    truth = np.zeros(2, int)
    model = dataclasses.replace(softmax_model(np.zeros((2, 3)), truth), probabilities=np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))

    assert calibration.terms("log_loss", model).tolist() == pytest.approx([13.8155, 0.0], abs=1e-4)


def test_rows_with_labels_new_to_the_champion_are_excluded():
    logits, truth = calibrated(3000)
    candidate = softmax_model(logits, truth)
    two = np.exp(logits[:, :2]) / np.exp(logits[:, :2]).sum(axis=1, keepdims=True)
    champion = dataclasses.replace(candidate, predicted=np.array(LABELS)[two.argmax(axis=1)], probabilities=two, labels=LABELS[:2])
    result = decided("calibration", against(candidate, champion))

    assert result.n == int(np.sum(truth < 2))
    assert "excluded from the comparison; each model's probabilities are over its own labels" in " ".join(result.notes)


def test_groups_are_units():
    logits, truth = calibrated(1000)
    groups = np.array([f"g{i // 25}" for i in range(1000)])
    result = judge(3 * logits, logits, truth, groups)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "40 groups" in result.reason
    assert [way.p for way in result.hypotheses] == [1.0]


def test_both_models_have_calibration_error_and_reliability():
    logits, truth = calibrated(2000)
    result = judge(3 * logits, logits, truth)
    rows = result.tables[0].rows

    assert [note.split(":")[0] for note in result.notes[:2]] == ["calibration error of the candidate", "calibration error of the champion"]
    assert sum(row[3] for row in rows if row[0] == "candidate") == sum(row[3] for row in rows if row[0] == "champion") == 2000


def test_notes_contain_both_scores():
    logits, truth = calibrated(2000)
    result = judge(3 * logits, logits, truth)
    candidate, champion = (calibration.terms("brier", softmax_model(factor * logits, truth)).mean() for factor in (3, 1))

    assert result.notes[2].startswith(f"brier: candidate {candidate:.4f} (90 % interval ")
    assert f"champion {champion:.4f} (" in result.notes[2]


def test_invalid_probabilities_are_inconclusive():
    logits, truth = calibrated(200)
    good = softmax_model(logits, truth)
    broken = dataclasses.replace(good, probabilities=np.where(np.arange(200)[:, None] < 7, np.nan, good.probabilities))

    for pair, name in [((broken, good), "the candidate"), ((good, broken), "champion version 4")]:
        result = decided("calibration", against(*pair))
        assert result.outcome is Outcome.INCONCLUSIVE
        assert f"{name} has invalid probabilities on 7 of 200 rows" in result.reason


def test_missing_champion_is_not_applicable_and_unscorable_is_inconclusive():
    logits, truth = calibrated(200)
    model = softmax_model(logits, truth)
    unscorable = dataclasses.replace(against(model, None), champion=ReferenceModel("3", None, "it is gone"))

    assert decided("calibration", against(model, None)).outcome is Outcome.NOT_APPLICABLE
    assert decided("calibration", unscorable).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("metric", ["brier", "log_loss"])
def test_few_rows_are_inconclusive(n, right, metric):
    model = answered(np.full(n, right))
    result = decided("calibration", against(model, model), metric=metric)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert np.isfinite([result.estimate, result.low, result.high, *(way.p for way in result.hypotheses)]).all()


@pytest.mark.parametrize(("raw", "message"), [({"metric": "breir"}, "metric"), ({"margin": 0}, "margin"), ({"margn": 1}, "did you mean")])
def test_invalid_setting_is_refused(raw, message):
    with pytest.raises(BadParams, match=message):
        calibration.Params.parse(raw, "gates.calibration")


@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 500])
def test_equal_model_is_rejected_in_at_most_5_percent(n):
    """Both models add noise of the same size to the true logits, so neither is better."""
    repetitions, rejected = 300, 0
    for seed in range(repetitions):
        logits, truth = calibrated(n, seed)
        candidate, champion = logits + np.random.default_rng([seed, 1]).normal(0, 0.7, (2, n, 3))
        evidence: Evidence = against(softmax_model(candidate, truth), softmax_model(champion, truth))
        rejected += decided("calibration", evidence, margin=1e-6).outcome is Outcome.FAIL

    assert rejected / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


@pytest.mark.parametrize(("scale", "margin"), [(1.15, 0.004), (1.15, 0.05)])
def test_advice_has_the_stated_outcome(scale, margin):
    logits, truth = calibrated(1000)
    result = judge(scale * logits, logits, truth, margin=margin)
    stated, settings = advised(result)

    assert stated is not result.outcome
    assert judge(scale * logits, logits, truth, **settings).outcome is stated
