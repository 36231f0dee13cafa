"""A champion that lacks labels which answers are made of, as tags: compared on the rows it can know, or as the settings say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from components.artifacts.verdict import Outcome
from components.gates import ReferenceModel
from components.model import tasks
from flows.pipeline.evidence import unknown_labels
from tests.support.gate_cases import decided
from tests.unit.gates.test_selftest_sums import evidence

KNOWN = np.arange(400) % 4 != 0


def lacking(known=KNOWN):
    """Evidence whose champion finds nothing on the rows with the label that it lacks."""
    found = evidence()
    poor = found.champion.predictions
    measured = {name: np.where(known | (name == "expected"), values, 0.0) for name, values in poor.measured.items()}
    rival = ReferenceModel("4", replace(poor, measured=measured), None, ("B-NEW",), known)
    return replace(found, champion=rival, anchor=rival)


def champion(new_labels, found=None):
    settings = {"metric": "entity_f1", "also": [], "margin": 0.05, "new_labels": new_labels}
    return decided("champion", found or lacking(), **settings)


def test_common_compares_where_both_know_the_labels_and_says_so():
    result = champion("common")

    assert result.estimate == pytest.approx(0.0, abs=1e-12)
    assert result.n == KNOWN.sum()
    assert "the candidate alone knows B-NEW; compared on 300 of 400 rows" in result.notes


def test_wrong_counts_what_it_lacks_against_it():
    result = champion("wrong")

    assert result.estimate > 0.05
    assert result.n == 400


def test_ask_leaves_it_to_a_person():
    result = champion("ask")

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "has other labels: the candidate alone knows B-NEW" in result.reason


def test_one_that_knows_no_row_is_not_compared():
    found = lacking(np.zeros(400, dtype=bool))

    assert "knows none of the test set's labels" in champion("common", found).reason
    assert "knows none of the test set's labels" in decided("best_champion", found, metric="entity_f1").reason


def test_the_anchor_is_compared_on_common_rows():
    assert decided("best_champion", lacking(), metric="entity_f1", margin=0.05).n == KNOWN.sum()


@pytest.mark.parametrize(
    ("name", "options", "labels", "cells", "unknown"),
    [
        ("token_classification", {"scheme": "BIO"}, ("O", "B-PER", "I-PER"), ["O B-PER", "O B-LOC", "O O"], ("LOC",)),
        ("text_classification", {"kind": "multi"}, ("a", "b"), ['["a"]', '["b", "c"]', "[]"], ("c",)),
    ],
)
def test_a_row_is_known_by_all_of_its_labels(name, options, labels, cells, unknown):
    task = tasks.load(name, options)
    rows = pd.DataFrame({"id": list("xyz"), "text": ["u v"] * 3, "tokens": ["u v"] * 3, "tags": cells, "label": cells})
    rows, faults = task.read(rows)
    assert not faults

    found, known = unknown_labels(task, rows, task.names(labels))

    assert found == unknown
    assert known.tolist() == [True, False, True]
    assert unknown_labels(task, rows, {*task.names(labels), *unknown}) == ((), None)


def test_another_scheme_of_the_same_types_is_not_strange():
    task = tasks.load("token_classification", {"data": "spans", "scheme": "BIOES"})
    spans = ['[[0, 3, "PER"]]', "[]", '[[8, 11, "LOC"]]']
    rows, faults = task.read(pd.DataFrame({"id": list("xyz"), "text": ["Ada met Bob"] * 3, "spans": spans}))
    champion = tasks.load("token_classification", {"data": "spans", "scheme": "BIO"})
    assert not faults

    assert unknown_labels(task, rows, champion.names(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))) == ((), None)
    found, known = unknown_labels(task, rows, champion.names(("O", "B-PER", "I-PER")))
    assert found == ("LOC",)
    assert known.tolist() == [True, True, False]
