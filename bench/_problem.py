"""What every side of `python -m bench auto` gets and returns: the same rows, and answers that the task scores."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.training import ModelSpec
from components.evaluation.metric_set import metric_set
from components.model import tasks

HELD_OUT = ("validation", "test")


@dataclass(frozen=True)
class Answers:
    """One text for each row of a split, in the order of the rows, and what the model measured."""

    predicted: list[str]
    measured: Mapping[str, list[float]] = field(default_factory=dict)

    @classmethod
    def from_output(cls, output: ModelOutput) -> "Answers":
        return cls(output.predicted, {name: np.asarray(values).tolist() for name, values in output.measured.items()})


class Clock:
    """The seconds of a search since the clock was made, which is after the imports, until `stop`."""

    def __init__(self, minutes: float) -> None:
        self._started = time.monotonic()
        self._stopped: float | None = None
        self.limit = 60 * minutes

    def seconds(self) -> float:
        return (self._stopped or time.monotonic()) - self._started

    def over(self, share: float = 1.0) -> bool:
        """Return whether this share of the minutes is spent."""
        return self.seconds() > share * self.limit

    def stop(self) -> None:
        """End the search: answers for test rows are not a part of it."""
        self._stopped = time.monotonic()


@dataclass(frozen=True)
class Problem:
    """A task, its rows (id, group, text, label, the task's columns, split) and what may be spent; `base` is a model folder."""

    task: str
    options: dict[str, Any]
    metric: str
    max_length: int
    base: str
    minutes: float
    seed: int
    rows: pd.DataFrame

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows.to_parquet(folder / "rows.parquet")
        plain = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "rows"}
        (folder / "problem.json").write_text(json.dumps(plain), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Problem":
        return cls(**json.loads((folder / "problem.json").read_text(encoding="utf-8")), rows=pd.read_parquet(folder / "rows.parquet"))

    @property
    def kind(self) -> str:
        """The kind of labels: single, multi, regression; tags or vectors for the other tasks."""
        others = {"token_classification": "tags", "contrastive": "vectors"}
        return others.get(self.task) or str(self.options.get("kind", "single"))

    @cached_property
    def made_task(self) -> tasks.Task:
        return tasks.load(self.task, self.options)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return self.made_task.labels_of(self.rows)

    @cached_property
    def spec(self) -> ModelSpec:
        """The spec that preprocessing would write."""
        task = self.made_task
        options = task.Options.parse(self.options, "task_options").model_dump(mode="json") | dict(task.fit_options(self.part("train")))
        return ModelSpec(task=self.task, labels=self.labels, max_length=self.max_length, unicode_form="NFC", options=options)

    def part(self, split: str) -> pd.DataFrame:
        return self.rows[self.rows["split"] == split].reset_index(drop=True)

    def predictions(self, split: str, answers: Answers) -> Predictions:
        """Return the answers for a split as evaluation has them; a class has probability 1 if it is the answer."""
        rows = self.part(split)
        if len(answers.predicted) != len(rows):
            raise ValueError(f"{len(answers.predicted)} answers for {len(rows)} rows of {split}")
        measured = {name: np.asarray(values, dtype=np.float64) for name, values in answers.measured.items()}
        labels, chances = (), np.zeros((len(rows), 0))
        if self.made_task.classes:
            labels = self.labels
            chances = (np.array(answers.predicted)[:, None] == np.array(labels)).astype(np.float64)
        return Predictions.from_output(rows, ModelOutput(answers.predicted, chances, labels, measured))

    def score(self, split: str, answers: Answers) -> float:
        return score(self, self.predictions(split, answers))


def score(problem: Problem, predictions: Predictions) -> float:
    """Return the metric of the problem; every class counts in macro-F1."""
    return metric_set(problem.made_task, predictions, 1).score(problem.metric, predictions).value


def difference(problem: Problem, predictions: Predictions, other: Predictions) -> dict[str, float]:
    """Return the paired difference of the metric with its 95 % interval, and the number `n` of independent test rows or groups."""
    gain = metric_set(problem.made_task, predictions, 1).difference(problem.metric, predictions, other)
    return {"value": gain.value, "low": gain.low, "high": gain.high, "n": gain.n}


def best_on_validation(problem: Problem, clock: Clock, candidates: Iterable[Callable[[str], Answers]]) -> dict[str, Answers]:
    """Return the answers of the best candidate by its validation score, and stop the clock before it answers the test rows.

    A candidate maps a split to answers. After the minutes of the clock no candidate starts, except the first.
    """
    best, value = None, -np.inf
    for number, candidate in enumerate(candidates):
        if number and clock.over():
            break
        answers = candidate("validation")
        reached = problem.score("validation", answers)
        if best is None or reached > value:
            best, value = (candidate, answers), reached
    assert best is not None
    clock.stop()
    return {"validation": best[1], "test": best[0]("test")}


def write_answers(answers: Mapping[str, Answers], file: Path, **more: Any) -> None:
    file.write_text(json.dumps({split: asdict(own) for split, own in answers.items()} | more), encoding="utf-8")


def read_answers(file: Path) -> tuple[dict[str, Answers], dict[str, Any]]:
    """Return the answers by split, and the other values."""
    content = json.loads(file.read_text(encoding="utf-8"))
    return {split: Answers(**content.pop(split)) for split in HELD_OUT}, content


def to_answers(kind: str, labels: Sequence[str], values: Any) -> list[str]:
    """Return answers in the format of `label` from the outputs (rows, k) of a classifier: logits, or numbers (rows, 1)."""
    outputs = np.asarray(values, dtype=np.float64)
    if kind == "regression":
        return [repr(float(value)) for value in outputs.reshape(len(outputs))]
    if kind == "multi":
        return [json.dumps([label for label, value in zip(labels, row, strict=True) if value > 0]) for row in outputs]
    return [labels[index] for index in outputs.argmax(axis=-1)]


def targets(kind: str, labels: Sequence[str], cells: Iterable[str]) -> list[Any]:
    """Return the label of each row for a classifier: an index, a list of 0 and 1, or a number."""
    if kind == "regression":
        return [float(cell) for cell in cells]
    if kind == "multi":
        return [[float(label in set(json.loads(cell))) for label in labels] for cell in cells]
    return [list(labels).index(cell) for cell in cells]
