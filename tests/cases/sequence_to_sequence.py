"""Phrases of a few words, word by word in another language."""

import random
from pathlib import Path

import pandas as pd

from tests.line import Case
from tests.tiny_generators import make_bart

WORDS = {"red": "rot", "blue": "blau", "dog": "hund", "cat": "katze", "eats": "frisst", "runs": "rennt", "big": "gross", "old": "alt"}


def phrases(rows: int = 200) -> list[tuple[str, str]]:
    rng = random.Random(5)
    drawn = [rng.sample(sorted(WORDS), rng.randint(2, 4)) for _ in range(rows)]
    return [(" ".join(words), " ".join(WORDS[word] for word in words)) for words in drawn]


def make(folder: Path) -> Case:
    rows = [{"source": source, "target": target} for source, target in phrases()]
    bad = [{"source": "red", "target": "\u200b\u200b"}, {"source": "red"}, {"source": "  ", "target": "rot"}]
    base = make_bart(folder, [text for row in rows for text in row.values()])
    return Case(
        *("sequence_to_sequence", pd.DataFrame([*rows, *bad]), base),
        metric="log_likelihood",
        measure="chrf",
        baseline="lead",
        bad={"target is empty": 2, "source is empty": 1},
        options={"max_target_length": 16, "max_new_tokens": 12},
    )
