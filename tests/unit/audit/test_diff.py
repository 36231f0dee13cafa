"""Compare two versions on twenty rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.artifacts.predictions import Predictions
from components.core.errors import NotFound
from components.mlflow_store import registry
from components.mlflow_store.registry import Version
from components.stats.scores import classification
from flows.audit import diff
from flows.audit.diff import Scores, changed, compare_rows, measure
from flows.audit.registered_model import RegisteredModel
from flows.pipeline import historical_data

IDS = [f"r{number:02d}" for number in range(20)]
RIGHT = ["a", "b"] * 10


def answers(predicted: list[str], labels: tuple[str, ...] = ("a", "b")) -> Predictions:
    texts = [np.array(column, dtype=np.str_) for column in (IDS, IDS, RIGHT, predicted)]
    return Predictions(*texts, np.full((20, len(labels)), 1 / len(labels)), labels)


def measured(old: Predictions, new: Predictions, texts: dict[str, str]) -> Scores:
    return measure(old, new, texts, classification(new, 1), "t")


def swapped(*rows: int) -> list[str]:
    return [("b" if label == "a" else "a") if row in rows else label for row, label in enumerate(RIGHT)]


def test_fixed_and_broken_rows_are_listed_with_texts() -> None:
    scores = measured(answers(swapped(0, 1, 2)), answers(swapped(2, 3)), {"r00": "the first"})

    assert [(row.id, row.text, row.expected, row.before, row.after) for row in scores.fixed] == [
        ("r00", "the first", "a", "b", "a"),
        ("r01", None, "b", "a", "b"),
    ]
    assert [row.id for row in scores.broken] == ["r03"]
    assert (scores.rows, scores.both_right, scores.both_wrong) == (20, 16, 1)
    assert scores.after["accuracy"].value == 0.9
    assert abs(scores.differences["accuracy"].value - 0.05) < 1e-9  # (17 - 18) of 20 rows, after minus before
    assert scores.differences["accuracy"].low < 0.05 < scores.differences["accuracy"].high


def test_version_does_not_differ_from_itself() -> None:
    scores = measured(answers(swapped(2)), answers(swapped(2)), {})

    assert (scores.fixed, scores.broken, scores.differences["accuracy"].value) == ((), (), 0)


def test_labels_of_only_one_version_are_listed() -> None:
    scores = measured(answers(RIGHT, ("a", "b", "old")), answers(RIGHT), {})

    assert (scores.labels_only_before, scores.labels_only_after) == (("old",), ())


def test_changed_settings_have_both_values() -> None:
    assert changed({"a": 1, "b": 2, "gone": 3}, {"a": 1, "b": 5, "new": 4}) == {"b": (2, 5), "gone": (3, None), "new": (None, 4)}


def test_rows_are_compared_by_id() -> None:
    old = pd.DataFrame({"id": ["1", "2", "3", "4"], "text": list("abcd"), "label": list("xxxx")})
    new = pd.DataFrame({"id": ["5", "4", "3", "2"], "text": list("edqb"), "label": list("xyxx")})

    assert compare_rows(old, new) == {"added": ("5",), "removed": ("1",), "reworded": ("3",), "relabelled": ("4",)}


def test_training_texts_of_bases_are_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    bases = {"2": "models:/tickets/1", "4": "models:/other/3", "5": "models:/tickets/9"}
    versions = [
        Version(name, number, "run", str(number), True, tags={"retune.base_source": bases.get(str(number), "hub")})
        for name, number in (("tickets", 1), ("tickets", 2), ("other", 3), ("tickets", 4), ("tickets", 5))
    ]
    missing = {"models:/other/3"}

    def rows_learned_by(_: Path, version: Version) -> pd.DataFrame:
        if version.uri in missing:
            raise NotFound("it is missing from the cache")
        return pd.DataFrame({"text": [f"text of {version.uri}"]})

    monkeypatch.setattr(registry, "versions", lambda uri, name: [version for version in versions if version.name == name])
    monkeypatch.setattr(diff, "rows_learned_by", rows_learned_by)
    monkeypatch.setattr(historical_data, "rows_learned_by", rows_learned_by)
    model = RegisteredModel("tickets", Path(), "sqlite://", "sqlite://", tuple(versions))

    assert diff.training_texts(model, versions[1]) == ["text of models:/tickets/2", "text of models:/tickets/1"]
    for version in (versions[0], versions[3], versions[4]):
        assert diff.training_texts(model, version) == [f"text of {version.uri}"]
