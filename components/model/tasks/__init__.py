"""The tasks: one package per task, found by its folder name.

A task is a package with a class `Task` derived from the one below. Importing this package or a task does not import torch.

Rows are tables of text. `read` adds two string columns to every row: `text` (the model input) and `label` (the expected answer).
Deduplication, leak checks, splits, slices and reports use only these two columns. A model answers with texts in the format of `label`.
A metric is a function of sums over rows (`Metric`); its confidence interval is computed from these sums.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core import plugins
from components.core.errors import BadParams
from components.core.section import Section
from components.model.support import pretrained, probe_baseline
from components.model.support.batches import token_lengths
from components.model.support.frozen_features import FrozenFeatures
from components.model.support.linear_probe import LinearHead
from components.model.support.metrics import Floats, Metric

FOLDER = Path(__file__).parent


Baseline = probe_baseline.Baseline
"""A fitted baseline: predicts rows with `columns`, `text` and `label`. Like a predictor, it uses `label` only for `measured`."""


class Predictor(Protocol):
    """A trained model that predicts raw rows, used by evaluation, the registered model and `retune predict`."""

    spec: ModelSpec

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Return the predictions for `rows`, a table with the task's `inputs`, in the same order.

        If `rows` also has the expected answers (all of `columns`, and `text` and `label` from `read`), `measured` holds statistics that
        need the model, such as log-likelihoods. The order and batching of the rows change a prediction by float32 rounding only.
        """


