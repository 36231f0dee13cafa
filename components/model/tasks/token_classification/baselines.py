"""What a model must beat: the commonest tag for every token, and for each token the tag that it most often had in training."""

from collections import Counter, defaultdict
from collections.abc import Mapping

import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.model.tasks.token_classification.rows import Rows
from components.model.tasks.token_classification.schemes import OUTSIDE, repaired


def predict(rows: Rows, train: pd.DataFrame, test: pd.DataFrame) -> Mapping[str, ModelOutput]:
    """Return the answers of `majority` and of `frequent_tag`, both counted on `train`, to the rows `test`.

    A token that training does not have gets the commonest tag, which of a scheme is O; entities without a beginning are given one.
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows.records(train):
        for token, tag in zip(rows.tokens(row), rows.tags(row), strict=True):
            seen[token][tag] += 1
    total = sum(seen.values(), Counter[str]())
    common = _commonest(total) if rows.scheme == "plain" else OUTSIDE
    known = {token: _commonest(tags) for token, tags in seen.items()}
    tests = [(row, rows.tokens(row)) for row in rows.records(test)]
    majority = [rows.answer(row, [common] * len(tokens)) for row, tokens in tests]
    frequent = [rows.answer(row, repaired([known.get(token, common) for token in tokens], rows.scheme)) for row, tokens in tests]
    return {"majority": ModelOutput.texts(majority), "frequent_tag": ModelOutput.texts(frequent)}


def _commonest(tags: Counter[str]) -> str:
    """Return the tag that was counted most; of equals the first by name."""
    return min(tags, key=lambda tag: (-tags[tag], tag))
