"""Slices and report tables of token classification."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.model.support.metrics import f1, ratio
from components.model.tasks.token_classification.rows import Rows
from components.model.tasks.token_classification.schemes import Entity

_ROWS = 30
_TYPES = 30
_LENGTHS = (5, 10, 20, 40)
MISSED, SPURIOUS = "(missed)", "(spurious)"


def slices(rows: Rows, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """Return slices by number of tokens, and one for each of the most common entity types."""
    lengths = [_between(len(rows.tokens(row))) for row in rows.records(frame)]
    if rows.scheme == "plain":
        return {"sentence_length": lengths}
    row_types = [{name for _, _, name in rows.entities(label)} for label in frame["label"]]
    common = sorted(name for name, _ in Counter(name for types in row_types for name in sorted(types)).most_common(_TYPES))
    return {"sentence_length": lengths, **{f"has {name}": ["yes" if name in types else "" for types in row_types] for name in common}}


def tables(rows: Rows, frame: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
    """Return the tables for the test rows `frame` and their predictions in the same order."""
    scores, confused, texts = Counter[tuple[str, str]](), Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for row, expected, predicted in zip(rows.records(frame), predictions.expected.tolist(), predictions.predicted.tolist(), strict=True):
        expected_units, predicted_units = (_units(rows, label) for label in (expected, predicted))
        scores.update(("expected", name) for _, _, name in expected_units)
        scores.update(("predicted", name) for _, _, name in predicted_units)
        scores.update(("right", name) for _, _, name in set(expected_units) & set(predicted_units))
        errors = list(_errors(expected_units, predicted_units))
        confused.update(tuple(error[1:]) for error in errors)
        texts.update((rows.entity_text(row, entity), *types[:2]) for entity, *types in errors)
    unit = "tags" if rows.scheme == "plain" else "entities"
    columns = ("expected", "predicted", "boundaries", "count") if rows.scheme != "plain" else ("expected", "predicted", "count")
    scored = ("type", "expected", "precision", "recall", "F1")
    return (
        ReportTable(title=f"{unit.capitalize()} by type", columns=scored, rows=tuple(_by_type(scores))),
        ReportTable(
            title=f"{unit.capitalize()} confused, missed and spurious", columns=columns, rows=_most_common(confused, len(columns) - 1)
        ),
        ReportTable(title="Texts with most errors", columns=("text", "expected", "predicted", "count"), rows=_most_common(texts, 3)),
    )


def _units(rows: Rows, label: str) -> list[Entity]:
    """Return the entities of a label; plain tags are entities of one token."""
    if rows.scheme == "plain":
        return [(index, index + 1, tag) for index, tag in enumerate(label.split(" "))]
    return rows.entities(label)


def _errors(expected: Sequence[Entity], predicted: Sequence[Entity]) -> Iterable[tuple[Entity, str, str, str]]:
    """Yield each error: the entity, its expected type, its predicted type, and whether the boundaries agree.

    An expected entity is compared with the predicted one of the same boundaries, else with the first overlapping one; a predicted entity
    without overlap is spurious.
    """
    types = {(begin, end): name for begin, end, name in predicted}
    for entity in expected:
        begin, end, name = entity
        if (begin, end) in types:
            if types[begin, end] != name:
                yield entity, name, types[begin, end], "same"
            continue
        overlapping = [entity_type for first, last, entity_type in predicted if first < end and begin < last]
        yield entity, name, overlapping[0] if overlapping else MISSED, "other" if overlapping else ""
    for entity in predicted:
        begin, end, name = entity
        if not any(first < end and begin < last for first, last, _ in expected):
            yield entity, SPURIOUS, name, ""


def _by_type(scores: Counter[tuple[str, str]]) -> Iterable[tuple[str, int, float, float, float]]:
    """Yield precision, recall and F1 of the most common types."""
    counts = Counter({name: scores["expected", name] for _, name in scores})
    for name, expected in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_ROWS]:
        hits, predicted = scores["right", name], scores["predicted", name]
        values = (ratio(hits, predicted), ratio(hits, expected), f1(hits, predicted, expected))  # type: ignore[arg-type]
        yield (name, expected, *(round(float(value), 4) for value in values))  # type: ignore[misc]


def _most_common(counts: Counter[tuple[str, ...]], columns: int) -> tuple[tuple[str | int, ...], ...]:
    """Return the most common keys, cut to `columns`, each with its count; ties by name."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_ROWS]
    return tuple((*key[:columns], count) for key, count in ordered)


def _between(length: int) -> str:
    """Return the length band of a number of tokens."""
    bands = zip((0, *_LENGTHS), _LENGTHS, strict=False)
    return next((f"{below + 1} to {upto} tokens" for below, upto in bands if length <= upto), f"more than {_LENGTHS[-1]} tokens")
