"""The self-test lets honest gates through on every test set, however small or odd, and lets no broken one through."""

import dataclasses
import time

import numpy as np
import pytest

from components import gates
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import SelfTestFailed
from components.gates import Evidence, GatesParams, ReferenceModel, champion
from components.judge import multiple_testing
from components.judge.selftest import expectations, selftest
from components.stats import equal_passes_from

SIZES = [20, 60, 200, 2000]


def model(rows: int, classes: int = 6, accuracy: float = 0.8, groups: int | None = None, seed: int = 1) -> Predictions:
    """A model that is right on this share of the rows, of labels that are equally frequent; `groups` are groups of equal mean size."""
    rng = np.random.default_rng(seed)
    expected = rng.permutation(np.arange(rows) % classes)
    wrong = (expected + rng.integers(1, max(classes, 2), rows)) % classes
    predicted = np.where(rng.random(rows) < accuracy, expected, wrong)
    names = np.array([f"label {place}" for place in range(classes)])
    ids = np.array([f"r{row:05d}" for row in range(rows)])
    owners = ids if groups is None else np.array([f"g{owner}" for owner in rng.integers(0, groups, rows)])
    probabilities = np.full((rows, classes), 0.2 / classes) + 0.8 * np.eye(classes)[predicted]
    return Predictions(ids, owners, names[expected], names[predicted], probabilities, tuple(names.tolist()))


def settings(metric: str = "accuracy", **sections: dict) -> GatesParams:
    raw = {name: {"metric": metric} | sections.get(name, {}) for name in ("floor", "baseline", "champion", "best_champion")}
    return GatesParams.parse({**raw, **{name: section for name, section in sections.items() if name not in raw}}, "gates")


def tried(reference: Predictions, params: GatesParams, min_class_units: int = 10) -> dict[str, str]:
    evidence = Evidence(reference, {}, ReferenceModel("4", reference), min_class_units, level=params.test_budget.level)
    return {sentence.split(": ")[0]: sentence for sentence in selftest(evidence, params)}


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize("classes", [2, 6, 22])
@pytest.mark.parametrize(("rows", "groups"), [(20, None), (60, 25), (200, None), (200, 70), (2000, None), (2000, 600)])
def test_honest_gates_are_able_on_every_test_set(rows, groups, classes, metric):
    said = selftest(
        Evidence(model(rows, classes, groups=groups), {}, ReferenceModel("4", model(rows, classes, groups=groups)), 10, level=0.01),
        settings(metric),
    )

    assert len(said) >= 6


def test_what_was_tried_is_told_in_sentences():
    said = tried(model(2000), settings())

    assert said == {
        "the champion against itself": "the champion against itself: baseline INCONCLUSIVE, champion PASS, best_champion PASS, "
        "as the formulas say for 2,000 test units",
        "80 right answers made wrong": "80 right answers made wrong: baseline FAIL, champion FAIL, anchor FAIL",
        "the same two exchanged": "the same two exchanged: every interval mirrored, baseline PASS, champion PASS, best_champion PASS",
        "answers shuffled over the rows": "answers shuffled over the rows: baseline FAIL, champion FAIL, anchor FAIL",
        "20 errors mended": "20 errors mended: baseline PASS, champion PASS, best_champion PASS",
        "always right": "always right: baseline PASS, champion PASS, best_champion PASS, floor PASS; "
        "never right: baseline FAIL, champion FAIL, anchor FAIL, floor FAIL",
        "candidate 6 on this test set": "candidate 6 on this test set: test_budget INCONCLUSIVE",
    }


def test_without_a_champion_the_candidate_stands_in_for_it():
    said = selftest(Evidence(model(200), {}, None, 10, level=0.01), settings())

    assert said[0].startswith("the candidate against itself")


@pytest.mark.parametrize(("margin", "level"), [(0.02, 0.01), (0.02, 0.05), (0.05, 0.05)])
def test_a_model_passes_against_itself_from_the_rows_that_the_formula_names(margin, level):
    params = settings(champion={"margin": margin}, test_budget={"at_most": round(0.05 / level)})
    least = int(np.floor(equal_passes_from(margin, {0.05: 1.6448536, 0.01: 2.3263479}[level]))) + 1
    outcomes = [tried(model(rows), params)["the champion against itself"].split("champion ")[2][:4] for rows in (least - 1, least)]

    assert outcomes == ["INCO", "PASS"]


def test_too_few_groups_pass_no_model_and_are_told():
    said = tried(model(2000, groups=49), settings())

    assert "champion can prove nothing on accuracy, and passes none of these models" in said
    assert not any("champion PASS" in sentence for sentence in said.values())


def test_a_class_too_rare_for_macro_f1_passes_no_model_and_is_told():
    said = tried(model(60, classes=22), settings("macro_f1"))

    assert "no class has 10 test rows" in said["champion can prove nothing on macro_f1, and passes none of these models"]
    assert not any(" PASS" in sentence for sentence in said.values())


@pytest.mark.parametrize(
    ("accuracy", "told"),
    [(1.0, "the champion has no error that could be mended"), (0.9, "errors mended (all there are)")],
)
def test_a_model_with_few_errors_is_mended_as_far_as_it_goes(accuracy, told):
    assert any(told in sentence for sentence in tried(model(60, accuracy=accuracy), settings()))


def test_a_model_that_is_never_right_cannot_be_made_worse():
    assert "the champion is right on no row, so nothing could be made worse" in tried(model(200, accuracy=-1), settings())


