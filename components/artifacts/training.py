"""`models/trained`: how the model was trained (training.json, history.jsonl), and how to query it (model/retune.json)."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from components.artifacts.base import Artifact, Record
from components.core.text import UnicodeForm


class SoupMember(Record):
    """A training whose weights are part of an average; `settings` are those that differ from the settings of the first member."""

    settings: dict[str, float | int | str | bool | None]
    best_value: float
    best_step: int


class Training(Artifact):
    """The effective settings, the hardware, and the result of the training; `task_options` are those that the search chose.

    `soup` lists the members if the weights are an average: settings, steps and `best_step` are then those of the first member, `seconds`
    is the sum, and `best_value` belongs to the average. `class_biases` (nats) were added to the output layer; `macro_f1_gain` is the gain
    on held-out validation rows with its standard error, if they were fitted.
    `temperature` as in ModelSpec; if it was fitted, `validation_nll` is the mean negative log-likelihood (nats) of the validation rows
    before and after.
    """

    FILE = "training.json"

    settings: dict[str, float | int | str | bool | None]
    task_options: dict[str, Any] = Field(default_factory=dict)
    threads: int
    device: str
    precision: str
    parameters: int
    steps: int
    epochs: float
    best_step: int
    metric: str
    best_value: float
    stopped_by: str
    resumed: int
    seconds: float
    examples_per_second: float
    peak_memory_mib: float
    weights_sha256: str
    temperature: float = 1.0
    validation_nll: tuple[float, float] | None = None
    soup: tuple[SoupMember, ...] = ()
    class_biases: dict[str, float] = Field(default_factory=dict)
    macro_f1_gain: tuple[float, float] | None = None


class ModelSpec(Artifact):
    """Everything a packaged model needs, with the code that trained it, to answer raw input; logits are divided by `temperature`.

    `labels` is empty for tasks without labels; `options` are the complete task settings; `base` is the name of its base model, as in
    `train.base`.
    """

    FILE = "retune.json"

    task: str
    labels: tuple[str, ...]
    max_length: int
    unicode_form: UnicodeForm
    temperature: float = Field(1.0, gt=0)
    options: dict[str, Any] = Field(default_factory=dict)
    base: str = "model"


def read_lines(history: Path) -> list[str]:
    """Return the complete lines of a history that may still grow; none if the file does not exist."""
    try:
        text = history.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text[: text.rfind("\n") + 1].splitlines() if line.strip()]


def history_entries(lines: Iterable[str]) -> list[dict[str, float]]:
    """Return the finite numbers of each line of a history by name; each has a `step`. A line of a killed run may be incomplete."""
    entries = []
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            numbers = {name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)}
            entry = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
            entries += [entry] if "step" in entry else []
    return entries
