import dataclasses

import numpy as np
import pytest

from components.artifacts.served_answers import ServedAnswer, ServedAnswers
from components.artifacts.verdict import GateResult, Outcome
from components.gates import Evidence
from tests.support import gate_cases
from tests.support.gate_cases import against, answered, decided

REFUSED = {"no JSON": 400, "a number instead of text": 422}


def evidence(n: int = 30) -> Evidence:
    return against(answered(np.arange(n) % 5 != 0), None)


def served(seen: Evidence, shift: float = 0.0, label: str | None = None, **more) -> ServedAnswers:
    """The evaluated answers; of the first row two probabilities are off by `shift`, or the label is another."""
    found = gate_cases.served(seen.candidate, rows=30, **{"malformed": REFUSED, **more})
    first = found.answers[0]
    shifted = [value + by * shift for value, by in zip(first.probabilities.values(), (-1, 1, 0), strict=True)]
    probabilities = dict(zip(first.probabilities, shifted, strict=True))
    changed = first.model_copy(update={"probabilities": probabilities, "label": label or first.label})
    return found.model_copy(update={"answers": (changed, *found.answers[1:])})


def asked(found: ServedAnswers | None, seen: Evidence | None = None, **settings) -> GateResult:
    return decided("servability", dataclasses.replace(seen or evidence(), served=found), **settings)


def test_the_evaluated_answers_pass():
    result = asked(served(evidence(), shift=5e-4))

    assert result.outcome is Outcome.PASS
    assert result.estimate == pytest.approx(5e-4)
    assert result.threshold == 1e-3
    assert result.n == 30
    assert result.reason.startswith("30 served answers are the evaluated ones (largest difference 5.0e-04")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shift": 2e-3}, "1 of 30 served answers differ from the evaluated ones (a probability by 0.002"),
        ({"shift": float("nan")}, "1 of 30 served answers differ"),
        ({"label": "another"}, "1 of 30 served answers differ"),
        ({"malformed": {**REFUSED, "no text": 200}}, "malformed requests are not refused with a 4xx: 'no text' got 200"),
        ({"malformed": {**REFUSED, "no text": 500}}, "'no text' got 500"),
        ({"malformed": {**REFUSED, "no text": None}}, "'no text' got no answer"),
        ({"refused": ("inputs with 10 rows: status 400",)}, "1 good requests were not answered, first inputs with 10 rows: status 400"),
        ({"fault": "KeyError: 'text'"}, "models:/tickets/5 was not served: KeyError: 'text'"),
    ],
)
def test_what_is_served_otherwise_fails(change, said):
    result = asked(served(evidence(), **change))

    assert result.outcome is Outcome.FAIL
    assert said in result.reason


def test_all_faults_are_told_together():
    result = asked(served(evidence(), shift=0.1, malformed={"no JSON": 200}))

    assert "served answers differ" in result.reason
    assert "'no JSON' got 200" in result.reason
    assert [table.title for table in result.tables] == ["Malformed requests", "Answers that differ"]
    assert result.tables[1].rows[0][0] == "r000000"


def test_a_label_that_was_a_tie_may_be_either():
    seen = evidence()
    seen.candidate.probabilities[0] = 1 / len(seen.candidate.labels)

    assert asked(served(seen, label=seen.candidate.labels[-1]), seen).outcome is Outcome.PASS


def test_a_version_with_other_labels_fails():
    found = served(evidence())
    strange = found.answers[0].model_copy(update={"probabilities": {**found.answers[0].probabilities, "new": 0.0}})

    assert asked(found.model_copy(update={"answers": (strange, *found.answers[1:])})).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "no scoring server was asked"),
        (
            ServedAnswers(version="models:/tickets/5", fault="address already in use", outside=True),
            "was not served: address already in use",
        ),
        (ServedAnswers(version="models:/tickets/5", malformed=REFUSED), "no test row"),
        (
            ServedAnswers(version="models:/tickets/5", answers=(ServedAnswer(id="x", label="a", probabilities={}),), malformed=REFUSED),
            "asked other rows than the test set's (1, first 'x')",
        ),
    ],
)
def test_what_was_not_measured_is_asked_of_a_person(found, said):
    result = asked(found)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert said in result.reason
    assert result.change
    assert result.may_pass is (found is not None and found.outside)