def test_labels_that_the_candidate_does_not_know_are_left_out():
    reference = model(200)
    fewer, none = (dataclasses.replace(reference, labels=labels) for labels in (reference.labels[:3], ("another",)))

    assert tried(fewer, settings())["the champion against itself"].endswith("for 101 test units")
    assert list(tried(none, settings())) == [
        "no test row has a label that the candidate knows, so no model could be made to try the gates on"
    ]


def test_a_model_that_answers_every_row_alike_is_judged_without_a_shuffle():
    reference = model(200, classes=2)
    alike = Predictions(
        reference.ids, reference.groups, reference.expected, np.full(200, "label 1"), reference.probabilities, reference.labels
    )

    assert "the champion answers every row alike, so its answers could not be shuffled" in tried(alike, settings())


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("classes", [1, 2])
def test_a_handful_of_rows_shows_little_and_breaks_nothing(rows, classes):
    assert tried(model(rows, classes), settings(), min_class_units=1)


@pytest.mark.parametrize("margin", [0.1, 0.2, 0.5, 0.7])
@pytest.mark.parametrize("groups", [None, 300])
def test_a_wide_margin_of_macro_f1_on_one_class_asks_for_no_more_than_there_is(margin, groups):
    """F1 of one class rises from 0.53 to 1 when two thirds of the rows are mended: less than the sum of what the rows weigh."""
    assert tried(model(1000, 1, 1.0, groups), settings("macro_f1", baseline={"margin": margin}), min_class_units=1)


def test_a_level_above_the_budget_of_looks_is_refused():
    reference = model(200)

    with pytest.raises(SelfTestFailed, match=r"decide at 5.00%, and gates.test_budget allows 1.00% a look"):
        selftest(Evidence(reference, {}, ReferenceModel("4", reference), 10, level=0.05), settings())


def test_where_no_gate_compares_there_is_nothing_to_compare():
    off = {name: {"role": "off"} for name in ("baseline", "champion", "best_champion")}

    assert any("no gate that compares has a say" in sentence for sentence in tried(model(200), settings(**off)).values())


def always(outcome: Outcome, name: str, honest):
    """A gate that measures as it should and always says the same."""

    def decide(evidence: Evidence, params) -> GateResult:
        return honest(evidence, params).model_copy(update={"gate": name, "outcome": outcome, "hypotheses": ()})

    return decide


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("name", ["baseline", "champion", "best_champion", "floor", "test_budget"])
@pytest.mark.parametrize("rows", SIZES)
def test_a_gate_that_always_says_the_same_is_caught(monkeypatch, name, outcome, rows):
    gate = gates.load(name)
    monkeypatch.setattr(gate, "decide", always(outcome, name, gate.decide))

    with pytest.raises(SelfTestFailed, match=rf"gates are not able to decide: .*{name}"):
        tried(model(rows), settings())


def swapped(compare):
    """A comparison of the champion with the candidate."""

    def decide(gate, evidence, other, *rest):
        turned = Evidence(other, {}, None, evidence.min_class_units, level=evidence.level, crosscheck=False)
        return compare(gate, turned, evidence.candidate, *rest)

    return decide


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize(("rows", "groups"), [(20, None), (60, None), (200, 70), (2000, None), (2000, 600)])
def test_candidate_and_champion_exchanged_is_caught(monkeypatch, rows, groups, metric):
    monkeypatch.setattr(champion, "compare", swapped(champion.compare))

    with pytest.raises(SelfTestFailed, match="champion measures"):
        tried(model(rows, groups=groups), settings(metric))


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("sizes", [None, 3])
def test_a_difference_with_the_sign_flipped_is_caught(monkeypatch, rows, sizes):
    honest = Evidence.difference

    def flipped(self, metric, other):
        seen = honest(self, metric, other)
        return seen.model_copy(update={"value": -seen.value, "low": -seen.high, "high": -seen.low})

    monkeypatch.setattr(Evidence, "difference", flipped)

    with pytest.raises(SelfTestFailed):
        tried(model(rows, groups=rows // sizes if sizes else None), settings())


@pytest.mark.parametrize("rows", SIZES)
def test_a_p_value_of_the_wrong_side_is_caught(monkeypatch, rows):
    honest = Evidence.difference_below
    monkeypatch.setattr(Evidence, "difference_below", lambda *asked: 1 - honest(*asked))

    with pytest.raises(SelfTestFailed):
        tried(model(rows), settings())


@pytest.mark.parametrize("rows", SIZES)
def test_intervals_at_another_level_than_that_of_the_look_are_caught(monkeypatch, rows):
    monkeypatch.setattr(Evidence, "confidence", 0.9)

    with pytest.raises(SelfTestFailed, match="gives a model against itself"):
        tried(model(rows), settings())


@pytest.mark.parametrize("rows", SIZES)
def test_a_missing_correction_is_caught(monkeypatch, rows):
    monkeypatch.setattr(multiple_testing, "holm", np.asarray)

    with pytest.raises(SelfTestFailed, match="was corrected to"):
        tried(model(rows), settings())


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_fold_that_always_says_the_same_is_caught(monkeypatch, outcome):
    monkeypatch.setattr(expectations, "combine", lambda results: (outcome, "so it is"))

    with pytest.raises(SelfTestFailed, match=f"was folded to {outcome}"):
        tried(model(200), settings())


def test_a_correction_that_rejects_and_does_not_fail_is_caught(monkeypatch):
    monkeypatch.setattr(multiple_testing, "_decided", lambda result: result)

    with pytest.raises(SelfTestFailed, match=r"although .* is rejected"):
        tried(model(200), settings())


def test_ten_thousand_rows_are_tried_in_seconds():
    reference, params = model(10_000, 22, groups=2500), GatesParams()
    started = time.process_time()
    tried(reference, params)

    assert time.process_time() - started < 4  # two on a machine of its own
