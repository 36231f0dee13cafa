import dataclasses

import numpy as np
import pytest

from components.artifacts.served_answers import ServedAnswer, ServedAnswers
from components.artifacts.verdict import GateResult, Outcome
from components.gates.support import Evidence
from tests.support import gate_cases
from tests.support.gate_cases import against, answered, decided

REFUSED = {"no JSON": 400, "a number instead of text": 422}


def evidence(n: int = 30) -> Evidence:
    return against(answered(np.arange(n) % 5 != 0), None)


def served(evaluated: Evidence, shift: float = 0.0, label: str | None = None, **more) -> ServedAnswers:
    """Return the evaluated answers; the first row has two probabilities off by `shift`, or another label."""
    answers = gate_cases.served(evaluated.candidate, rows=30, **{"malformed": REFUSED, **more})
    first = answers.answers[0]
    shifted = [value + by * shift for value, by in zip(first.probabilities.values(), (-1, 1, 0), strict=True)]
    probabilities = dict(zip(first.probabilities, shifted, strict=True))
    changed = first.model_copy(update={"probabilities": probabilities, "label": label or first.label})
    return answers.model_copy(update={"answers": (changed, *answers.answers[1:])})


def judge(answers: ServedAnswers | None, evaluated: Evidence | None = None, **settings) -> GateResult:
    return decided("servability", dataclasses.replace(evaluated or evidence(), served=answers), **settings)


def test_evaluated_answers_pass():
    result = judge(served(evidence(), shift=5e-4))

    assert result.outcome is Outcome.PASS
    assert result.estimate == pytest.approx(5e-4)
    assert result.threshold == 1e-3
    assert result.n == 30
    assert result.reason.startswith("30 served answers are the evaluated ones (largest difference 5.0e-04")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shift": 2e-3}, "1 of 30 served answers differ from the evaluated ones (a probability by 0.002"),
        ({"shift": float("nan")}, "1 of 30 served answers differ"),
        ({"label": "another"}, "1 of 30 served answers differ"),
        ({"malformed": {**REFUSED, "no text": 200}}, "malformed requests are not rejected with a 4xx: 'no text' got 200"),
        ({"malformed": {**REFUSED, "no text": 500}}, "'no text' got 500"),
        ({"malformed": {**REFUSED, "no text": None}}, "'no text' got no answer"),
        ({"refused": ("inputs with 10 rows: status 400",)}, "1 valid requests were not answered, first inputs with 10 rows: status 400"),
        ({"fault": "KeyError: 'text'"}, "models:/tickets/5 could not be served: KeyError: 'text'"),
    ],
)
def test_different_answers_fail(change, message):
    result = judge(served(evidence(), **change))

    assert result.outcome is Outcome.FAIL
    assert message in result.reason


def test_reason_contains_all_faults():
    result = judge(served(evidence(), shift=0.1, malformed={"no JSON": 200}))

    assert "served answers differ" in result.reason
    assert "'no JSON' got 200" in result.reason
    assert [table.title for table in result.tables] == ["Malformed requests", "Answers that differ"]
    assert result.tables[1].rows[0][0] == "r000000"


def test_either_label_of_a_tie_passes():
    evaluated = evidence()
    evaluated.candidate.probabilities[0] = 1 / len(evaluated.candidate.labels)

    assert judge(served(evaluated, label=evaluated.candidate.labels[-1]), evaluated).outcome is Outcome.PASS


def test_other_labels_fail():
    answers = served(evidence())
    changed = answers.answers[0].model_copy(update={"probabilities": {**answers.answers[0].probabilities, "new": 0.0}})

    assert judge(answers.model_copy(update={"answers": (changed, *answers.answers[1:])})).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (None, "no request was sent to a scoring server"),
        (
            ServedAnswers(version="models:/tickets/5", fault="address already in use", outside=True),
            "could not be served: address already in use",
        ),
        (ServedAnswers(version="models:/tickets/5", malformed=REFUSED), "no test row"),
        (
            ServedAnswers(version="models:/tickets/5", answers=(ServedAnswer(id="x", label="a", probabilities={}),), malformed=REFUSED),
            "rows that are not in the test set (1, first 'x')",
        ),
    ],
)
def test_missing_answers_are_inconclusive(answers, message):
    result = judge(answers)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert message in result.reason
    assert result.change
    assert result.may_pass is (answers is not None and answers.outside)
