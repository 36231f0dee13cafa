"""`models/trained/training.json`: how the model was made. `models/trained/model/retune.json`: how to ask it."""

from typing import ClassVar

from components.artifacts.base import Artifact


class Training(Artifact):
    """The settings in force, what the machine contributed to the result, and how the training ended."""

    FILE: ClassVar[str] = "training.json"

    settings: dict[str, float | int | str | bool | None]
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


class ModelSpec(Artifact):
    """What a packaged model needs to answer raw input with the code that trained it."""

    FILE: ClassVar[str] = "retune.json"

    task: str
    labels: tuple[str, ...]
    max_length: int
    unicode_form: str
