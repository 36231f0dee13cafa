"""The tickets with labels of every kind of text classification, and in every data format of `contrastive`."""

import json
from typing import Any

import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.model import tasks
from tests.support.tickets import TOPICS

CONTRASTIVE_FORMATS = ("pairs", "triplets", "scored", "texts")
KINDS = {
    "single": {},
    "multi": {"kind": "multi"},
    "ordinal": {"kind": "ordinal", "levels": ["low", "middle", "high"]},
    "regression": {"kind": "regression"},
}
METRIC = {"single": "accuracy", "multi": "micro_f1", "ordinal": "quadratic_weighted_kappa", "regression": "r2"}


def relabelled(tickets: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Return the tickets with labels of this kind, which follow from the words; the cells have the form that `read` returns."""
    if kind == "single":
        return tickets
    topics = [sorted(TOPICS).index(label) for label in tickets["label"]]
    labels = {
        "ordinal": lambda: [KINDS["ordinal"]["levels"][topic] for topic in topics],
        "regression": lambda: [str(1000 + 250 * topic) for topic in topics],
        "multi": lambda: [_labels(*row) for row in zip(tickets["text"], tickets["label"], strict=True)],
    }
    return tickets.assign(label=pd.Series(labels[kind](), dtype="str"))


def _labels(text: str, label: str) -> str:
    urgent = ["urgent"] if {"today", "help"} & set(text.split()) else []
    return json.dumps([*([label] if label != "network" else []), *urgent])


def tagged(tickets: pd.DataFrame) -> pd.DataFrame:
    """Return the tickets for token classification, with long words as entities, in the form that `read` returns."""
    tags = [" ".join("B-LONG" if len(word) > 5 else "O" for word in text.split()) for text in tickets["text"]]
    read, faults = tasks.load("token_classification").read(tickets.assign(tokens=tickets["text"], tags=tags))
    assert not faults
    return read


def paired(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with each text split into `text_a` and `text_b`."""
    words = [text.split() for text in rows["text"]]
    halves = {"text_a": [" ".join(part[:4]) for part in words], "text_b": [" ".join(part[4:]) for part in words]}
    return rows.drop(columns="text").assign(**halves)


def contrastive_rows(tickets: pd.DataFrame, data: str = "pairs", count: int = 60) -> pd.DataFrame:
    """Return tickets with reversed words as positives and tickets of another topic as negatives."""
    texts = tickets["text"].tolist()[:count]
    reversed_texts = [" ".join(text.split()[::-1]) for text in texts]
    other_topic = texts[4:] + texts[:4]
    columns = {
        "pairs": {"anchor": texts, "positive": reversed_texts},
        "triplets": {"anchor": texts, "positive": reversed_texts, "negative": other_topic},
        "scored": {
            "text_a": texts,
            "text_b": [*reversed_texts[::2], *other_topic[1::2]],
            "score": [f"{(index * 7) % 11 / 10:g}" for index in range(count)],
        },
        "texts": {"text": texts},
    }[data]
    frame = pd.DataFrame({"id": tickets["id"][:count], "group": tickets["group"][:count], **columns})
    read, faults = tasks.load("contrastive", {"data": data}).read(frame)
    assert not faults
    return read


def predict_baselines(task: tasks.Task, train: pd.DataFrame, test: pd.DataFrame, spec: Any, base: Any) -> dict[str, ModelOutput]:
    """Return the predictions of every baseline for `test`, fitted to `train`."""
    return {name: predict(test) for name, predict in task.fit_baselines(train, spec, base).items()}


def statistics_of(task, predictions):
    """Return the statistics of a task and the measured ones by name, each (rows,)."""
    return {**task.statistics(predictions.expected.tolist(), predictions.predicted.tolist()), **predictions.measured}
