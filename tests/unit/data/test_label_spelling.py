"""Look-alike spellings of a label are merged; labels that differ in case or spaces are reported."""

import json

import numpy as np
import pandas as pd
import pytest

from components.artifacts.predictions import PROBABILITY, ModelOutput, Predictions, relabelled
from components.core.errors import BadParams
from components.core.text import canonical_label, label_reader
from components.data.validate.label_spelling import merge_label_spellings
from components.data.validate.settings import ValidateParams
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


def cells(task: tasks.Task, name: str) -> str:
    """Return a cell of the task's data with this label."""
    return {
        id(MULTI): json.dumps([name, "neu"], ensure_ascii=False),
        id(TAGS): json.dumps([f"B-{name}", "O"], ensure_ascii=False),
        id(PLAIN): json.dumps([name, "X"], ensure_ascii=False),
        id(SPANS): json.dumps([[0, 3, name]], ensure_ascii=False),
    }.get(id(task), name)


def table(task: tasks.Task, names: list[str]) -> pd.DataFrame:
    columns = {"text": "one two", "tokens": "one two", "id": [f"i{number}" for number in range(len(names))], "group": "g"}
    return pd.DataFrame({**columns, str(task.label_column): [cells(task, name) for name in names]})


def read(task: tasks.Task, names: list[str], **settings: object) -> tuple[list[str], tuple[str, ...]]:
    """Return the labels of the rows and the warnings."""
    rows, warnings = merge_label_spellings(table(task, names), task, ValidateParams(**settings))
    labelled, faults = task.read(rows)
    assert not faults
    return labelled["label"].tolist(), warnings


@pytest.mark.parametrize("task", [SINGLE, MULTI, ORDINAL, TAGS, PLAIN, SPANS])
def test_look_alike_labels_are_merged_and_counted(task: tasks.Task) -> None:
    labels, warnings = read(task, SAME)

    assert set(labels) == set(read(task, ["Gerät"])[0])
    assert len(warnings) == 1
    assert warnings[0].startswith("merged spellings of labels: ")
    assert warnings[0].count("(1) as 'Gerät'") == len(SAME) - (3 if task is MULTI else 1)  # spaces around a separator are ignored
    assert "'Gera\\u0308t' (1) as 'Gerät'" in warnings[0]


@pytest.mark.parametrize("task", [SINGLE, MULTI, TAGS, PLAIN, SPANS])
def test_labels_that_differ_in_case_are_reported(task: tasks.Task) -> None:
    labels, warnings = read(task, ["Netz", "Netz", "netz", "NETZ", "Post"])

    assert len(set(labels)) == 4
    assert warnings == (
        "labels 'Netz' (2), 'NETZ' (1), 'netz' (1) differ only in case, spaces or form; to merge them, set "
        "validate.label_map: {'NETZ': 'Netz', 'netz': 'Netz'}",
    )


def test_labels_that_differ_in_inner_spaces_are_reported() -> None:
    labels, warnings = read(SINGLE, ["two words", "two\u00a0words", "two  words", "twowords"])

    assert labels == ["two words", "two words", "two  words", "twowords"]
    assert "labels 'two words' (2), 'two  words' (1), 'twowords' (1) differ only in case, spaces or form" in warnings[1]


def test_labels_that_differ_in_an_emoji_variant_are_reported() -> None:
    labels, warnings = read(SINGLE, ["\u2764", "\u2764\ufe0f"])

    assert labels == ["\u2764", "\u2764\ufe0f"]
    assert "differ only in case, spaces or form" in warnings[0]


@pytest.mark.parametrize("task", [SINGLE, MULTI, TAGS, PLAIN, SPANS])
def test_map_merges_labels(task: tasks.Task) -> None:
    labels, warnings = read(task, ["Netz", "netz", "NETZ\u00a0"], label_map={"netz ": "Netz", "NETZ": "Netz"})

    assert set(labels) == set(read(task, ["Netz"])[0])
    assert warnings == ("merged spellings of labels: 'NETZ\\xa0' (1) as 'Netz', 'netz' (1) as 'Netz'",)


def test_map_merges_levels() -> None:
    assert read(ORDINAL, ["alt", "neu"], label_map={"alt": "Gerät"})[0] == ["Gerät", "neu"]


def test_changed_label_map_changes_the_verdict_key() -> None:
    params = read_params(ROOT / "params.yaml")
    workspace = Workspace(ROOT, ROOT, ROOT / "params.yaml")
    validation = params.validation
    maps = ({}, {"netz": "Netz"}, {"netz": "NETZ"})
    settings = [params.model_copy(update={"validation": validation.model_copy(update={"label_map": label_map})}) for label_map in maps]
    keys = {verdict_key("c", "4", "t", params.gates, 10, outside=outside_digests(workspace, params)) for params in settings}

    assert len(keys) == 3
    assert "validate.label_map" not in outside_digests(workspace, settings[0])


