"""A champion that lacks labels of label-based answers such as tags, under each value of gates.champion.new_labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from components.artifacts.verdict import Outcome
from components.gates.support import ReferenceModel
from components.model import tasks
from flows.pipeline.evidence import unknown_labels
from tests.support.additive_cases import entity_evidence
from tests.support.gate_cases import decided

KNOWN = np.arange(400) % 4 != 0


def lacking(known=KNOWN):
    """Return evidence with a champion that finds nothing on the rows with the label that it lacks."""
    base = entity_evidence()
    poor = base.champion.predictions
    measured = {name: np.where(known | (name == "expected"), values, 0.0) for name, values in poor.measured.items()}
    reference = ReferenceModel("4", replace(poor, measured=measured), None, ("B-NEW",), known)
    return replace(base, champion=reference, best_champion=reference)


def champion(new_labels, base=None):
    settings = {"metric": "entity_f1", "also": [], "margin": 0.05, "new_labels": new_labels}
    return decided("champion", base or lacking(), **settings)


def test_common_compares_rows_with_common_labels():
    result = champion("common")

    assert result.estimate == pytest.approx(0.0, abs=1e-12)
    assert result.n == KNOWN.sum()
    assert "only the candidate knows B-NEW; compared on 300 of 400 rows" in result.notes


def test_wrong_counts_unknown_labels_as_wrong():
    result = champion("wrong")

    assert result.estimate > 0.05
    assert result.n == 400


def test_ask_is_inconclusive():
    result = champion("ask")

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "has other labels: only the candidate knows B-NEW" in result.reason


def test_champion_that_knows_no_row_is_not_compared():
    base = lacking(np.zeros(400, dtype=bool))

    assert "knows none of the test set's labels" in champion("common", base).reason
    assert "knows none of the test set's labels" in decided("best_champion", base, metric="entity_f1").reason


def test_best_champion_is_compared_on_common_rows():
    assert decided("best_champion", lacking(), metric="entity_f1", margin=0.05).n == KNOWN.sum()


@pytest.mark.parametrize(
    ("name", "options", "labels", "cells", "unknown"),
    [
        ("token_classification", {"scheme": "BIO"}, ("O", "B-PER", "I-PER"), ["O B-PER", "O B-LOC", "O O"], ("LOC",)),
        ("text_classification", {"kind": "multi"}, ("a", "b"), ['["a"]', '["b", "c"]', "[]"], ("c",)),
    ],
)
def test_row_is_known_if_all_its_labels_are(name, options, labels, cells, unknown):
    task = tasks.load(name, options)
    rows = pd.DataFrame({"id": list("xyz"), "text": ["u v"] * 3, "tokens": ["u v"] * 3, "tags": cells, "label": cells})
    rows, faults = task.read(rows)
    assert not faults

    missing, known = unknown_labels(task, rows, task.names(labels))

    assert missing == unknown
    assert known.tolist() == [True, False, True]
    assert unknown_labels(task, rows, {*task.names(labels), *unknown}) == ((), None)


def test_other_scheme_with_the_same_types_is_known():
    task = tasks.load("token_classification", {"data": "spans", "scheme": "BIOES"})
    spans = ['[[0, 3, "PER"]]', "[]", '[[8, 11, "LOC"]]']
    rows, faults = task.read(pd.DataFrame({"id": list("xyz"), "text": ["Ada met Bob"] * 3, "spans": spans}))
    champion = tasks.load("token_classification", {"data": "spans", "scheme": "BIO"})
    assert not faults

    assert unknown_labels(task, rows, champion.names(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))) == ((), None)
    missing, known = unknown_labels(task, rows, champion.names(("O", "B-PER", "I-PER")))
    assert missing == ("LOC",)
    assert known.tolist() == [True, True, False]
