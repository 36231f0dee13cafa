"""Texts of a few words per topic: a masked word can be predicted from its neighbours."""

import random
from pathlib import Path

import pandas as pd

from tests.support.encoders import make_encoder
from tests.support.pipeline import Case

TOPICS = [["invoice", "refund"], ["router", "cable"], ["screen", "battery"], ["flight", "hotel"]]


def make(folder: Path) -> Case:
    draw, texts = random.Random(3), dict[str, None]()
    while len(texts) < 160:
        texts[" ".join(draw.choice(TOPICS[len(texts) % 4]) for _ in range(9))] = None
    rows = [{"id": f"t{number:03d}", "group": f"g{number:03d}", "text": text} for number, text in enumerate(texts)]
    bad = [{"id": f"bad{index}", "group": "bad", "text": text} for index, text in enumerate(["\u200b\u200b", "  ", "a\x00b"])]
    return Case(
        *("masked_lm", pd.DataFrame([*rows, *bad]), make_encoder(folder, "bert", list(texts))),
        metric="log_likelihood",
        measure="log_likelihood",
        baseline="unigram",
        margin=0.5,
        bad={"text is empty": 2, "text has a control character": 1},
        changes={
            "gates": {"floor": {"at_least": -100.0}, "leakage": {"near_duplicate": 1}},  # all texts consist of eight words
            "preprocess": {"near_duplicate": 1},
            "train": {"epochs": 4, "evaluations_per_epoch": 1},
        },
    )
