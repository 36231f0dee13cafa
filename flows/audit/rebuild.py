"""Rebuild a version from its registry entry and check whether the result is bit-equal.

From the registry: the commit and, in the package, dvc.lock, dvc.yaml, params.yaml and the copy of the code. From DVC: the snapshot and
the base model, by the hashes in that dvc.lock. Everything else is computed from scratch in a temporary worktree.
"""

import importlib.metadata
import json
import logging
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from components.artifacts.lineage import Lineage
from components.artifacts.metrics import Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.training import Training
from components.core.documents import read_yaml
from components.core.errors import NotFound
from components.core.hashing import digest_folder
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from flows.audit import compare
from flows.audit.rebuild_inputs import BY_CLOCK, TUNE, Recipe, lay_out_workspace, read_recipe, restore_tuned, unrepeatable_search
from flows.audit.registered_model import RegisteredModel
from flows.audit.worktree import worktree
from flows.dvc_adapter.repro import dvc

log = logging.getLogger(__name__)


class Rebuilt(BaseModel, frozen=True):
    """The result of a rebuild: `differences` is empty exactly when it is bit-equal; `notes` name deviations in how it was built.

    Notes also name outputs that can no longer be compared; weights and metrics always can.
    """

    model: str
    version: int
    bit_equal: bool
    weights_before: str
    weights_after: str
    commit: str
    stages: dict[str, str]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    folder: str | None


def rebuild(model: RegisteredModel, number: int, keep: Path | None = None) -> Rebuilt:
    """Rebuild a version and compare it with the registered one.

    Raises:
        NotFound: commit, data or package are missing; nothing was built.
        BadModel: the package was changed after registration.
        StageFailed: a stage failed.
    """
    started = time.monotonic()
    recipe = read_recipe(model, model.version(number))
    with worktree(model.project, recipe.commit, keep) as root:
        notes = lay_out_workspace(root, model.project, recipe)
        reason = unrepeatable_search(model, recipe)
        if reason:
            restore_tuned(root, model, recipe)
            notes.append(f"the search {reason}: its recorded settings are used, and the training is repeated with them")
        stages = [stage for stage in recipe.stages if stage != TUNE or not reason]
        run_stages(root, stages)
        comparison = compare_files(recipe.lock, model.project, root, stages)
        differences = (*model_differences(model, recipe.version, root), *comparison.differences)
        return Rebuilt(
            model=model.name,
            version=number,
            bit_equal=not differences,
            weights_before=recipe.version.tags["retune.weights"],
            weights_after=digest_folder(root / "models/trained/model"),
            commit=recipe.commit,
            stages={stage: comparison.summaries.get(stage, "taken from the cache") for stage in recipe.stages},
            differences=differences,
            notes=(*notes, *comparison.notes, *environment_notes(model, recipe, root)),
            seconds=round(time.monotonic() - started, 1),
            folder=str(keep.resolve()) if keep else None,
        )


def run_stages(root: Path, stages: list[str]) -> None:
    """Run the stages in `root` regardless of any cache, with a separate state folder."""
    for stage in stages:
        started = time.monotonic()
        dvc(["repro", "--force", "--single-item", stage], root, what=f"the stage {stage}", variables={"RETUNE_VAR": str(root / "var")})
        log.info("%s: rebuilt in %.0f s", stage, time.monotonic() - started)


def environment_notes(model: RegisteredModel, recipe: Recipe, root: Path) -> list[str]:
    """Describe differences from the original hardware and packages that may change bits; if the run is missing, say so."""
    notes = []
    new = Training.read(root / "models/trained")
    if new.stopped_by == BY_CLOCK:
        notes.append(f"the training reached its time limit (train.max_minutes) at step {new.steps}: faster hardware gets further")
    try:
        old = Training.read(artifact_access.artifact(model.uri, recipe.version, "training/training.json").parent)
        original = Lineage.read(artifact_access.artifact(model.uri, recipe.version, Lineage.FILE).parent)
    except NotFound as error:
        return [*notes, f"the original hardware and packages are unknown: {error}"]
    notes += [
        f"train.{name}: was {old.settings[name]}, is {new.settings[name]}, because of the memory: bits may differ"
        for name in ("batch_size", "accumulation")
        if old.settings.get(name) != new.settings.get(name)
    ]
    for name in ("threads", "device", "precision"):
        if getattr(old, name) != getattr(new, name):
            notes.append(f"{name}: was {getattr(old, name)}, is {getattr(new, name)} (train.{name}, or the hardware)")
    now = {"python": platform.python_version(), **{name: installed(name) for name in original.packages}}
    was = {"python": original.python, **original.packages}
    return notes + [f"{name}: was {was[name]}, is {now[name]}" for name in was if was[name] != now[name]]


def installed(package: str) -> str:
    """Return the installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class RebuildComparison:
    """A summary per stage, a sentence per difference, and a note per output that cannot be compared."""

    summaries: dict[str, str]
    differences: tuple[str, ...]
    notes: tuple[str, ...]


def model_differences(model: RegisteredModel, version: registry.Version, root: Path) -> list[str]:
    """Describe how weights, metrics and predictions differ; nothing about predictions if the original ones are missing."""
    differences = []
    weights = digest_folder(root / "models/trained/model")
    if weights != version.tags["retune.weights"]:
        differences.append(f"weights: were {version.tags['retune.weights'][:12]}, are {weights[:12]}")
    metrics = Metrics.read(root / "reports/evaluation")
    now = {name: {"value": metric.value, "low": metric.low, "high": metric.high} for name, metric in metrics.headline.items()}
    differences += compare.metric_differences(json.loads(version.tags.get("retune.metrics", "{}")), now)
    file = "evaluation/predictions/candidate.parquet"
    try:
        before = Predictions.read(artifact_access.artifact(model.uri, version, file))
    except NotFound:
        return differences
    difference = compare.prediction_difference(before, Predictions.read(root / "reports" / file))
    return [*differences, difference] if difference else differences


def compare_files(first: dict[str, Any], project: Path, root: Path, stages: list[str]) -> RebuildComparison:
    """Compare the outputs of the stages, file by file, with those in the lock `first`."""
    second = read_yaml(root / "dvc.lock", as_dvc=True)
    by_stage = {stage: compare.compare_stage(stage, first, second, project, root) for stage in stages}
    outputs = [output for stage_outputs in by_stage.values() for output in stage_outputs]
    return RebuildComparison(
        summaries={stage: compare.summarize(stage_outputs) for stage, stage_outputs in by_stage.items()},
        differences=tuple(
            f"{output.path}: was {output.before or 'missing'}, is {output.after or 'missing'}"
            for output in outputs
            if output.equal is False
        ),
        notes=tuple(
            f"{output.path} cannot be compared: it contains timings, and the original is missing from DVC's cache"
            for output in outputs
            if output.equal is None
        ),
    )
