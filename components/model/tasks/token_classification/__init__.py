"""Token classification: predicts one tag per token (entities, parts of speech), or character spans in a raw text.

The data columns are `tokens` and `tags` (JSON lists or separated by white space), or `text` and `spans` (a JSON list of [start, end,
label]). The tag is predicted at the first sub-word of a token, by a linear head or a conditional random field (`crf.py`). A sentence with
more than `max_length` sub-words is split into parts, so that every token gets a tag.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.errors import BadData
from components.core.section import Section
from components.core.text import canonical_label
from components.model import tasks
from components.model.support import linear_probe, pretrained, probe_baseline
from components.model.support.batches import token_table
from components.model.support.frozen_features import FrozenFeatures
from components.model.support.metrics import Floats, Metric, f1, mean, ratio
from components.model.tasks.token_classification import encoding, tables
from components.model.tasks.token_classification.predictor import Tagger, start_from
from components.model.tasks.token_classification.rows import Row, Rows
from components.model.tasks.token_classification.schemes import OUTSIDE, Scheme, label_map, repair_tags, split_tag

_ENTITIES: Mapping[str, Metric] = {
    "entity_f1": Metric(("hits", "predicted", "expected"), f1, "F1 of entities; type and both ends must be correct (seqeval strict)"),
    "entity_precision": Metric(("hits", "predicted"), ratio, "share of the predicted entities that are correct"),
    "entity_recall": Metric(("hits", "expected"), ratio, "share of the expected entities that are found"),
}
_SENTENCES: Mapping[str, Metric] = {"sentence_accuracy": mean("right", "share of the rows without a mistake")}
_TOKENS: Mapping[str, Metric] = {"token_accuracy": Metric(("right_tokens", "tokens"), ratio, "share of the tokens with the expected tag")}
_UNLIMITED = 1 << 60  # sub-words


PORTFOLIO: tuple[Mapping[str, Any], ...] = (
    {"method": "probe"},
    {"method": "full", "head_start": "probe", "learning_rate": 3e-4, "epochs": 12, "batch_size": 16},
    {"method": "full", "head_start": "random", "learning_rate": 3e-4, "epochs": 6, "batch_size": 16},
    {"method": "full", "head_start": "probe", "learning_rate": 3e-4, "epochs": 12, "batch_size": 16, "task_options.head": "crf"},
    {"method": "full", "head_start": "probe", "learning_rate": 1e-4, "epochs": 6, "batch_size": 16},
    {"method": "lora", "head_start": "probe", "learning_rate": 2e-3, "epochs": 12, "batch_size": 16, "lora_targets": "all-linear"},
)


class Options(Section):
    """The data format, the tagging scheme and the head."""

    data: Literal["tokens", "spans"] = Field("tokens", description="data columns: tokens and tags, or text and spans (of characters)")
    scheme: Scheme = Field("BIO", description="tagging scheme of entities; plain: tags without entities, e.g. parts of speech")
    types: tuple[str, ...] = Field((), description="allowed entity types (tags with scheme plain); empty: all in the data")
    head: Literal["linear", "crf"] = Field(
        "linear", description="linear: independent tags; crf: the most likely tag sequence of a sentence"
    )
    transition_rate: float = Field(1.0, ge=1, le=10_000, description="crf: learning rate multiplier of the transitions")

    @field_validator("types")
    @classmethod
    def _are_names(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(canonical_label, types))
        if len(set(names)) < len(names) or not all(names) or any(name != name.strip() for name in types):
            raise ValueError("expected different names without surrounding spaces, e.g. PER for B-PER")
        return names

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.data == "spans" and self.scheme == "plain":
            raise ValueError("spans are entities, which the scheme plain does not support; choose BIO or BIOES")
        if self.head != "crf" and self.transition_rate != type(self).model_fields["transition_rate"].default:
            raise ValueError("transition_rate is used only with head crf; remove it, or set head: crf")
        return self


class Task(tasks.Task):
    """Predict a tag per token, or labelled spans of a raw text."""

    Options = Options
    portfolio = PORTFOLIO
    baselines = ("majority", "frequent_tag", "probe")
    searchable_options = ("head", "transition_rate")
    one_answer = True
    splits_long_rows = True
    by_token = True  # in training each part of a long sentence counts as a row

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.rows = Rows(options.data, options.scheme, options.types)
        self.columns = self.rows.columns
        self.inputs, self.label_column = self.columns[:1], self.columns[1]
        self.example = {self.inputs[0]: "Ada Lovelace was born in London ."}
        of_tokens = {} if options.data == "spans" else _TOKENS
        self.test_metrics = {**of_tokens, **_SENTENCES} if options.scheme == "plain" else {**_ENTITIES, **_SENTENCES, **of_tokens}
        self.validation_metrics = tuple(self.test_metrics)
        self.unsupported_settings = {
            "calibration": "an answer is a sequence of tags without a probability",
            "class_biases": "an answer is a sequence of tags, not a class",
            "contrastive_start": "labels belong to tokens, so texts do not share labels",
            "augment_copies": "labels are positions in the text, which change with its characters",
        }
        if options.head == "crf":
            reason = "the CRF learns the likelihood of whole sentences, not of single tags"
            self.unsupported_settings |= {"label_smoothing": reason, "r_drop": reason}

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Apply `rename` to the entity types or the plain tags of a cell."""
        return self.rows.rename_labels(cell, rename)

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return the rows with `text` and the tags or spans in `label`, and the errors by row index."""
        return self.rows.read(rows)

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the tags of `rows`, completed by the scheme: O first, then every prefix of every type."""
        return label_map((tag for tags in self._tags(rows) for tag in tags), self.options.scheme)

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return the number of rows with each tag."""
        counts = pd.Series([tag for tags in self._tags(rows) for tag in set(tags)], dtype=object).value_counts()
        return {str(tag): int(count) for tag, count in counts.items()}

    def names(self, labels: Iterable[str]) -> frozenset[str]:
        """Return the entity types without scheme prefixes; plain tags unchanged."""
        return frozenset(labels) if self.options.scheme == "plain" else frozenset(split_tag(tag)[1] for tag in labels) - {""}

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer; raise BadModel if it is not a fast tokenizer."""
        return pretrained.load_tokenizer(base, fast="does not map sub-words to tokens")

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the number of sub-words of each row, including special tokens."""
        parts = self._parts(self.rows.records(rows), tokenizer, _UNLIMITED)
        return np.array([part.length for part in parts], dtype=np.int64)

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the model inputs without padding, `labels` (tag index at the start of a token, else -100) and `length`.

        A long row becomes several rows; an entity at the cut becomes two. Raise BadData if a tag is not in the label map.
        """
        indexes = {label: index for index, label in enumerate(spec.labels)}
        records = self.rows.records(rows)
        tags = [self.rows.tags(row) for row in records]
        if unknown := sorted({tag for row in tags for tag in row} - set(indexes)):
            raise BadData(f"tags {', '.join(map(repr, unknown))} are not in the label map ({', '.join(spec.labels)})")
        parts = self._parts(records, tokenizer, spec.max_length)
        names = parts[0].inputs if parts else ["input_ids"]
        part_tags = [repair_tags(tags[part.row][part.first : part.last], self.options.scheme) for part in parts]
        labels = [part.labels([indexes[tag] for tag in row]) for part, row in zip(parts, part_tags, strict=True)]
        inputs = {name: [part.inputs[name] for part in parts] for name in names}
        return token_table(inputs, labels=pa.array(labels, pa.list_(pa.int64())))

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model with a linear or CRF head in float32; raise BadModel if it cannot be loaded."""
        return start_from(base, spec, self.options)

    def fit_head(self, features: FrozenFeatures, spec: ModelSpec, metric: str) -> linear_probe.LinearHead | None:
        """Return the head of multinomial logistic regression over tokens, for a CRF the emissions; a fold has whole sentences."""

        def evaluate(held: FrozenFeatures, logits: Floats) -> tuple[npt.NDArray[Any], npt.NDArray[Any], float]:
            expected, outputs = by_row(held.targets, held.rows), self._decoded(logits, held.rows, spec)
            return outputs, expected, self.validate(outputs, expected, spec)[metric]

        return linear_probe.fit_head(features, linear_probe.multinomial(len(spec.labels)), linear_probe.weightings(None), evaluate)

    def _decoded(self, logits: Floats, rows: npt.NDArray[np.int64], spec: ModelSpec) -> npt.NDArray[Any]:
        """Return the predicted tag indexes (rows, positions) of the logits of tokens (n, tags); with a CRF that has no transitions yet."""
        if self.options.head != "crf":
            return by_row(logits.argmax(axis=-1), rows)
        import torch

        from components.model.tasks.token_classification.crf import Crf

        emissions = torch.from_numpy(by_row(logits, rows)).float()
        lengths = torch.from_numpy(np.unique(rows, return_counts=True)[1])
        with torch.no_grad():
            return np.asarray(Crf(spec.labels, self.options.scheme).decode(emissions, lengths).numpy())

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator that pads rows and labels to the longest row of a batch."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(tokenizer)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return the predicted tag index at each position."""
        return logits[-1] if self.options.head == "crf" else super().condense(logits, labels).argmax(dim=-1)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute all metrics from tag indexes (rows, positions); parts of a long row count as rows."""
        begins = np.asarray(expected) != encoding.IGNORED
        texts = [
            [" ".join(spec.labels[index] for index in row[mask]) for row, mask in zip(np.asarray(indexes), begins, strict=True)]
            for indexes in (expected, outputs)
        ]
        statistics = Rows("tokens", self.options.scheme).statistics(*texts)
        return {name: metric.of(statistics) for name, metric in self.test_metrics.items()}

    def predictor(self, folder: Path) -> Tagger:
        """Load a saved model folder."""
        return Tagger(folder)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return `hits`, `predicted` and `expected` entities, `right_tokens`, `tokens`, `right` and `rows` of each row."""
        return self.rows.statistics(expected, predicted)

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, tasks.Baseline]:
        """Predict the most common tag, the most common tag of each token, counted on `train`, and the tags of a linear probe.

        An unknown token gets the most common tag (O in BIO and BIOES); invalid tag sequences are repaired.
        """
        rows, scheme = self.rows, self.options.scheme
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for row in rows.records(train):
            for token, tag in zip(rows.tokens(row), rows.tags(row), strict=True):
                counts[token][tag] += 1
        common = _most_common(sum(counts.values(), Counter[str]())) if scheme == "plain" else OUTSIDE
        frequent_tags = {token: _most_common(tags) for token, tags in counts.items()}
        look_up = partial(self._look_up, frequent_tags, common)
        probe = probe_baseline.fit(self, train, spec, base, look_up)
        return {"majority": partial(self._look_up, {}, common), "frequent_tag": look_up, "probe": probe}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return slices by number of tokens, and one per entity type."""
        return tables.slices(self.rows, rows)

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return scores by type, confused types, and the texts with the most errors."""
        return tables.tables(self.rows, rows, predictions)

    def _look_up(self, tags: Mapping[str, str], unknown: str, test: pd.DataFrame) -> ModelOutput:
        """Return the tag of each token, `unknown` for others."""
        answers = []
        for row in self.rows.records(test):
            row_tags = [tags.get(token, unknown) for token in self.rows.tokens(row)]
            answers.append(self.rows.answer(row, repair_tags(row_tags, self.options.scheme)))
        return ModelOutput.texts(answers)

    def _parts(self, records: Sequence[Row], tokenizer: Any, max_length: int) -> list[encoding.WordPiece]:
        return encoding.parts_of(
            [self.rows.tokens(row) for row in records], tokenizer, max_length, [self.rows.gaps(row) for row in records]
        )

    def _tags(self, rows: pd.DataFrame) -> list[list[str]]:
        return [self.rows.tags(row) for row in self.rows.records(rows)]


def by_row(values: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the `values` of tokens (n, …), in order of their `rows`, as an array (rows, positions, …), filled up with `IGNORED`."""
    _, first, members, counts = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
    table = np.full((len(counts), counts.max(initial=0), *values.shape[1:]), encoding.IGNORED, dtype=values.dtype)
    table[members, np.arange(len(rows)) - first[members]] = values
    return table


def _most_common(tags: Counter[str]) -> str:
    """Return the most frequent tag; on ties the first by name."""
    return min(tags, key=lambda tag: (-tags[tag], tag))
