"""Labels that look alike: those that no eye can tell apart are one, those that differ in case or blanks are named."""

import json

import numpy as np
import pandas as pd
import pytest

from components.artifacts.predictions import PROBABILITY, ModelOutput, Predictions, relabelled
from components.core.errors import BadParams
from components.core.text import canonical_label, label_reader
from components.data.validate import ValidateParams
from components.data.validate.label_spelling import relabel
from components.judge import verdict_key
from components.model import tasks
from flows.pipeline.evidence import outside_digests
from flows.project.params import read_params
from flows.project.workspace import Workspace
from tests.support.project import ROOT

SAME = [
    "Gerät",
    "Gera\u0308t",
    "Gerät ",
    " Gerät",
    "Gerät\u00a0",
    "\u3000Gerät",
    "Ger\u200bät",
    "\ufeffGerät",
    "Gerät\u200d",
    "Gerät\u200e",
    "Gerät\x7f",
]
SINGLE = tasks.load("text_classification")
MULTI = tasks.load("text_classification", {"kind": "multi"})
ORDINAL = tasks.load("text_classification", {"kind": "ordinal", "levels": ["Gerät", "neu"]})
TAGS = tasks.load("token_classification")
PLAIN = tasks.load("token_classification", {"scheme": "plain"})
SPANS = tasks.load("token_classification", {"data": "spans"})


def cells(kind: tasks.Task, name: str) -> str:
    """A cell of the task's data that names a label."""
    return {
        id(MULTI): json.dumps([name, "neu"], ensure_ascii=False),
        id(TAGS): json.dumps([f"B-{name}", "O"], ensure_ascii=False),
        id(PLAIN): json.dumps([name, "X"], ensure_ascii=False),
        id(SPANS): json.dumps([[0, 3, name]], ensure_ascii=False),
    }.get(id(kind), name)


def table(kind: tasks.Task, names: list[str]) -> pd.DataFrame:
    given = {"text": "one two", "tokens": "one two", "id": [f"i{at}" for at in range(len(names))], "group": "g"}
    return pd.DataFrame({**given, str(kind.label_column): [cells(kind, name) for name in names]})


def read(kind: tasks.Task, names: list[str], **settings: object) -> tuple[list[str], tuple[str, ...]]:
    """The labels that rows end up with, and what a person is told."""
    rows, said = relabel(table(kind, names), kind, ValidateParams(**settings))
    labelled, faults = kind.read(rows)
    assert not faults
    return labelled["label"].tolist(), said


@pytest.mark.parametrize("kind", [SINGLE, MULTI, ORDINAL, TAGS, PLAIN, SPANS])
def test_labels_that_look_the_same_are_one_and_counted(kind: tasks.Task) -> None:
    labels, said = read(kind, SAME)

    assert set(labels) == set(read(kind, ["Gerät"])[0])
    assert len(said) == 1
    assert said[0].startswith("labels read under one name: ")
    assert said[0].count("(1) as 'Gerät'") == len(SAME) - (3 if kind is MULTI else 1)  # blanks around a separator are no part of a label
    assert "'Gera\\u0308t' (1) as 'Gerät'" in said[0]


@pytest.mark.parametrize("kind", [SINGLE, MULTI, TAGS, PLAIN, SPANS])
def test_labels_that_differ_in_case_are_named_and_kept(kind: tasks.Task) -> None:
    labels, said = read(kind, ["Netz", "Netz", "netz", "NETZ", "Post"])

    assert len(set(labels)) == 4
    assert said == (
        "labels 'Netz' (2), 'NETZ' (1), 'netz' (1) differ only in case, blanks or form; if they are one, merge them: "
        "validate.label_map: {'NETZ': 'Netz', 'netz': 'Netz'}",
    )


def test_labels_that_differ_in_inner_blanks_are_named() -> None:
    labels, said = read(SINGLE, ["two words", "two\u00a0words", "two  words", "twowords"])

    assert labels == ["two words", "two words", "two  words", "twowords"]
    assert "labels 'two words' (2), 'two  words' (1), 'twowords' (1) differ only in case, blanks or form" in said[1]


def test_labels_that_differ_in_an_emoji_s_variant_are_named() -> None:
    labels, said = read(SINGLE, ["\u2764", "\u2764\ufe0f"])

    assert labels == ["\u2764", "\u2764\ufe0f"]
    assert "differ only in case, blanks or form" in said[0]


@pytest.mark.parametrize("kind", [SINGLE, MULTI, TAGS, PLAIN, SPANS])
def test_the_map_merges_labels(kind: tasks.Task) -> None:
    labels, said = read(kind, ["Netz", "netz", "NETZ\u00a0"], label_map={"netz ": "Netz", "NETZ": "Netz"})

    assert set(labels) == set(read(kind, ["Netz"])[0])
    assert said == ("labels read under one name: 'NETZ\\xa0' (1) as 'Netz', 'netz' (1) as 'Netz'",)


def test_the_map_merges_levels() -> None:
    assert read(ORDINAL, ["alt", "neu"], label_map={"alt": "Gerät"})[0] == ["Gerät", "neu"]


