"""The tickets with labels of every kind, and the settings that text classification reads them by."""

import json

import pandas as pd

from tests.conftest import TOPICS

KINDS = {
    "single": {},
    "multi": {"kind": "multi"},
    "ordinal": {"kind": "ordinal", "levels": ["low", "middle", "high"]},
    "regression": {"kind": "regression"},
}
METRIC = {"single": "accuracy", "multi": "micro_f1", "ordinal": "quadratic_weighted_kappa", "regression": "r2"}


def relabelled(tickets: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Give the tickets labels of this kind, each of which follows from the words; in the form of an answer, as `read` leaves them."""
    if kind == "single":
        return tickets
    topics = [sorted(TOPICS).index(label) for label in tickets["label"]]
    made = {
        "ordinal": lambda: [KINDS["ordinal"]["levels"][topic] for topic in topics],
        "regression": lambda: [str(1000 + 250 * topic) for topic in topics],
        "multi": lambda: [_labels(*row) for row in zip(tickets["text"], tickets["label"], strict=True)],
    }
    return tickets.assign(label=pd.Series(made[kind](), dtype="str"))


def _labels(text: str, label: str) -> str:
    urgent = ["urgent"] if {"today", "help"} & set(text.split()) else []
    return json.dumps([*([label] if label != "network" else []), *urgent])


def paired(rows: pd.DataFrame) -> pd.DataFrame:
    """Part each text in two; `text` is left to `read`."""
    words = [text.split() for text in rows["text"]]
    halves = {"text_a": [" ".join(each[:4]) for each in words], "text_b": [" ".join(each[4:]) for each in words]}
    return rows.drop(columns="text").assign(**halves)
