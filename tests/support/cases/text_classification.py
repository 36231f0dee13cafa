"""Support tickets labelled by the topic of the first word, which word counts cannot predict."""

import random
from pathlib import Path

import pandas as pd

from tests.support.pipeline import Case
from tests.support.tickets import FILLER, TOPICS, WORDS
from tests.support.tiny import make_tiny_base


def make(folder: Path) -> Case:
    draw, rows = random.Random(1), []
    for number in range(240):
        topics = draw.sample(sorted(TOPICS), 3)
        first, second, third = (draw.choice(TOPICS[topic][:2]) for topic in topics)
        # Each word has the same neighbours, so bigrams cannot predict it either.
        text = f"and {first} and {second} and {third} and {' '.join(draw.sample(FILLER, 3))}"
        rows.append({"id": f"t{number:03d}", "group": f"g{number // 3:02d}", "text": text, "label": topics[0]})
    bad = [{"label": "weather"}, {"label": "Billing"}, {"text": "\u200b\u200b"}]
    rows += [rows[0] | {"id": f"bad{index}"} | cells for index, cells in enumerate(bad)]
    words = sorted({*WORDS, "and"})
    return Case(
        *("text_classification", pd.DataFrame(rows), make_tiny_base(folder, words)),
        metric="macro_f1",
        measure="accuracy",
        baseline="tfidf",
        margin=0.2,
        bad={"label is not in validate.labels": 2, "text is empty": 1},
        changes={
            "validate": {"labels": sorted(TOPICS)},
            "train": {"epochs": 6, "evaluations_per_epoch": 1, "batch_size": 8, "learning_rate": 3.0e-3},
        },
    )