def test_a_map_for_an_earlier_version_s_labels_alone_is_judged_anew() -> None:
    params = read_params(ROOT / "params.yaml")
    workspace = Workspace(ROOT, ROOT, ROOT / "params.yaml")
    maps = ({}, {"netz": "Netz"}, {"netz": "NETZ"})
    asked = [params.model_copy(update={"validation": params.validation.model_copy(update={"label_map": one})}) for one in maps]
    keys = {verdict_key("c", "4", "t", one.gates, 10, outside=outside_digests(workspace, one)) for one in asked}

    assert len(keys) == 3
    assert "validate.label_map" not in outside_digests(workspace, asked[0])


def test_an_entry_of_the_map_that_no_row_needs_is_named() -> None:
    assert read(SINGLE, ["a", "b"], label_map={"c": "a"})[1] == ("validate.label_map: no row has the label 'c'",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_map": {"a": "b", "b": "c"}}, "'a' becomes 'b', which becomes another label"),
        ({"label_map": {"a": " "}}, "an empty text is no label"),
        ({"label_map": {"a": "b", "a ": "c"}}, "two of its variants are one label"),
        ({"label_map": {"a": "b"}, "labels": ["c", "d"]}, "'b' is not one of validate.labels"),
        ({"labels": ["a", "a\u00a0"]}, "more than once"),
    ],
)
def test_a_map_that_contradicts_itself_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(BadParams, match=message):
        ValidateParams.parse(settings, "validate")


def test_settings_name_labels_as_the_data_are_read() -> None:
    assert ValidateParams(labels=("Gera\u0308t", "neu ")).labels == ("Gerät", "neu")
    options = {"kind": "multi", "labels": ["Gera\u0308t", "neu\u00a0"], "thresholds": {"Gera\u0308t": 0.3}}
    assert tasks.load("text_classification", options).options.thresholds == {"Gerät": 0.3}
    assert tasks.load("token_classification", {"types": ["Gera\u0308t"]}).options.types == ("Gerät",)


@pytest.mark.parametrize("cell", ["[1", '["B-x"', "not JSON", ""])
def test_a_cell_that_cannot_be_read_is_left_to_the_task(cell: str) -> None:
    assert SPANS.rename_labels(cell, canonical_label) == cell
    rows = pd.DataFrame({"text": ["a b"], "label": [cell], "tags": [cell], "spans": [cell], "tokens": ["a b"]})
    for kind in (MULTI, TAGS, SPANS):
        relabel(rows, kind, ValidateParams())


def test_missing_labels_stay_missing() -> None:
    rows, said = relabel(pd.DataFrame({"text": ["a b", "c d"], "label": [None, "x "]}), SINGLE, ValidateParams())

    assert rows["label"].isna().tolist() == [True, False]
    assert rows["label"][1] == "x"
    assert said == ("labels read under one name: 'x ' (1) as 'x'",)


def test_joiners_that_mean_something_stay() -> None:
    persian, emoji = "می\u200cخواهم", "👨\u200d👩\u200d👧"

    assert (canonical_label(persian), canonical_label(emoji)) == (persian, emoji)
    assert canonical_label("net\u200dwork\u200c") == "network"


def test_an_earlier_model_answers_under_todays_names() -> None:
    found = ModelOutput(["x ", "y", "x"], np.array([[0.4, 0.3, 0.3], [0.35, 0.25, 0.4], [0.1, 0.8, 0.1]]), ("x ", "x", "y"))
    read_as = label_reader({"y": "Y"})
    new = relabelled(found, read_as, lambda answer: SINGLE.rename_labels(answer, read_as))

    assert new.labels == ("x", "Y")
    assert new.predicted == ["x", "x", "x"]
    assert new.probabilities == pytest.approx(np.array([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1]]))


def test_sets_of_labels_and_tags_are_compared_under_todays_names() -> None:
    ids = np.array(["r1"])
    scored = {f"{PROBABILITY}x\u200b": np.array([0.5]), f"{PROBABILITY}x": np.array([0.2])}
    several = Predictions(ids, ids, np.array(['["x"]']), np.array(['["x\u200b"]']), np.zeros((1, 0)), (), scored)
    tags = Predictions(ids, ids, np.array(["B-x O"]), np.array(["B-Y O"]), np.zeros((1, 0)), ())
    read_as = label_reader({"Y": "x"})
    new = relabelled(several, read_as, lambda answer: MULTI.rename_labels(answer, read_as))

    assert new.predicted.tolist() == new.expected.tolist() == ['["x"]']
    assert new.measured[f"{PROBABILITY}x"].tolist() == [0.7]
    assert relabelled(tags, read_as, lambda answer: TAGS.rename_labels(answer, read_as)).predicted.tolist() == ["B-x O"]


def test_a_map_for_a_task_without_labels_is_refused() -> None:
    with pytest.raises(BadParams, match="the answers of this task are no labels"):
        relabel(pd.DataFrame({"source": ["a"], "target": ["b"]}), tasks.load("sequence_to_sequence"), ValidateParams(label_map={"a": "b"}))
