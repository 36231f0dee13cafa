"""Make a version again from its registry entry alone, and say whether it is the same to the bit.

From the registry: the commit, and of the package dvc.lock, dvc.yaml, params.yaml and the copy of the code. From DVC: the snapshot and
the base model, by the hashes in that dvc.lock. Everything else is computed anew, in a folder apart.
"""

import importlib.metadata
import json
import logging
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

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


class Rebuilt(BaseModel):
    """How the second making went: `differences` are empty exactly when it is bit-equal; `notes` say what was done otherwise.

    They also name the outputs that cannot be compared any more; weights and metrics always are.
    """

    model_config = ConfigDict(frozen=True)

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
    """Make a version again and compare it with what was registered.

    Raises:
        NotThere: commit, data or package are gone; nothing was made.
        BadModel: the package is not what was registered.
        StageFailed: a stage ended with an error.
    """
    started = time.monotonic()
    recipe = read_recipe(model, model.version(number))
    with worktree(model.project, recipe.commit, keep) as root:
        notes = lay_out_workspace(root, model.project, recipe)
        why = unrepeatable_search(model, recipe)
        if why:
            restore_tuned(root, model.project, recipe)
            notes.append(f"the search {why}: the settings it chose are taken from DVC's cache")
        stages = [stage for stage in recipe.stages if stage != TUNE or not why]
        remake(root, stages)
        found = compare_with(model, recipe, root, stages)
        return Rebuilt(
            model=model.name,
            version=number,
            bit_equal=not found.differences,
            weights_before=recipe.version.tags["retune.weights"],
            weights_after=digest_folder(root / "models/trained/model"),
            commit=recipe.commit,
            stages={stage: found.words.get(stage, "taken from the cache") for stage in recipe.stages},
            differences=found.differences,
            notes=(*notes, *found.notes, *machine_notes(model, recipe, root)),
            seconds=round(time.monotonic() - started, 1),
            folder=str(keep.resolve()) if keep else None,
        )


def remake(root: Path, stages: list[str]) -> None:
    """Run the stages in `root`, whatever a cache may have, with a state of their own."""
    for stage in stages:
        started = time.monotonic()
        dvc(["repro", "--force", "--single-item", stage], root, what=f"the stage {stage}", variables={"RETUNE_VAR": str(root / "var")})
        log.info("%s: made again in %.0f s", stage, time.monotonic() - started)


def machine_notes(model: RegisteredModel, recipe: Recipe, root: Path) -> list[str]:
    """Return what of this machine is not as it was, and may be why bits differ; nothing is said where the run is gone."""
    notes = []
    new = Training.read(root / "models/trained")
    if new.stopped_by == BY_CLOCK:
        notes.append(f"the training was ended by the clock (train.max_minutes) at step {new.steps}: a faster machine goes further")
    try:
        old = Training.read(artifact_access.artifact(model.uri, recipe.version, "training/training.json").parent)
        then = Lineage.read(artifact_access.artifact(model.uri, recipe.version, Lineage.FILE).parent)
    except NotFound as error:
        return [*notes, f"how the first machine was set up is not known: {error}"]
    for name in ("threads", "device", "precision"):
        if getattr(old, name) != getattr(new, name):
            notes.append(f"{name}: was {getattr(old, name)}, is {getattr(new, name)} (train.{name}, or the machine)")
    now = {"python": platform.python_version(), **{name: installed(name) for name in then.packages}}
    was = {"python": then.python, **then.packages}
    return notes + [f"{name}: was {was[name]}, is {now[name]}" for name in was if was[name] != now[name]]


def installed(package: str) -> str:
    """Return the version of a package that is installed here."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class RebuildComparison:
    """A word a stage, a sentence a difference, and a note for each output of which nobody can tell any more."""

    words: dict[str, str]
    differences: tuple[str, ...]
    notes: tuple[str, ...]


def compare_with(model: RegisteredModel, recipe: Recipe, root: Path, stages: list[str]) -> RebuildComparison:
    """Compare the second making with the first."""
    version, differences = recipe.version, list[str]()
    weights = digest_folder(root / "models/trained/model")
    if weights != version.tags["retune.weights"]:
        differences.append(f"weights: were {version.tags['retune.weights'][:12]}, are {weights[:12]}")
    metrics = Metrics.read(root / "reports/evaluation")
    now = {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in metrics.headline.items()}
    differences += compare.metrics_apart(json.loads(version.tags.get("retune.metrics", "{}")), now)
    differences += answers_apart(model, version, root)
    files = compare_files(recipe.lock, model.project, root, stages)
    return RebuildComparison(files.words, (*differences, *files.differences), files.notes)


def compare_files(first: dict[str, Any], project: Path, root: Path, stages: list[str]) -> RebuildComparison:
    """Compare what the stages wrote, file by file, with what the `first` lock says that they wrote."""
    second = read_yaml(root / "dvc.lock", as_dvc=True)
    of = {stage: compare.compare_stage(stage, first, second, project, root) for stage in stages}
    outputs = [output for each in of.values() for output in each]
    return RebuildComparison(
        words={stage: compare.in_a_word(each) for stage, each in of.items()},
        differences=tuple(
            f"{output.path}: was {output.before or 'not there'}, is {output.after or 'not there'}"
            for output in outputs
            if output.equal is False
        ),
        notes=tuple(
            f"{output.path} cannot be compared: it holds times, and the first one is gone from DVC's cache"
            for output in outputs
            if output.equal is None
        ),
    )


def answers_apart(model: RegisteredModel, version: registry.Version, root: Path) -> list[str]:
    """Return how far the answers to the test rows are apart, where the first ones are still there."""
    file = "evaluation/predictions/candidate.parquet"
    try:
        before = Predictions.read(artifact_access.artifact(model.uri, version, file))
    except NotFound:
        return []
    said = compare.answers_apart(before, Predictions.read(root / "reports" / file))
    return [said] if said else []
