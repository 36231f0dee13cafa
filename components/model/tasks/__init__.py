"""The task types: one folder a task, found by name; there is no registry to edit.

A task is a package with a class `Task` that fits the protocol of that name; a small one is a single `__init__.py`. What
several tasks share stands in files with a leading underscore here. Importing this package, or a task, imports no torch.

Rows are tables of text. `read` gives every row two columns that the rest of the line knows it by, whatever the task: `text` is what the
model reads, and `label` the answer that is expected, both as one text. Duplicates, leaks, splits, slices and pages need no more. A model
answers with texts in the form of `label`. A metric is a function of sums over rows (`Metric`), from which its interval follows.
"""

import importlib
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
from components.core.errors import BadParams
from components.core.section import Section, nearest
from components.model.support.metrics import Metric

FOLDER = Path(__file__).parent

Floats = npt.NDArray[np.float64]


class Predictor(Protocol):
    """A trained model that answers raw rows: the same code serves evaluation, the registry's model and `retune predict`."""

    spec: ModelSpec

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Answer each of `rows`, a table with the task's `inputs`, in its order.

        Where `rows` has the expected answers too (all of `columns`, and `text` and `label` as `read` makes them), `measured` holds what
        only the model can tell of them, as the log-likelihood of a text. Neither order nor company of a row changes its answer by more
        than float32 rounding.
        """


class Task(Protocol):
    """What a task offers: the class `Task` of its package, made with its settings, has these attributes and methods.

    `components.model.support.task_base.Base` has the usual answer to most of them.
    """

    Options: type[Section]
    """The task's own settings: the section `task_options`."""
    columns: tuple[str, ...]
    """The columns that its data must have."""
    inputs: tuple[str, ...]
    """The columns that a trained model is asked with: a served model's signature."""
    example: Mapping[str, str]
    """One row of `inputs`."""
    validation_metrics: tuple[str, ...]
    """What `validate` reports on the validation split, all to be maximised."""
    by_token: bool
    """Whether `validation_metrics` count tokens: they then compare models of one tokenizer only."""
    test_metrics: Mapping[str, Metric]
    """What is reported and decided on, on the test split, the most telling first; all to be maximised."""
    baselines: tuple[str, ...]
    """What a model must beat, the strongest last."""
    classes: bool
    """Whether `label` is one of a few classes: then accuracy and F1 over them are measured as well, and each must be in every split."""
    normalised: bool
    """Whether `text` is what is encoded, so that preprocessing may normalise it; not where offsets or tokens point into it."""
    one_answer: bool
    """Whether a text has one right answer, so that equal texts with different labels contradict each other."""
    scored: bool
    """Whether an answer that is no class comes with a probability of each label (`PROBABILITY` in `ModelOutput.measured`)."""
    evaluation_batch: int
    """Rows of a forward pass on the validation split, at the least: few where the model's output for a row is large."""
    splits_long_rows: bool
    """Whether a row that is longer than the model reads is read in parts, so that nothing of it is cut."""
    compares_rows: bool
    """Whether the loss compares the rows of a pass with each other, so that a step in several passes is not one over all its rows."""
    unsupported_settings: Mapping[str, str]
    """Fields of `train`, and `augment_copies` of `preprocess`, that do not fit the task, each with the reason."""
    augmentable_columns: tuple[str, ...]
    """The columns in which a wrong character changes no answer; none where `unsupported_settings` names `augment_copies`."""

    label_column: str | None
    """The column whose cells name labels; None where answers are texts or numbers."""

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Return a cell of the column `label_column`, or an answer, with `rename` of the name of each label in it; one without a fault only."""

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with `text` and `label`, and for each bad row (by its place, from 0) what is wrong with it.

        No cell of `columns` is missing or blank. A bad row may be left with any text.
        """

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the label map of `rows`: a label's place is its number in the model; empty where the task has no labels."""

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return how many of `rows` hold each label; empty where the task has no labels."""

    def names(self, labels: Iterable[str]) -> frozenset[str]:
        """Return what `labels` speak of, as two models may both know it: the types of tags, whatever their scheme; elsewhere the labels."""

    def fit_options(self, train: pd.DataFrame) -> Mapping[str, Any]:
        """Return the settings that follow from the training rows, as updates of `ModelSpec.options`: weights of classes, a unit."""

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer of a model folder; BadModel when there is none, or it does not fit."""

    def longest_input(self, base: Path, tokenizer: Any) -> int:
        """Return the number of tokens that the model can read at most."""

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each row in tokens before truncation."""

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return what is learnt from, not padded: token ids cut at `spec.max_length`, the expected answer, and `length` in tokens.

        A row may become several, as a long text does, or a part of one, as packed texts do.
        """

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model, in float32, with a fresh head from torch's global generator; BadModel when it must not or cannot be loaded.

        It has `save_pretrained`, and its forward returns `loss` where there are labels, and `logits`.
        """

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return what makes a batch of encoded rows: padded to the longest of the batch.

        One that draws, as masks are drawn, draws the same for a row in every evaluation; its attribute `drawing` is what makes the
        batches of training, whose `set_draw` is told a number of each epoch's own: a resumed epoch then draws what it drew before.
        """

    def loss(self, spec: ModelSpec, smoothing: float) -> Callable[[Any, Any], Any] | None:
        """Return the loss of a batch's logits and labels, the mean over the batch; None for the model's own, with Trainer's smoothing.

        `smoothing` is train.label_smoothing.
        """

    def items(self, spec: ModelSpec) -> Callable[[Any], float] | None:
        """Return what counts, in the inputs of a pass, what its loss is the mean of; None where it is labels but -100, or rows.

        The passes of a step count by it, so that the step is that of one pass over all its rows.
        """

    def vectors(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Return a vector for each row of a batch, (rows, width), of what `model` reads in `inputs`, which have no labels.

        A contrastive start brings those together whose encoded column `labels`, a number a row, is equal. It is only asked for where
        `unsupported_settings` leaves `contrastive_start` out.
        """

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return, as a tensor with a row for each row of the batch, what `validate` needs of the output; it is all held in memory."""

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return the `validation_metrics` of the condensed outputs on the validation split."""

    def calibrate(self, folder: Path, validation: pd.DataFrame) -> Mapping[str, Any]:
        """Return the settings of `Options` that follow from the validation rows once the weights in `folder` are final.

        They are written into its retune.json, where `predictor` finds them; a threshold is one.
        """

    def predictor(self, folder: Path) -> Predictor:
        """Load a saved model folder, retune.json included."""

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return what `test_metrics` sums up, by name, each (rows,); the caller adds what a model tells (`measured`)."""

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, ModelOutput]:
        """Return what each of `baselines` answers to the rows `test`; `base` is the folder of the base model."""

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the task's own parts of the test set: for each kind, the value of each row; "" for a row in no part."""

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return what the task's people want to read on the page, of the test `rows` and the candidate's answers in the same order."""


def available() -> list[str]:
    """Return the names of all tasks, sorted: the folders here."""
    return sorted(path.parent.name for path in FOLDER.glob("[!_]*/__init__.py"))


def load(name: str, options: Mapping[str, Any] | None = None) -> Task:
    """Return the task called `name` with its settings `options`, the plain values of the section `task_options`.

    Raises:
        BadParams: there is no such folder, or a setting does not fit.
    """
    if name not in available():
        raise BadParams(f"unknown task {name!r}; components/model/tasks has: {', '.join(available())}{_guess(name)}")
    made = importlib.import_module(f"components.model.tasks.{name}").Task
    return cast(Task, made(made.Options.parse(dict(options or {}), "task_options")))


def of(spec: ModelSpec) -> Task:
    """Return the task that a model was made for, with the settings that it was made with."""
    return load(spec.task, spec.options)


def statistics_of(task: Task, found: Predictions) -> dict[str, Floats]:
    """Return all that `test_metrics` sums up, by name, each (rows,)."""
    return {**task.statistics(found.expected.tolist(), found.predicted.tolist()), **found.measured}


def _guess(name: str) -> str:
    guess = nearest(name, available())
    return guess if "did you mean" in guess else ""
