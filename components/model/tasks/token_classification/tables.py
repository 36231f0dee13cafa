"""What people want to see of a tagger: scores by type, what was taken for what, and the texts that most mistakes are made on."""

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
    """Return the rows by their number of tokens, and for each of the commonest types of entity whether they have one."""
    lengths = [_between(len(rows.tokens(row))) for row in rows.records(frame)]
    if rows.scheme == "plain":
        return {"sentence_length": lengths}
    kinds = [{kind for _, _, kind in rows.entities(label)} for label in frame["label"]]
    common = sorted(kind for kind, _ in Counter(kind for own in kinds for kind in sorted(own)).most_common(_TYPES))
    return {"sentence_length": lengths, **{f"has {kind}": ["yes" if kind in own else "" for own in kinds] for kind in common}}


def tables(rows: Rows, frame: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
    """Return the tables of the test rows `frame` and the answers to them, in the same order."""
    scores, confused, texts = Counter[tuple[str, str]](), Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for row, expected, predicted in zip(rows.records(frame), found.expected.tolist(), found.predicted.tolist(), strict=True):
        wanted, given = (_units(rows, label) for label in (expected, predicted))
        scores.update(("expected", kind) for _, _, kind in wanted)
        scores.update(("predicted", kind) for _, _, kind in given)
        scores.update(("right", kind) for _, _, kind in set(wanted) & set(given))
        mistakes = list(_mistakes(wanted, given))
        confused.update(tuple(mistake[1:]) for mistake in mistakes)
        texts.update((rows.named(row, place), *kinds[:2]) for place, *kinds in mistakes)
    unit = "tags" if rows.scheme == "plain" else "entities"
    columns = ("expected", "predicted", "boundaries", "count") if rows.scheme != "plain" else ("expected", "predicted", "count")
    scored = ("type", "expected", "precision", "recall", "F1")
    return (
        ReportTable(title=f"{unit.capitalize()} by type", columns=scored, rows=tuple(_by_type(scores))),
        ReportTable(
            title=f"{unit.capitalize()} taken for others, missed and spurious", columns=columns, rows=_most(confused, len(columns) - 1)
        ),
        ReportTable(title="Texts with most mistakes", columns=("text", "expected", "predicted", "count"), rows=_most(texts, 3)),
    )


def _units(rows: Rows, label: str) -> list[Entity]:
    """Return the entities of a label, or its tags, each an entity of one token, where they are plain."""
    if rows.scheme == "plain":
        return [(place, place + 1, tag) for place, tag in enumerate(label.split(" "))]
    return rows.entities(label)


def _mistakes(wanted: Sequence[Entity], given: Sequence[Entity]) -> Iterable[tuple[Entity, str, str, str]]:
    """Yield each mistake: the entity, its expected type, its predicted type, and whether the boundaries agree.

    An expected entity is compared with the predicted one of the same boundaries, else with the first one that overlaps it; a
    predicted entity that overlaps no expected one is spurious.
    """
    places = {(begin, end): kind for begin, end, kind in given}
    for entity in wanted:
        begin, end, kind = entity
        if (begin, end) in places:
            if places[begin, end] != kind:
                yield entity, kind, places[begin, end], "same"
            continue
        near = [other for first, last, other in given if first < end and begin < last]
        yield entity, kind, near[0] if near else MISSED, "other" if near else ""
    for entity in given:
        begin, end, kind = entity
        if not any(first < end and begin < last for first, last, _ in wanted):
            yield entity, SPURIOUS, kind, ""


def _by_type(scores: Counter[tuple[str, str]]) -> Iterable[tuple[str, int, float, float, float]]:
    """Yield a row for each of the commonest types: precision, recall and F1."""
    kinds = Counter({kind: scores["expected", kind] for _, kind in scores})
    for kind, expected in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:_ROWS]:
        right, predicted = scores["right", kind], scores["predicted", kind]
        values = (ratio(right, predicted), ratio(right, expected), f1(right, predicted, expected))  # type: ignore[arg-type]
        yield (kind, expected, *(round(float(value), 4) for value in values))  # type: ignore[misc]


def _most(counts: Counter[tuple[str, ...]], columns: int) -> tuple[tuple[str | int, ...], ...]:
    """Return the commonest keys, cut to `columns`, each with its count; equal ones by name."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_ROWS]
    return tuple((*key[:columns], count) for key, count in ordered)


def _between(length: int) -> str:
    """Return the range that a number of tokens lies in."""
    for below, upto in zip((0, *_LENGTHS), _LENGTHS, strict=False):
        if length <= upto:
            return f"{below + 1} to {upto} tokens"
    return f"more than {_LENGTHS[-1]} tokens"
