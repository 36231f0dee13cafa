"""Token classification: a tag for each token, as parts of speech, or as the entities of a sentence; or spans of characters in a raw text.

Data are `tokens` and `tags`, each a JSON list or parted by white space, or `text` and `spans`, a JSON list of [start, end, label].
A tag is predicted at a token's first sub-word, by a linear head or by a conditional random field (`crf.py`); a sentence of more than
`max_length` sub-words is read in parts, so that every token gets a tag. Torch and transformers are imported inside the functions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.errors import BadData
from components.model.support.metrics import Metric, f1, mean, ratio
from components.model.support.task_base import Base
from components.model.tasks.token_classification import baselines, encoding, tables
from components.model.tasks.token_classification.options import Options
from components.model.tasks.token_classification.predictor import Tagger, start_from
from components.model.tasks.token_classification.rows import Row, Rows
from components.model.tasks.token_classification.schemes import label_map, parted, repaired

Floats = npt.NDArray[np.float64]

_ENTITIES: Mapping[str, Metric] = {
    "entity_f1": Metric(("hits", "predicted", "expected"), f1, "F1 of entities; type and both ends must be right (seqeval strict)"),
    "entity_precision": Metric(("hits", "predicted"), ratio, "share of the predicted entities that are right"),
    "entity_recall": Metric(("hits", "expected"), ratio, "share of the expected entities that are found"),
}
_SENTENCES: Mapping[str, Metric] = {"sentence_accuracy": mean("right", "share of the rows without a mistake")}
_TOKENS: Mapping[str, Metric] = {"token_accuracy": Metric(("right_tokens", "tokens"), ratio, "share of the tokens with the expected tag")}
_WHOLE = 1 << 60  # sub-words: no sentence has as many, so none is cut


class Task(Base):
    """A tag for each token of a sentence, or spans with labels for a raw text."""

    Options = Options
    baselines = ("majority", "frequent_tag")
    one_answer = True
    splits_long_rows = True
    by_token = True  # of a sentence that is read in parts, each part counts while training

    def __init__(self, options: Any) -> None:
        """Hold the settings, and what follows from them."""
        super().__init__(options)
        self.rows = Rows(options.data, options.scheme, options.types)
        self.columns = self.rows.columns
        self.inputs, self.label_column = self.columns[:1], self.columns[1]
        self.example = {self.inputs[0]: "Ada Lovelace was born in London ."}
        of_tokens = {} if options.data == "spans" else _TOKENS
        self.test_metrics = {**of_tokens, **_SENTENCES} if options.scheme == "plain" else {**_ENTITIES, **_SENTENCES, **of_tokens}
        self.validation_metrics = tuple(self.test_metrics)
        self.unsupported_settings = {
            "calibration": "an answer is a sequence of tags, without a probability",
            "contrastive_start": "labels are those of words, and a text has no label that others share",
            "augment_copies": "labels are places in the text, which move with its characters",
        }
        if options.head == "crf":
            whole = "the field learns the likelihood of whole sentences, not of each tag"
            self.unsupported_settings |= {"label_smoothing": whole, "r_drop": whole}

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Return tags or spans with the names that `rename` gives to the types of entities, or to plain tags."""
        return self.rows.rename_labels(cell, rename)

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return the rows with their text, and with their tags or spans as one text in `label`."""
        return self.rows.read(rows)

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the tags of `rows`, completed by their scheme: O first, and every prefix of every type."""
        return label_map((tag for tags in self._tags(rows) for tag in tags), self.options.scheme)

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return how many of the rows hold each tag."""
        found = pd.Series([tag for tags in self._tags(rows) for tag in set(tags)], dtype=object).value_counts()
        return {str(tag): int(count) for tag, count in found.items()}

    def names(self, labels: Iterable[str]) -> frozenset[str]:
        """Return the types of entities, without the prefixes of the scheme; plain tags as they are."""
        return frozenset(labels) if self.options.scheme == "plain" else frozenset(parted(tag)[1] for tag in labels) - {""}

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer; BadModel where it does not tell which token a sub-word belongs to."""
        return encoding.load_tokenizer(base)

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the sub-words of each row, special ones included."""
        parts = self._parts(self.rows.records(rows), tokenizer, _WHOLE)
        return np.array([part.length for part in parts], dtype=np.int64)

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the model's inputs without padding, `labels`, a tag's number where a token begins and -100 elsewhere, and `length`.

        A row that is too long becomes several; an entity that is cut by that is two.

        Raises:
            BadData: a row has a tag that is not in the label map.
        """
        number = {label: place for place, label in enumerate(spec.labels)}
        records = self.rows.records(rows)
        tags = [self.rows.tags(row) for row in records]
        if strange := sorted({tag for each in tags for tag in each} - set(number)):
            raise BadData(f"tags {', '.join(map(repr, strange))} are not in the label map ({', '.join(spec.labels)})")
        parts = self._parts(records, tokenizer, spec.max_length)
        names = sorted(parts[0].inputs) if parts else ["input_ids"]
        columns = {name: pa.array([part.inputs[name] for part in parts], pa.list_(pa.int32())) for name in names}
        own = [repaired(tags[part.row][part.first : part.last], self.options.scheme) for part in parts]
        labels = [part.labels([number[tag] for tag in each]) for part, each in zip(parts, own, strict=True)]
        columns["labels"] = pa.array(labels, pa.list_(pa.int64()))
        columns["length"] = pa.array([part.length for part in parts], pa.int32())
        return pa.table(columns)

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model with a linear head, or with a conditional random field on top of it, in float32; BadModel."""
        return start_from(base, spec, self.options)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return what pads a batch of encoded rows, and their labels, to its longest row."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(tokenizer)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return the number of the tag at each position: the likeliest one, or the field's."""
        return logits[-1] if self.options.head == "crf" else super().condense(logits, labels).argmax(dim=-1)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return all measures of tag numbers (rows, positions); a row that was cut counts as its parts."""
        begins = np.asarray(expected) != encoding.IGNORED
        texts = [
            [" ".join(spec.labels[number] for number in row[own]) for row, own in zip(np.asarray(numbers), begins, strict=True)]
            for numbers in (expected, outputs)
        ]
        found = Rows("tokens", self.options.scheme).statistics(*texts)
        return {name: measure.of(found) for name, measure in self.test_metrics.items()}

    def predictor(self, folder: Path) -> Tagger:
        """Load a saved model folder."""
        return Tagger(folder)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return `hits`, `predicted` and `expected` entities, `right_tokens` and `tokens`, and `right` and `rows`, of each row."""
        return self.rows.statistics(expected, predicted)

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, ModelOutput]:
        """Return what the baselines, counted on `train`, answer: the commonest tag, and the commonest tag of each token."""
        return baselines.predict(self.rows, train, test)

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the rows by their number of tokens, and for each type of entity the rows that have one."""
        return tables.slices(self.rows, rows)

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return scores by type, what was taken for what, and the texts that most mistakes are made on."""
        return tables.tables(self.rows, rows, found)

    def _parts(self, records: Sequence[Row], tokenizer: Any, max_length: int) -> list[encoding.WordPiece]:
        return encoding.parts_of(
            [self.rows.tokens(row) for row in records], tokenizer, max_length, [self.rows.gaps(row) for row in records]
        )

    def _tags(self, rows: pd.DataFrame) -> list[list[str]]:
        return [self.rows.tags(row) for row in self.rows.records(rows)]
