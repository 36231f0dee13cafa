"""The base class of the tasks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.errors import BadParams
from components.core.section import Section
from components.model.support import pretrained
from components.model.support.metrics import Metric


class Base:
    """Default implementation of the protocol `Task`, for a task whose answers are free texts; `options` are its settings."""

    Options: type[Section] = Section
    columns: tuple[str, ...] = ("text", "label")
    inputs: tuple[str, ...] = ("text",)
    example: Mapping[str, str] = {"text": "An example of a text to be answered."}
    validation_metrics: tuple[str, ...]
    by_token = False
    test_metrics: Mapping[str, Metric]
    baselines: tuple[str, ...]
    classes = False
    normalised = False
    one_answer = False
    scored = False
    evaluation_batch = 64
    splits_long_rows = False
    compares_rows = False
    unsupported_settings: Mapping[str, str] = {}
    augmentable_columns: tuple[str, ...] = ()
    label_column: str | None = None

    def __init__(self, options: Any) -> None:
        """Store the settings."""
        self.options = options

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return the rows unchanged."""
        return rows, {}

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Return the cell: it names no labels."""
        return cell

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return no labels."""
        return ()

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return no labels."""
        return {}

    def names(self, labels: Iterable[str]) -> frozenset[str]:
        """Return the labels."""
        return frozenset(labels)

    def fit_options(self, train: pd.DataFrame) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer of a model folder without network and custom code; BadModel."""
        return pretrained.load_tokenizer(base)

    def longest_input(self, base: Path, tokenizer: Any) -> int:
        """Return the maximum number of input tokens of the model in `base`."""
        return pretrained.longest_input(base, tokenizer)

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each `text` in tokens, special tokens included, before truncation."""
        inputs = tokenizer(
            list(rows["text"]), truncation=False, padding=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        return np.array([len(ids) for ids in inputs["input_ids"]], dtype=np.int64)

    def loss(self, spec: ModelSpec, smoothing: float) -> Callable[[Any, Any], Any] | None:
        """Return None: the loss is the model's own."""
        return None

    def items(self, spec: ModelSpec) -> Callable[[Any], float] | None:
        """Return None: the loss is the mean of its labels, or of its rows where they have none, or numbers for labels."""
        return None

    def vectors(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Refuse: a task without classes has no texts of one label."""
        raise BadParams(f"params.yaml: train.contrastive_start is set, and {type(self).__module__} offers no vectors of texts for it")

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return the logits unchanged."""
        return logits[0] if isinstance(logits, tuple) else logits

    def calibrate(self, folder: Path, validation: pd.DataFrame) -> Mapping[str, Any]:
        """Return nothing: no setting is fitted after training."""
        return {}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return no slices."""
        return {}

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return nothing."""
        return ()
