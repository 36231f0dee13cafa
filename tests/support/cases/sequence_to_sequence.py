"""Phrases with a colour; the target is the colour in another language."""

import random
from pathlib import Path

import pandas as pd

from tests.support.pipeline import Case
from tests.support.tiny_generators import make_bart

COLOURS = {"red": "rot", "blue": "blau", "green": "gruen", "black": "schwarz"}
FILLER = ["the", "big", "old", "dog", "cat", "runs", "eats", "here", "now", "very"]


def phrases(rows: int = 160) -> list[tuple[str, str]]:
    rng = random.Random(5)
    pairs: dict[str, str] = {}
    while len(pairs) < rows:
        colour = rng.choice(sorted(COLOURS))
        pairs[" ".join([colour, *rng.sample(FILLER, 3)])] = COLOURS[colour]
    return list(pairs.items())


def make(folder: Path) -> Case:
    rows = [{"source": source, "target": target} for source, target in phrases()]
    bad = [{"source": "red", "target": "\u200b\u200b"}, {"source": "red"}, {"source": "  ", "target": "rot"}]
    base = make_bart(folder, [text for row in rows for text in row.values()])
    return Case(
        *("sequence_to_sequence", pd.DataFrame([*rows, *bad]), base),
        metric="log_likelihood",
        measure="exact_match",
        baseline="lead",
        margin=0.5,
        bad={"target is empty": 2, "source is empty": 1},
        options={"max_target_length": 16, "max_new_tokens": 8},
        changes={
            "preprocess": {"near_duplicate": 1},
            "train": {"epochs": 8, "evaluations_per_epoch": 1, "batch_size": 8, "learning_rate": 7.0e-3},
        },
    )
