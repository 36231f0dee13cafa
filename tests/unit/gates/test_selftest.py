"""The self-test accepts correct gates on every test set, however small, and catches broken ones."""

import dataclasses

import numpy as np
import pytest

from components import gates
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import SelfTestFailed
from components.gates import GatesParams, champion
from components.gates.support import Evidence, ReferenceModel
from components.judge import multiple_testing
from components.judge.selftest import expectations, selftest

SIZES = [20, 60, 200, 2000]


def model(rows: int, classes: int = 6, accuracy: float = 0.8, groups: int | None = None, seed: int = 1) -> Predictions:
    """Return a model with this accuracy and equally frequent labels; `groups` are groups of equal mean size."""
    rng = np.random.default_rng(seed)
    expected = rng.permutation(np.arange(rows) % classes)
    wrong = (expected + rng.integers(1, max(classes, 2), rows)) % classes
    predicted = np.where(rng.random(rows) < accuracy, expected, wrong)
    names = np.array([f"label {index}" for index in range(classes)])
    ids = np.array([f"r{row:05d}" for row in range(rows)])
    group_names = ids if groups is None else np.array([f"g{group}" for group in rng.integers(0, groups, rows)])
    probabilities = np.full((rows, classes), 0.2 / classes) + 0.8 * np.eye(classes)[predicted]
    return Predictions(ids, group_names, names[expected], names[predicted], probabilities, tuple(names.tolist()))


def settings(metric: str = "accuracy", **sections: dict) -> GatesParams:
    raw = {name: {"metric": metric} | sections.get(name, {}) for name in ("floor", "baseline", "champion", "best_champion")}
    return GatesParams.parse({**raw, **{name: section for name, section in sections.items() if name not in raw}}, "gates")


def run(reference: Predictions, params: GatesParams, min_class_units: int = 10) -> dict[str, str]:
    evidence = Evidence(reference, {}, ReferenceModel("4", reference), min_class_units, level=params.test_budget.level)
    return {sentence.split(": ")[0]: sentence for sentence in selftest(evidence, params)}


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize("classes", [2, 6, 22])
@pytest.mark.parametrize(("rows", "groups"), [(20, None), (60, 25), (200, None), (200, 70), (2000, None), (2000, 600)])
def test_correct_gates_pass_on_every_test_set(rows, groups, classes, metric):
    sentences = selftest(
        Evidence(model(rows, classes, groups=groups), {}, ReferenceModel("4", model(rows, classes, groups=groups)), 10, level=0.01),
        settings(metric),
    )

    assert len(sentences) >= 6


def test_sentences_describe_every_test():
    sentences = run(model(2000), settings())

    assert sentences == {
        "the champion against itself": "the champion against itself: baseline INCONCLUSIVE, champion PASS, best_champion PASS, "
        "as computed for 2,000 test units",
        "80 correct answers flipped": "80 correct answers flipped: baseline FAIL, champion FAIL, best_champion FAIL",
        "both models swapped": "both models swapped: every interval mirrored, baseline PASS, champion PASS, best_champion PASS",
        "answers shuffled over the rows": "answers shuffled over the rows: baseline FAIL, champion FAIL, best_champion FAIL",
        "20 errors corrected": "20 errors corrected: baseline PASS, champion PASS, best_champion PASS",
        "always correct": "always correct: baseline PASS, champion PASS, best_champion PASS, floor PASS; "
        "always wrong: baseline FAIL, champion FAIL, best_champion FAIL, floor FAIL",
        "candidate 6 on this test set": "candidate 6 on this test set: test_budget INCONCLUSIVE",
    }


def test_candidate_is_the_reference_without_a_champion():
    sentences = selftest(Evidence(model(200), {}, None, 10, level=0.01), settings())

    assert sentences[0].startswith("the candidate against itself")


@pytest.mark.parametrize(("margin", "level"), [(0.02, 0.01), (0.02, 0.05), (0.05, 0.05)])
def test_equal_model_passes_from_the_computed_rows(margin, level):
    params = settings(champion={"margin": margin}, test_budget={"at_most": round(0.05 / level)})
    z = {0.05: 1.6448536, 0.01: 2.3263479}[level]
    least = int(np.floor(z**2 * (1 - margin) / margin)) + 1  # Tango's interval of a model against itself is ±z²/(n + z²)
    outcomes = [run(model(rows), params)["the champion against itself"].split("champion ")[2][:4] for rows in (least - 1, least)]

    assert outcomes == ["INCO", "PASS"]


def test_too_few_groups_pass_no_model():
    sentences = run(model(2000, groups=49), settings())

    assert "champion cannot decide on accuracy and passes none of these models" in sentences
    assert not any("champion PASS" in sentence for sentence in sentences.values())


def test_rare_classes_pass_no_model_on_macro_f1():
    sentences = run(model(60, classes=22), settings("macro_f1"))

    assert "no class has 10 test rows" in sentences["champion cannot decide on macro_f1 and passes none of these models"]
    assert not any(" PASS" in sentence for sentence in sentences.values())


@pytest.mark.parametrize(
    ("accuracy", "text"),
    [(1.0, "the champion has no error that could be corrected"), (0.9, "errors corrected (all of them)")],
)
def test_few_errors_are_corrected_as_far_as_possible(accuracy, text):
    assert any(text in sentence for sentence in run(model(60, accuracy=accuracy), settings()))


def test_always_wrong_model_cannot_be_made_worse():
    assert "the champion has no correct answer, so no worse model could be made" in run(model(200, accuracy=-1), settings())


