"""Phrases and their translations, without common words."""

import random
from pathlib import Path

import pandas as pd

from tests.support.encoders import make_encoder
from tests.support.pipeline import Case

WORDS = {"red": "rot", "blue": "blau", "dog": "hund", "cat": "katze", "eats": "frisst", "runs": "rennt", "big": "gross", "old": "alt"}


def make(folder: Path) -> Case:
    draw, rows = random.Random(6), dict[str, str]()
    while len(rows) < 160:
        words = draw.sample(sorted(WORDS), 4)
        rows[" ".join(words)] = " ".join(WORDS[word] for word in words)
    pairs = [
        {"id": f"p{index}", "group": f"g{index}", "anchor": source, "positive": target}
        for index, (source, target) in enumerate(rows.items())
    ]
    bad = [pairs[0] | {"id": f"bad{index}", "positive": text} for index, text in enumerate(["\u200b\u200b", "  "])]
    return Case(
        *("contrastive", pd.DataFrame([*pairs, *bad]), make_encoder(folder, "bert", [*rows, *rows.values()])),
        metric="mrr",
        measure="mrr",
        baseline="base",
        margin=0.4,
        bad={"positive is empty": 2},
        changes={"train": {"epochs": 4, "evaluations_per_epoch": 1}},
    )
