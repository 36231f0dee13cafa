"""Rows of either form of data as sentences: tokens, tags and entities; and what is counted of expected and predicted answers."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.core.errors import BadData
from components.core.text import canonical_label
from components.model.tasks.token_classification import reading
from components.model.tasks.token_classification.reading import Bad, Span
from components.model.tasks.token_classification.schemes import OUTSIDE, Entity, Scheme, entities, fault, parted, written

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """How rows are read: tokens and tags, or a text and the spans in it, whose words then are the tokens; of `types` only, if any."""

    data: Literal["tokens", "spans"]
    scheme: Scheme
    types: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, str]:
        """The columns of question and answer."""
        return ("tokens", "tags") if self.data == "tokens" else ("text", "spans")

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Return a cell of tags or spans with `rename` of each type, or of each plain tag; one that cannot be read as it is."""
        try:
            if self.data == "spans":
                return reading.renamed_spans(cell, rename)
            tags = reading.texts_of(cell, "tags")
        except Bad:
            return cell
        new = [self._renamed(tag, rename) for tag in tags]
        if new == tags:
            return cell
        return json.dumps(new, ensure_ascii=False) if cell.lstrip().startswith("[") else " ".join(new)

    def _renamed(self, tag: str, rename: Callable[[str], str]) -> str:
        if self.scheme == "plain":
            return rename(tag)
        prefix, kind = parted(tag)
        return f"{canonical_label(prefix)}-{rename(kind)}" if kind else canonical_label(tag)

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with `text` and `label`, and for each bad row, by its place, what is wrong with it."""
        texts, labels, faults = list[str](), list[str](), dict[int, str]()
        for place, (question, answer) in enumerate(zip(*(rows[name] for name in self.columns), strict=True)):
            text, label = str(question), ""
            try:
                text, label = self._read(text, str(answer))
            except Bad as reason:
                faults[place] = str(reason)
            texts.append(text)
            labels.append(label)
        return rows.assign(text=pd.Series(texts, rows.index, dtype="str"), label=pd.Series(labels, rows.index, dtype="str")), faults

    def _read(self, question: str, answer: str) -> tuple[str, str]:
        """Return text and label of a row; Bad."""
        answer = self.rename_labels(answer, canonical_label)
        if self.data == "spans":
            words = reading.words_in(question)
            found = reading.placed(question, reading.spans_of(answer), words)
            self._check(kind for _, _, kind in found)
            return question, reading.span_text(reading.as_spans(found, words))
        tokens, tags = reading.sentence(question, answer)
        if reason := fault(tags, self.scheme):
            raise Bad(reason)
        self._check(tags if self.scheme == "plain" else (parted(tag)[1] for tag in tags if tag != OUTSIDE))
        return " ".join(tokens), " ".join(tags)

    def _check(self, kinds: Iterable[str]) -> None:
        if self.types and (strange := sorted(set(kinds) - set(self.types))):
            raise Bad(f"type {strange[0]!r} is not in task_options.types")

    def records(self, rows: pd.DataFrame) -> list[Row]:
        """Return `rows` as mappings from column to cell."""
        return [{str(name): cell for name, cell in row.items()} for row in rows.to_dict("records")]

    def tokens(self, row: Row) -> list[str]:
        """Return the tokens of a row; BadData where the cell looks like a list and is none."""
        if self.data == "spans":
            text = str(row["text"])
            return [text[begin:end] for begin, end in reading.words_in(text)]
        try:
            return reading.texts_of(str(row["tokens"]), "tokens") if str(row["tokens"]).strip() != "[]" else []
        except Bad as reason:
            raise BadData(f"{reason}: {str(row['tokens'])[:80]!r}") from None

    def gaps(self, row: Row) -> list[str]:
        """Return what stands before each token of a row: a space, or in a raw text what stands there."""
        if self.data == "tokens":
            return [" "] * len(self.tokens(row))
        text, words = str(row["text"]), reading.words_in(str(row["text"]))
        return [text[stop:begin] for stop, (begin, _) in zip([0, *(end for _, end in words)], words, strict=False)]

    def tags(self, row: Row) -> list[str]:
        """Return the expected tags of a row that `read` found no fault with."""
        if self.data == "tokens":
            return str(row["label"]).split(" ")
        words = reading.words_in(str(row["text"]))
        return written(reading.placed(str(row["text"]), _spans(str(row["label"])), words), len(words), self.scheme)

    def answer(self, row: Row, tags: Sequence[str]) -> str:
        """Return the tags of a row's tokens in the form of `label`."""
        if self.data == "tokens":
            return " ".join(tags)
        return reading.span_text(reading.as_spans(entities(tags, self.scheme), reading.words_in(str(row["text"]))))

    def entities(self, label: str) -> list[Entity]:
        """Return the entities of a label: of tokens, or of characters where the data are spans."""
        return list(_spans(label)) if self.data == "spans" else entities(label.split(" "), self.scheme)

    def named(self, row: Row, entity: Entity) -> str:
        """Return the text of an entity."""
        begin, end, _ = entity
        return str(row["text"])[begin:end] if self.data == "spans" else " ".join(self.tokens(row)[begin:end])

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Return what each row, (rows,), adds to the sums of the measures."""
        counts = [self._count(one, other) for one, other in zip(expected, predicted, strict=True)]
        names = ("hits", "expected", "predicted", "right_tokens", "tokens", "right", "rows")
        columns = np.array(counts, dtype=np.float64).reshape(len(counts), len(names)).T
        return dict(zip(names, columns, strict=True))

    def _count(self, expected: str, predicted: str) -> tuple[int, ...]:
        wanted, found = (set(self.entities(label)) if self.scheme != "plain" else set() for label in (expected, predicted))
        right = (wanted == found) if self.data == "spans" else expected == predicted
        tags = [] if self.data == "spans" else expected.split(" ")
        right_tokens = sum(one == other for one, other in zip(tags, predicted.split(" "), strict=False))
        return len(wanted & found), len(wanted), len(found), right_tokens, len(tags), int(right), 1


def _spans(label: str) -> list[Span]:
    return [(start, end, kind) for start, end, kind in json.loads(label)]