def test_unknown_labels_are_excluded():
    reference = model(200)
    fewer, none = (dataclasses.replace(reference, labels=labels) for labels in (reference.labels[:3], ("another",)))

    assert run(fewer, settings())["the champion against itself"].endswith("for 101 test units")
    assert list(run(none, settings())) == ["no test row has a label that the candidate knows"]


def test_constant_answers_are_not_shuffled():
    reference = model(200, classes=2)
    constant = Predictions(
        reference.ids, reference.groups, reference.expected, np.full(200, "label 1"), reference.probabilities, reference.labels
    )

    assert "the champion gives every row the same answer, so its answers could not be shuffled" in run(constant, settings())


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("classes", [1, 2])
def test_few_rows_pass_the_selftest(rows, classes):
    assert run(model(rows, classes), settings(), min_class_units=1)


@pytest.mark.parametrize("margin", [0.1, 0.2, 0.5, 0.7])
@pytest.mark.parametrize("groups", [None, 300])
def test_wide_margin_of_macro_f1_on_one_class(margin, groups):
    """F1 of one class rises from 0.53 to 1 if two thirds of the rows are corrected: less than the sum of the row weights."""
    assert run(model(1000, 1, 1.0, groups), settings("macro_f1", baseline={"margin": margin}), min_class_units=1)


def test_level_above_the_test_budget_is_refused():
    reference = model(200)

    with pytest.raises(SelfTestFailed, match=r"at most 1.00% per candidate \(gates.test_budget\), found 5.00%"):
        selftest(Evidence(reference, {}, ReferenceModel("4", reference), 10, level=0.05), settings())


def test_no_comparing_gate_is_reported():
    off = {name: {"role": "off"} for name in ("baseline", "champion", "best_champion")}

    assert any("no comparing gate can reject" in sentence for sentence in run(model(200), settings(**off)).values())


def always(outcome: Outcome, name: str, correct):
    """Return a gate with correct estimates and a constant outcome."""

    def decide(evidence: Evidence, params) -> GateResult:
        return correct(evidence, params).model_copy(update={"gate": name, "outcome": outcome, "hypotheses": ()})

    return decide


@pytest.mark.slow
@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("name", ["baseline", "champion", "best_champion", "floor", "test_budget"])
@pytest.mark.parametrize("rows", SIZES)
def test_constant_outcome_is_caught(monkeypatch, name, outcome, rows):
    gate = gates.load(name)
    monkeypatch.setattr(gate, "decide", always(outcome, name, gate.decide))

    with pytest.raises(SelfTestFailed, match=rf"the self-test of the gates failed: .*{name}"):
        run(model(rows), settings())


def swapped(compare):
    """Return a comparison with candidate and champion swapped."""

    def decide(gate, evidence, other, *rest):
        turned = Evidence(other, {}, None, evidence.min_class_units, level=evidence.level, crosscheck=False)
        return compare(gate, turned, evidence.candidate, *rest)

    return decide


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize(("rows", "groups"), [(20, None), (60, None), (200, 70), (2000, None), (2000, 600)])
def test_swapped_candidate_and_champion_is_caught(monkeypatch, rows, groups, metric):
    monkeypatch.setattr(champion, "compare", swapped(champion.compare))

    with pytest.raises(SelfTestFailed, match="champion: estimate"):
        run(model(rows, groups=groups), settings(metric))


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("sizes", [None, 3])
def test_flipped_sign_is_caught(monkeypatch, rows, sizes):
    correct = Evidence.difference

    def flipped(self, metric, other):
        estimate = correct(self, metric, other)
        return estimate.model_copy(update={"value": -estimate.value, "low": -estimate.high, "high": -estimate.low})

    monkeypatch.setattr(Evidence, "difference", flipped)

    with pytest.raises(SelfTestFailed):
        run(model(rows, groups=rows // sizes if sizes else None), settings())


@pytest.mark.parametrize("rows", SIZES)
def test_p_value_of_the_wrong_side_is_caught(monkeypatch, rows):
    correct = Evidence.difference_below
    monkeypatch.setattr(Evidence, "difference_below", lambda *args: 1 - correct(*args))

    with pytest.raises(SelfTestFailed):
        run(model(rows), settings())


@pytest.mark.parametrize("rows", SIZES)
def test_intervals_at_another_level_are_caught(monkeypatch, rows):
    monkeypatch.setattr(Evidence, "confidence", 0.9)

    with pytest.raises(SelfTestFailed, match="interval of a model against itself"):
        run(model(rows), settings())


@pytest.mark.parametrize("rows", SIZES)
def test_missing_correction_is_caught(monkeypatch, rows):
    monkeypatch.setattr(multiple_testing, "holm", np.asarray)

    with pytest.raises(SelfTestFailed, match="was corrected to"):
        run(model(rows), settings())


@pytest.mark.parametrize("outcome", list(Outcome))
def test_constant_combination_is_caught(monkeypatch, outcome):
    monkeypatch.setattr(expectations, "combine", lambda results: (outcome, "constant"))

    with pytest.raises(SelfTestFailed, match=f"was combined to {outcome}"):
        run(model(200), settings())


def test_rejection_without_fail_is_caught(monkeypatch):
    monkeypatch.setattr(multiple_testing, "_reject", lambda result: result)

    with pytest.raises(SelfTestFailed, match=r"although .* is rejected"):
        run(model(200), settings())


@pytest.mark.parametrize("against", ["best", "strongest", "tfidf"])
def test_choice_of_the_baseline_does_not_change_the_selftest(against):
    assert run(model(200), settings(baseline={"against": against})) == run(model(200), settings())
