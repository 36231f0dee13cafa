"""The task types: one file a task, found by name; there is no registry to edit.

A task is a module whose public names fit the protocol `Task`. Importing this package, or a task, imports no torch.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.errors import BadParams
from components.params import nearest

FOLDER = Path(__file__).parent


class Predictor(Protocol):
    """A trained model that answers raw texts."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the columns of `probabilities`."""

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> npt.NDArray[np.float64]:
        """Return the probability of each label for each text, shape (texts, labels); rows sum to 1."""


class Task(Protocol):
    """What a task file offers, as names of the module.

    `COLUMNS` are the columns that its data must have; `METRICS` are the names that `metrics` reports, all to be maximised.
    """

    COLUMNS: tuple[str, ...]
    METRICS: tuple[str, ...]

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the labels of `rows`, sorted: the label map, since a label's place is its number."""

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer of a model folder; BadModel when there is none, or it cannot pad."""

    def longest_input(self, base: Path, tokenizer: Any) -> int:
        """Return the number of tokens that the model can read at most."""

    def encode(self, rows: pd.DataFrame, tokenizer: Any, labels: Sequence[str], max_length: int) -> pa.Table:
        """Return token ids, cut at `max_length` and not padded, and the expected answer: one row a row of `rows`."""

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each row in tokens before truncation."""

    def build_model(self, base: Path, labels: Sequence[str]) -> Any:
        """Load the base model with a fresh head for `labels`; BadModel when it must not or cannot be loaded."""

    def collator(self, tokenizer: Any) -> Any:
        """Return what makes a batch of encoded rows: padded to the longest of the batch."""

    def metrics(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], labels: Sequence[str]) -> Mapping[str, float]:
        """Return the `METRICS` of raw model outputs on the validation split."""

    def predictor(self, folder: Path) -> Predictor:
        """Load a saved model folder, retune.json included."""


def available() -> list[str]:
    """Return the names of all tasks, sorted: the files of this folder."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def load(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        BadParams: there is no such file.
    """
    if name not in available():
        raise BadParams(f"unknown task {name!r}; components/tasks has: {', '.join(available())}{_guess(name)}")
    return cast(Task, importlib.import_module(f"components.tasks.{name}"))


def _guess(name: str) -> str:
    guess = nearest(name, available())
    return guess if "did you mean" in guess else ""