def test_unused_map_entry_is_reported() -> None:
    assert read(SINGLE, ["a", "b"], label_map={"c": "a"})[1] == ("validate.label_map: no row has the label 'c'",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_map": {"a": "b", "b": "c"}}, "'a' becomes 'b', which is mapped again"),
        ({"label_map": {"a": " "}}, "a label cannot be an empty text"),
        ({"label_map": {"a": "b", "a ": "c"}}, "two variants are the same label"),
        ({"label_map": {"a": "b"}, "labels": ["c", "d"]}, "'b' is not in validate.labels"),
        ({"labels": ["a", "a\u00a0"]}, "more than once"),
    ],
)
def test_contradictory_map_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(BadParams, match=message):
        ValidateParams.parse(settings, "validate")


def test_labels_in_settings_are_normalised_like_the_data() -> None:
    assert ValidateParams(labels=("Gera\u0308t", "neu ")).labels == ("Gerät", "neu")
    options = {"kind": "multi", "labels": ["Gera\u0308t", "neu\u00a0"], "thresholds": {"Gera\u0308t": 0.3}}
    assert tasks.load("text_classification", options).options.thresholds == {"Gerät": 0.3}
    assert tasks.load("token_classification", {"types": ["Gera\u0308t"]}).options.types == ("Gerät",)


@pytest.mark.parametrize("cell", ["[1", '["B-x"', "not JSON", ""])
def test_unreadable_cell_is_left_to_the_task(cell: str) -> None:
    assert SPANS.rename_labels(cell, canonical_label) == cell
    rows = pd.DataFrame({"text": ["a b"], "label": [cell], "tags": [cell], "spans": [cell], "tokens": ["a b"]})
    for task in (MULTI, TAGS, SPANS):
        merge_label_spellings(rows, task, ValidateParams())


def test_missing_labels_stay_missing() -> None:
    rows, warnings = merge_label_spellings(pd.DataFrame({"text": ["a b", "c d"], "label": [None, "x "]}), SINGLE, ValidateParams())

    assert rows["label"].isna().tolist() == [True, False]
    assert rows["label"][1] == "x"
    assert warnings == ("merged spellings of labels: 'x ' (1) as 'x'",)


def test_meaningful_joiners_are_kept() -> None:
    persian, emoji = "می\u200cخواهم", "👨\u200d👩\u200d👧"

    assert (canonical_label(persian), canonical_label(emoji)) == (persian, emoji)
    assert canonical_label("net\u200dwork\u200c") == "network"


def test_answers_of_an_old_model_are_renamed() -> None:
    output = ModelOutput(["x ", "y", "x"], np.array([[0.4, 0.3, 0.3], [0.35, 0.25, 0.4], [0.1, 0.8, 0.1]]), ("x ", "x", "y"))
    read_as = label_reader({"y": "Y"})
    new = relabelled(output, read_as, lambda answer: SINGLE.rename_labels(answer, read_as))

    assert new.labels == ("x", "Y")
    assert new.predicted == ["x", "x", "x"]
    assert new.probabilities == pytest.approx(np.array([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1]]))


def test_label_sets_and_tags_are_renamed() -> None:
    ids = np.array(["r1"])
    scored = {f"{PROBABILITY}x\u200b": np.array([0.5]), f"{PROBABILITY}x": np.array([0.2])}
    several = Predictions(ids, ids, np.array(['["x"]']), np.array(['["x\u200b"]']), np.zeros((1, 0)), (), scored)
    tags = Predictions(ids, ids, np.array(["B-x O"]), np.array(["B-Y O"]), np.zeros((1, 0)), ())
    read_as = label_reader({"Y": "x"})
    new = relabelled(several, read_as, lambda answer: MULTI.rename_labels(answer, read_as))

    assert new.predicted.tolist() == new.expected.tolist() == ['["x"]']
    assert new.measured[f"{PROBABILITY}x"].tolist() == [0.7]
    assert relabelled(tags, read_as, lambda answer: TAGS.rename_labels(answer, read_as)).predicted.tolist() == ["B-x O"]


def test_map_for_a_task_without_labels_is_refused() -> None:
    with pytest.raises(BadParams, match="this task has no labels"):
        merge_label_spellings(
            pd.DataFrame({"source": ["a"], "target": ["b"]}), tasks.load("sequence_to_sequence"), ValidateParams(label_map={"a": "b"})
        )
