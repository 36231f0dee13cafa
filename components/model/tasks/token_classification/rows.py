"""Parse rows of either data format into tokens, tags and entities, and count correct answers."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.core.errors import BadData
from components.core.text import canonical_label
from components.model.tasks.token_classification import cells
from components.model.tasks.token_classification.cells import BadCell, Span
from components.model.tasks.token_classification.schemes import OUTSIDE, Entity, Scheme, entities, split_tag, tag_error, to_tags

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """Reads rows with tokens and tags, or with a text and spans (its words are the tokens); `types` limits the entity types."""

    data: Literal["tokens", "spans"]
    scheme: Scheme
    types: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, str]:
        """The input and the label column."""
        return ("tokens", "tags") if self.data == "tokens" else ("text", "spans")

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Apply `rename` to each entity type or plain tag; return an unreadable cell unchanged."""
        try:
            if self.data == "spans":
                return cells.rename_spans(cell, rename)
            tags = cells.texts_of(cell, "tags")
        except BadCell:
            return cell
        new = [self._rename(tag, rename) for tag in tags]
        if new == tags:
            return cell
        return json.dumps(new, ensure_ascii=False) if cell.lstrip().startswith("[") else " ".join(new)

    def _rename(self, tag: str, rename: Callable[[str], str]) -> str:
        if self.scheme == "plain":
            return rename(tag)
        prefix, entity_type = split_tag(tag)
        return f"{canonical_label(prefix)}-{rename(entity_type)}" if entity_type else canonical_label(tag)

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with `text` and `label`, and the errors by row index."""
        texts, labels, faults = list[str](), list[str](), dict[int, str]()
        for index, (cell, answer) in enumerate(zip(*(rows[name] for name in self.columns), strict=True)):
            text, label = str(cell), ""
            try:
                text, label = self._read(text, str(answer))
            except BadCell as reason:
                faults[index] = str(reason)
            texts.append(text)
            labels.append(label)
        return rows.assign(text=pd.Series(texts, rows.index, dtype="str"), label=pd.Series(labels, rows.index, dtype="str")), faults

    def _read(self, question: str, answer: str) -> tuple[str, str]:
        """Return text and label of a row; raise BadCell."""
        answer = self.rename_labels(answer, canonical_label)
        if self.data == "spans":
            words = cells.words_in(question)
            entities = cells.to_entities(question, cells.spans_of(answer), words)
            self._check(kind for _, _, kind in entities)
            return question, cells.span_text(cells.to_spans(entities, words))
        tokens, tags = cells.sentence(question, answer)
        if reason := tag_error(tags, self.scheme):
            raise BadCell(reason)
        self._check(tags if self.scheme == "plain" else (split_tag(tag)[1] for tag in tags if tag != OUTSIDE))
        return " ".join(tokens), " ".join(tags)

    def _check(self, types: Iterable[str]) -> None:
        if self.types and (unknown := sorted(set(types) - set(self.types))):
            raise BadCell(f"type {unknown[0]!r} is not in task_options.types")

    def records(self, rows: pd.DataFrame) -> list[Row]:
        """Return `rows` as dictionaries."""
        return [{str(name): cell for name, cell in row.items()} for row in rows.to_dict("records")]

    def tokens(self, row: Row) -> list[str]:
        """Return the tokens of a row; raise BadData for an invalid JSON list."""
        if self.data == "spans":
            text = str(row["text"])
            return [text[begin:end] for begin, end in cells.words_in(text)]
        try:
            return cells.texts_of(str(row["tokens"]), "tokens") if str(row["tokens"]).strip() != "[]" else []
        except BadCell as reason:
            raise BadData(f"{reason}: {str(row['tokens'])[:80]!r}") from None

    def gaps(self, row: Row) -> list[str]:
        """Return the text before each token of a row: a space, or the characters of the raw text."""
        if self.data == "tokens":
            return [" "] * len(self.tokens(row))
        text, words = str(row["text"]), cells.words_in(str(row["text"]))
        return [text[stop:begin] for stop, (begin, _) in zip([0, *(end for _, end in words)], words, strict=False)]

    def tags(self, row: Row) -> list[str]:
        """Return the expected tags of a valid row."""
        if self.data == "tokens":
            return str(row["label"]).split(" ")
        words = cells.words_in(str(row["text"]))
        return to_tags(cells.to_entities(str(row["text"]), _spans(str(row["label"])), words), len(words), self.scheme)

    def answer(self, row: Row, tags: Sequence[str]) -> str:
        """Convert tags of a row to the format of `label`."""
        if self.data == "tokens":
            return " ".join(tags)
        return cells.span_text(cells.to_spans(entities(tags, self.scheme), cells.words_in(str(row["text"]))))

    def entities(self, label: str) -> list[Entity]:
        """Return the entities of a label, in tokens, or in characters if the data are spans."""
        return list(_spans(label)) if self.data == "spans" else entities(label.split(" "), self.scheme)

    def entity_text(self, row: Row, entity: Entity) -> str:
        """Return the text of an entity."""
        begin, end, _ = entity
        return str(row["text"])[begin:end] if self.data == "spans" else " ".join(self.tokens(row)[begin:end])

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Return the row statistics of the metrics, each (rows,)."""
        counts = [self._count(truth, answer) for truth, answer in zip(expected, predicted, strict=True)]
        names = ("hits", "expected", "predicted", "right_tokens", "tokens", "right", "rows")
        columns = np.array(counts, dtype=np.float64).reshape(len(counts), len(names)).T
        return dict(zip(names, columns, strict=True))

    def _count(self, expected: str, predicted: str) -> tuple[int, ...]:
        truth, answer = (set(self.entities(label)) if self.scheme != "plain" else set() for label in (expected, predicted))
        correct = (truth == answer) if self.data == "spans" else expected == predicted
        tags = [] if self.data == "spans" else expected.split(" ")
        right_tokens = sum(map(str.__eq__, tags, predicted.split(" ")))
        return len(truth & answer), len(truth), len(answer), right_tokens, len(tags), int(correct), 1


def _spans(label: str) -> list[Span]:
    return [(start, end, kind) for start, end, kind in json.loads(label)]
