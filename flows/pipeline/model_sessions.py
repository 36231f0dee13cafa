"""Sessions with registered versions: each is loaded once, in a separate process, when it is first needed."""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import ModelOutput, Output, Predictions, relabelled
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, BadParams
from components.core.text import label_reader
from components.mlflow_store import registry
from components.mlflow_store.registry.package import spec_folder
from components.model import tasks
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)


def incompatibility(spec: ModelSpec, task: tasks.Task) -> str | None:
    """Return why a model cannot be compared with those of `task`: other inputs or other metrics; None if it can."""
    try:
        own = tasks.of(spec)
    except BadParams as error:
        return f"was built for a task that no longer exists: {error}"
    contracts = [(type(side), side.inputs, side.classes, tuple(side.test_metrics)) for side in (own, task)]
    if contracts[0] == contracts[1]:
        return None
    return f"was built for another task: {spec.task}, with the inputs {', '.join(own.inputs)} and the metrics {', '.join(own.test_metrics)}"


class ModelSessions(contextlib.ExitStack):
    """A context manager that runs registered versions; their processes end with it."""

    def __init__(self, workspace: Workspace, uri: str, task: tasks.Task, label_map: Mapping[str, str] | None = None) -> None:
        """Use the registry at `uri`, and cache predictions below `var/predictions`.

        Labels are renamed by `label_map` and today's label reader: an older version may have been trained with other names.
        """
        super().__init__()
        self._task, self.label = task, label_reader(label_map or {})
        self._remembers = task.classes and task.inputs == ("text",)
        self._workspace, self._uri = workspace, uri
        self._sessions: dict[str, registry.Session] = {}
        # Of each version that classifies single texts: its labels, and their probabilities by text.
        self._labels: dict[str, tuple[str, ...]] = {}
        self._memory: defaultdict[str, dict[str, npt.NDArray[np.float64]]] = defaultdict(dict)
        self._specs: dict[str, ModelSpec] = {}

    def inspect(self, version: registry.Version) -> ModelSpec:
        """Check a package once, before any of its code runs, and return its contract.

        Raises:
            BadModel: it is missing, differs from the registered one, or was built for another task.
            Unavailable: the registry is busy or unreachable.
        """
        if version.uri not in self._specs:
            spec = ModelSpec.read(spec_folder(registry.checked_package(self._uri, version)))
            if fault := incompatibility(spec, self._task):
                raise BadModel(f"{version.uri} {fault}")
            self._specs[version.uri] = spec
        return self._specs[version.uri]

    def session(self, version: registry.Version) -> registry.Session:
        """Return a session with the version; its package is checked before any of its code runs.

        Raises:
            BadModel: the package differs from the registered one.
        """
        if version.uri not in self._sessions:
            self.inspect(version)
            self._sessions[version.uri] = self.enter_context(registry.Session(self._uri, version.uri, rename_labels=self.renamed))
        return self._sessions[version.uri]

    def predictions(self, version: registry.Version, rows: pd.DataFrame, digest: str) -> Predictions:
        """Return the predictions of the version for `rows` (id, group, text, label); cached by `digest`, that of the rows.

        Raises:
            BadModel: the version cannot be loaded, or does not answer.
        """
        cache = self._workspace.var / "predictions" / version.name / f"{version.key[:32]}-{digest[:32]}.parquet"
        predictions = registry.read_cache(cache, rows)
        if predictions is None:
            predictions = self.predict(version, rows)
            registry.write_cache(cache, predictions)
        else:
            predictions = self.renamed(predictions)  # cached by an earlier release, or with another label_map
        self.remember(version, rows, predictions)
        return predictions

    def renamed(self, predictions: Output) -> Output:
        """Return answers with today's names of the labels."""
        if not self._task.label_column:
            return predictions
        return relabelled(predictions, self.label, lambda answer: self._task.rename_labels(answer, self.label))

    def predict(self, version: registry.Version, rows: pd.DataFrame) -> Predictions:
        """Return the predictions of the version for `rows`; a text that it has classified in this context is not sent again.

        Raises:
            BadModel: the version cannot be loaded, or does not answer.
        """
        if not self._remembers:
            return registry.predictions_of(self.session(version).answer(rows), rows)
        memory = self._memory[version.uri]
        if new := sorted(set(rows["text"]) - memory.keys()):
            answers = self.session(version).answer(new)
            self._labels[version.uri] = answers.labels
            memory |= dict(zip(new, answers.probabilities, strict=True))
        ordered = rows.sort_values("id", ignore_index=True)
        probabilities = np.array([memory[text] for text in ordered["text"]])
        return Predictions.from_output(ordered, ModelOutput.classes(probabilities, self._labels.get(version.uri, ())))

    def remember(self, version: registry.Version, rows: pd.DataFrame, predictions: Predictions) -> None:
        """Keep predictions in memory, so that the same texts are not sent again."""
        if self._remembers:
            texts = dict(zip(rows["id"], rows["text"], strict=True))
            answers = zip(predictions.ids.tolist(), predictions.probabilities, strict=True)
            self._labels[version.uri] = predictions.labels
            self._memory[version.uri] |= {texts[name]: row for name, row in answers}