class Task(Protocol):
    """The base class of the class `Task` in a task package: its interface, with defaults for a task whose answers are free texts."""

    Options: type[Section] = Section
    """The settings class of the section `task_options`."""
    options: Any
    """The parsed settings."""
    columns: tuple[str, ...] = ("text", "label")
    """The required data columns."""
    inputs: tuple[str, ...] = ("text",)
    """The input columns of a trained model: the signature of the served model."""
    example: Mapping[str, str] = {"text": "An example of a text to be answered."}
    """One example row of `inputs`."""
    validation_metrics: tuple[str, ...]
    """The metrics that `validate` returns for the validation split; higher is better."""
    by_token: bool = False
    """Whether `validation_metrics` count tokens, so that they compare only models with the same tokenizer."""
    test_metrics: Mapping[str, Metric]
    """The metrics of the test split, for reports and gates, the most important first; higher is better."""
    baselines: tuple[str, ...]
    """The names of the baselines, the strongest last."""
    classes: bool = False
    """Whether `label` is one of a few classes: accuracy and F1 are then computed too, and every split must contain every class."""
    normalised: bool = False
    """Whether preprocessing may normalise `text`; false if offsets or tokens refer to positions in it."""
    one_answer: bool = False
    """Whether a text has only one correct answer, so that equal texts with different labels conflict."""
    scored: bool = False
    """Whether predictions without classes include a probability per label (`PROBABILITY` in `ModelOutput.measured`)."""
    evaluation_batch: int = 64
    """The minimum batch size on the validation split; small if the model output per row is large."""
    splits_long_rows: bool = False
    """Whether rows longer than the maximum input are split into parts instead of truncated."""
    compares_rows: bool = False
    """Whether the loss compares rows of a batch, so that gradient accumulation is not equivalent to one large batch."""
    unsupported_settings: Mapping[str, str] = {}
    """The fields of `train`, and `preprocess.augment_copies`, that the task does not support, each with the reason."""
    portfolio: tuple[Mapping[str, Any], ...] = ()
    """What `tune.strategy: auto` tries, in this order: fields of `train`, and options with the prefix `task_options.`."""
    row_metrics: bool = True
    """Whether `validate` may be called with some of the rows: false if a row's score depends on the others, as a rank does."""
    searchable_options: tuple[str, ...] = ()
    """The options that a search may choose: they change the model or its loss, but neither the encoded rows nor the metrics."""
    augmentable_columns: tuple[str, ...] = ()
    """The columns in which a typo does not change the answer; empty if `augment_copies` is unsupported."""
    label_column: str | None = None
    """The column that contains label names; None if answers are texts or numbers."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Apply `rename` to each label name in a valid cell of `label_column`, or in an answer."""
        return cell

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with `text` and `label`, and the error of each invalid row by its index (from 0).

        No cell of `columns` is missing or blank. `text` and `label` of an invalid row are not used.
        """
        return rows, {}

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the labels of `rows` in the order of the model outputs; empty if the task has no labels."""
        return ()

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return the number of `rows` with each label; empty if the task has no labels."""
        return {}

    def names(self, labels: Iterable[str]) -> frozenset[str]:
        """Return the names in `labels` that two models can share: entity types without the tagging scheme; else the labels."""
        return frozenset(labels)

    def fit_options(self, train: pd.DataFrame) -> Mapping[str, Any]:
        """Compute options from the training rows, e.g. class weights, as updates of `ModelSpec.options`."""
        return {}

    def complete_options(self, train: pd.DataFrame) -> dict[str, Any]:
        """Return `ModelSpec.options`: the settings, updated with those computed from the training rows without noisy copies."""
        return {**self.options.model_dump(mode="json"), **self.fit_options(train)}

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer of a model folder; raise BadModel if it is missing or unsuitable."""
        return pretrained.load_tokenizer(base)

    def longest_input(self, base: Path, tokenizer: Any) -> int:
        """Return the maximum input length of the model in tokens."""
        return pretrained.longest_input(base, tokenizer)

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each row in tokens, special tokens included, before truncation."""
        return token_lengths(tokenizer, list(rows["text"]))

    @abstractmethod
    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the training rows without padding: token ids up to `spec.max_length`, labels, and `length` in tokens.

        A long row may become several rows, and several short rows may be packed into one.
        """

    @abstractmethod
    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model in float32 with a new head from torch's global generator; raise BadModel if it cannot be loaded.

        The model has `save_pretrained`, and its forward returns `logits`, and `loss` if labels are given.
        """

    @abstractmethod
    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator: it pads a batch of encoded rows to the longest row.

        A random collator, e.g. for masking, draws the same values for a row in every evaluation. Its attribute `drawing` is the collator
        for training; `set_draw` gets a number per epoch, so that a resumed epoch repeats its draws.
        """

    def loss(self, spec: ModelSpec, smoothing: float) -> Callable[[Any, Any], Any] | None:
        """Return the loss function of logits and labels, the mean over a batch; None: the model's loss, with Trainer's smoothing.

        `smoothing` is train.label_smoothing.
        """
        return None

    def items(self, spec: ModelSpec) -> Callable[[Any], float] | None:
        """Return the function that counts the items that the loss of a batch averages; None: labels except -100, or rows.

        Gradient accumulation weighs batches by this count, so that a step equals one pass over all its rows.
        """
        return None

    def fit_head(self, features: FrozenFeatures, spec: ModelSpec, metric: str) -> LinearHead | None:
        """Return the output layer that is fitted on frozen features; `metric`, one of `validation_metrics`, decides its settings.

        None: the task has no linear probe; `unsupported_settings` then has the reason for `head_start`.
        """
        return None

    def vectors(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Return one vector per row, (rows, width), from `inputs` without labels.

        The contrastive warm-up pulls vectors with equal `labels` together. It is called only if `contrastive_start` is supported.
        """
        raise BadParams("params.yaml: train.contrastive_start is set, but the task provides no vectors of texts; set it to 0")

    def condense(self, logits: Any, labels: Any) -> Any:
        """Reduce the model output to the values that `validate` needs, one row per batch row; all are kept in memory."""
        return logits[0] if isinstance(logits, tuple) else logits

    @abstractmethod
    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute `validation_metrics` from the condensed outputs of the validation split."""

    def calibrate(self, folder: Path, validation: pd.DataFrame) -> Mapping[str, Any]:
        """Compute options from the validation rows after training, e.g. a threshold.

        They are written to retune.json in `folder`, where `predictor` reads them.
        """
        return {}

    @abstractmethod
    def predictor(self, folder: Path) -> Predictor:
        """Load a saved model folder, retune.json included."""

    @abstractmethod
    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the row statistics of `test_metrics` by name, each (rows,); the caller adds `ModelOutput.measured`."""

    @abstractmethod
    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, Baseline]:
        """Fit the baselines to the training rows; return them by name, in the order of `baselines`.

        `base` is the folder of the base model.
        """

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the built-in slices of the task: for each slice column the value of each row, "" for none."""
        return {}

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return the report tables for the test `rows` and the candidate's predictions in the same order."""
        return ()


def available() -> list[str]:
    """Return the sorted names of all tasks."""
    return plugins.names(FOLDER, packages=True)


def load(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """Return the task `name` with `options`, the plain values of the section `task_options`.

    Raise BadParams if the task does not exist, or an option is invalid.
    """
    task = plugins.load(__name__, name, available(), "task").Task
    return cast(Task, task(task.Options.parse(dict(options or {}), "task_options")))


def of(spec: ModelSpec) -> Task:
    """Return the task that a model was trained for, with its options."""
    return load(spec.task, spec.options)
