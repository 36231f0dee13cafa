"""The versions that a judgement asks: each loaded once, in a process of its own, and only when it is first needed."""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import ModelOutput, Predictions, relabelled
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, BadParams
from components.core.text import label_reader
from components.mlflow_store import registry
from components.mlflow_store.registry.package import contract
from components.model import tasks
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)


def incompatibility(spec: ModelSpec, task: tasks.Task) -> str | None:
    """Say why a model cannot be held against those of `task`: it is asked otherwise, or answers otherwise; None where it can."""
    try:
        made = tasks.of(spec)
    except BadParams as error:
        return f"was made for a task that there is no more: {error}"
    sides = [(type(one), one.inputs, one.classes, tuple(one.test_metrics)) for one in (made, task)]
    if sides[0] == sides[1]:
        return None
    return f"was made for another task: {spec.task}, asked with {', '.join(made.inputs)} and measured by {', '.join(made.test_metrics)}"


@dataclass
class Memory:
    """What a version has answered: the probabilities of its `labels`, by text; kept only where answers are classes of a text."""

    labels: tuple[str, ...] = ()
    answers: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)


class ModelSessions:
    """A context in which registered versions answer; at its end all their processes are gone."""

    def __init__(self, workspace: Workspace, uri: str, task: tasks.Task, label_map: Mapping[str, str] | None = None) -> None:
        """Of the registry at `uri`; answers are kept below `var/predictions`.

        Labels get today's names, by `label_map` and by how they are read today: a version may have been made when they had others.
        """
        self._task, self.label = task, label_reader(label_map or {})
        self._remembers = task.classes and task.inputs == ("text",)
        self._workspace, self._uri = workspace, uri
        self._open = contextlib.ExitStack()
        self._sessions: dict[str, registry.Session] = {}
        self._memory: dict[str, Memory] = {}
        self._specs: dict[str, ModelSpec] = {}

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the processes."""
        self._open.close()

    def inspect(self, version: registry.Version) -> ModelSpec:
        """Check a package once, before anything of it is run, and return its contract.

        Raises:
            BadModel: it is gone, not what was registered, or was made for other questions than today's.
            Unavailable: the registry is busy or out of reach.
        """
        if version.uri not in self._specs:
            spec = ModelSpec.read(contract(registry.inspected(self._uri, version)))
            if fault := incompatibility(spec, self._task):
                raise BadModel(f"{version.uri} {fault}")
            self._specs[version.uri] = spec
        return self._specs[version.uri]

    def session(self, version: registry.Version) -> registry.Session:
        """Return the version, ready to be asked; its package was checked before anything of it is run.

        Raises:
            BadModel: the package is not what was registered.
        """
        if version.uri not in self._sessions:
            self.inspect(version)
            self._sessions[version.uri] = self._open.enter_context(registry.Session(self._uri, version.uri, renamed=self._renamed))
        return self._sessions[version.uri]

    def predictions(self, version: registry.Version, rows: pd.DataFrame, digest: str) -> Predictions:
        """Return what the version answers to `rows` (id, group, text, label); kept by content: `digest` is that of the rows.

        Raises:
            BadModel: the version cannot be loaded, or does not answer.
        """
        cache = self._workspace.var / "predictions" / version.name / f"{version.key[:32]}-{digest[:32]}.parquet"
        found = registry.kept(cache, rows)
        if found is None:
            found = self.about(version, rows)
            registry.keep(cache, found)
        else:
            found = self._renamed(found)  # kept by an earlier release, or under another label_map
        self.remember(version, rows, found)
        return found

    def _renamed(self, found: Predictions) -> Predictions:
        if self._task.label_column is None:
            return found
        return relabelled(found, self.label, lambda answer: self._task.rename_labels(answer, self.label))

    def about(self, version: registry.Version, rows: pd.DataFrame) -> Predictions:
        """Return what the version answers to `rows`; a text that it has given a class here is not asked again.

        Raises:
            BadModel: the version cannot be loaded, or does not answer.
        """
        if not self._remembers:
            return registry.predictions_of(self.session(version).answer(rows), rows)
        memory = self._memory.setdefault(version.uri, Memory())
        if new := sorted(set(rows["text"]) - memory.answers.keys()):
            answers = self.session(version).answer(new)
            memory.labels = answers.labels
            memory.answers |= dict(zip(new, answers.probabilities, strict=True))
        ordered = rows.sort_values("id", ignore_index=True)
        probabilities = np.array([memory.answers[text] for text in ordered["text"]])
        return Predictions.from_output(ordered, ModelOutput.classes(probabilities, memory.labels))

    def remember(self, version: registry.Version, rows: pd.DataFrame, found: Predictions) -> None:
        """Keep what a version answered to `rows`, so that the same texts are not asked again."""
        if not self._remembers:
            return
        texts = dict(zip(rows["id"], rows["text"], strict=True))
        memory = self._memory.setdefault(version.uri, Memory())
        memory.labels = found.labels
        memory.answers |= {texts[name]: row for name, row in zip(found.ids.tolist(), found.probabilities, strict=True)}
