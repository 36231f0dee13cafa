"""The baselines: the most common tag, and the most common tag of each token."""

from collections import Counter, defaultdict
from collections.abc import Mapping

import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.model.tasks.token_classification.rows import Rows
from components.model.tasks.token_classification.schemes import OUTSIDE, repair_tags


def predict(rows: Rows, train: pd.DataFrame, test: pd.DataFrame) -> Mapping[str, ModelOutput]:
    """Return the predictions of `majority` and `frequent_tag`, counted on `train`, for the rows `test`.

    An unknown token gets the most common tag (O in BIO and BIOES); invalid tag sequences are repaired.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows.records(train):
        for token, tag in zip(rows.tokens(row), rows.tags(row), strict=True):
            counts[token][tag] += 1
    total = sum(counts.values(), Counter[str]())
    common = _most_common(total) if rows.scheme == "plain" else OUTSIDE
    frequent_tags = {token: _most_common(tags) for token, tags in counts.items()}
    tests = [(row, rows.tokens(row)) for row in rows.records(test)]
    majority = [rows.answer(row, [common] * len(tokens)) for row, tokens in tests]
    frequent = [rows.answer(row, repair_tags([frequent_tags.get(token, common) for token in tokens], rows.scheme)) for row, tokens in tests]
    return {"majority": ModelOutput.texts(majority), "frequent_tag": ModelOutput.texts(frequent)}


def _most_common(tags: Counter[str]) -> str:
    """Return the most frequent tag; on ties the first by name."""
    return min(tags, key=lambda tag: (-tags[tag], tag))
