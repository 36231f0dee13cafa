"""Make a version again from its registry entry alone, and say whether it is the same to the bit.

From the registry: the commit, and of the package dvc.lock, dvc.yaml, params.yaml and the copy of the code. From DVC: the snapshot and
the base model, by the hashes in that dvc.lock. Everything else is computed anew, in a folder apart.
"""

import filecmp
import importlib.metadata
import json
import logging
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from components import registry
from components.artifacts.lineage import Lineage
from components.artifacts.metrics import Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.training import Training
from components.errors import NotThere
from components.identity import digest_folder
from components.registry import stored
from components.registry.verify import inspected
from flows.audit import compare
from flows.audit.model import Model
from flows.audit.worktree import bring, furnish, worktree
from flows.dvc import STAGES, cached_file, dvc

log = logging.getLogger(__name__)

BY_CLOCK = "max_minutes"
TUNED = ("best.json", "settings.json", "trials.parquet")


class Rebuilt(BaseModel):
    """How the second making went: `differences` are empty exactly when it is bit-equal; `notes` say what was done otherwise."""

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


@dataclass(frozen=True)
class Recipe:
    """What the registry entry says about how to make the version; `package` is its folder in MLflow's artifacts."""

    version: registry.Version
    commit: str
    package: Path
    lock: dict[str, Any]

    @property
    def inputs(self) -> dict[str, str]:
        """DVC's folders that no stage makes, by path."""
        stages = self.lock["stages"].values()
        made = [out["path"] for stage in stages for out in stage.get("outs", [])]
        needed = {dep["path"]: dep["md5"] for stage in stages for dep in stage.get("deps", []) if not dep["path"].startswith("components/")}
        return {path: md5 for path, md5 in needed.items() if not any(path == out or path.startswith(f"{out}/") for out in made)}

    def outs(self, stage: str) -> dict[str, str]:
        """The md5 of each output of a stage, by path."""
        return {out["path"]: out["md5"] for out in self.lock["stages"][stage].get("outs", [])}


def rebuild(model: Model, number: int, keep: Path | None = None) -> Rebuilt:
    """Make a version again and compare it with what was registered.

    Raises:
        NotThere: commit, data or package are gone; nothing was made.
        BadModel: the package is not what was registered.
        StageFailed: a stage ended with an error.
    """
    started = time.monotonic()
    recipe = read_recipe(model, model.version(number))
    with worktree(model.project, recipe.commit, keep) as root:
        notes = lay_out(root, model.project, recipe)
        by_clock = ended_by_clock(model, recipe)
        if by_clock:
            bring_tuned(root, model.project, recipe)
            notes.append("the search was ended by the clock (tune.max_minutes): the settings it chose are taken from DVC's cache")
        stages = [stage for stage in STAGES if stage != "tune" or not by_clock]
        remake(root, stages)
        words, differences = compare_with(model, recipe, root, stages)
        return Rebuilt(
            model=model.name,
            version=number,
            bit_equal=not differences,
            weights_before=recipe.version.tags["retune.weights"],
            weights_after=digest_folder(root / "models/trained/model"),
            commit=recipe.commit,
            stages={stage: words.get(stage, "taken from the cache") for stage in STAGES},
            differences=tuple(differences),
            notes=(*notes, *machine_notes(model, recipe, root)),
            seconds=round(time.monotonic() - started, 1),
            folder=str(root) if keep else None,
        )


def read_recipe(model: Model, version: registry.Version) -> Recipe:
    """Read how a version was made, from the registry alone.

    Raises:
        NotThere: it was not registered by Retune, or without its lock.
        BadModel: its package is gone, or is not what was registered.
    """
    model.hashes(version)
    package = inspected(model.uri, version)
    try:
        lock = yaml.safe_load((package / "artifacts/dvc.lock").read_text(encoding="utf-8"))
        lost = [stage for stage in STAGES if stage not in lock["stages"]]
    except (FileNotFoundError, KeyError, TypeError, yaml.YAMLError):
        lost = list(STAGES)
    absent = [name for name in ("dvc.yaml", "params.yaml") if not (package / "artifacts" / name).is_file()]
    if lost or absent:
        said = [*(["dvc.lock without " + ", ".join(lost)] if lost else []), *(f"no {name}" for name in absent)]
        raise NotThere(f"{version.uri} cannot be made again: its package has {'; '.join(said)}")
    return Recipe(version, version.tags.get("retune.git_commit", ""), package, lock)


def lay_out(root: Path, project: Path, recipe: Recipe) -> list[str]:
    """Turn the worktree into the version's workspace as it was before the first stage; return what had to be replaced.

    Raises:
        NotThere: the snapshot or the base model is neither in DVC's cache nor in its remote.
    """
    notes = lay_code(root, recipe)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(recipe.package / "artifacts" / name, root / name)
    for made in ("data", "models", "reports", "var"):
        shutil.rmtree(root / made, ignore_errors=True)
    (root / "dvc.lock").unlink(missing_ok=True)
    furnish(root, project)
    bring(root, project, recipe.inputs)
    return notes


def lay_code(root: Path, recipe: Recipe) -> list[str]:
    """Replace the commit's code by the package's copy of it where the two differ, and say so."""
    kept = recipe.package / "code/components"
    apart = [*different(root / "components", kept)]
    stages = root / "dvc.yaml"
    if not stages.is_file() or not filecmp.cmp(stages, recipe.package / "artifacts/dvc.yaml", shallow=False):
        apart.append("dvc.yaml")
    if not apart:
        return []
    shutil.rmtree(root / "components", ignore_errors=True)
    shutil.copytree(kept, root / "components", ignore=shutil.ignore_patterns("__pycache__"))
    more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""
    dirty = recipe.version.tags.get("retune.dirty", "0")
    return [
        f"the version was made from uncommitted code ({dirty} files then): its package's copy stands in for commit {recipe.commit[:12]} "
        f"in {', '.join(apart[:5])}{more}"
    ]


def different(one: Path, other: Path) -> list[str]:
    """Return the files that only one of two folders of code has, or that differ, below components/."""
    sides = [
        {path.relative_to(side).as_posix() for path in side.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        for side in (one, other)
    ]
    apart = {name for name in sides[0] & sides[1] if not filecmp.cmp(one / name, other / name, shallow=False)}
    return [f"components/{name}" for name in sorted(apart | (sides[0] ^ sides[1]))]


def ended_by_clock(model: Model, recipe: Recipe) -> bool:
    """Say whether the version's search was ended by the clock, so that another machine would try another number of trials.

    Raises:
        NotThere: neither DVC's cache nor the run knows.
    """
    try:
        path = cached_file(model.project, recipe.outs("tune")["models/tuned/best.json"])
    except (NotThere, KeyError):
        path = stored.artifact(model.uri, recipe.version, "search/best.json")
    return bool(json.loads(path.read_text(encoding="utf-8")).get("stopped_by") == BY_CLOCK)


def bring_tuned(root: Path, project: Path, recipe: Recipe) -> None:
    """Lay the search's result into the workspace.

    Raises:
        NotThere: it is gone from DVC's cache.
    """
    folder = root / "models/tuned"
    folder.mkdir(parents=True)
    for path, md5 in recipe.outs("tune").items():
        shutil.copyfile(cached_file(project, md5), folder / Path(path).name)


def remake(root: Path, stages: list[str]) -> None:
    """Run the stages in `root`, whatever a cache may have, with a state of their own."""
    for stage in stages:
        started = time.monotonic()
        dvc(["repro", "--force", "--single-item", stage], root, what=f"the stage {stage}", variables={"RETUNE_VAR": str(root / "var")})
        log.info("%s: made again in %.0f s", stage, time.monotonic() - started)


def machine_notes(model: Model, recipe: Recipe, root: Path) -> list[str]:
    """Return what of this machine is not as it was, and may be why bits differ; nothing is said where the run is gone."""
    notes = []
    new = Training.read(root / "models/trained")
    if new.stopped_by == BY_CLOCK:
        notes.append(f"the training was ended by the clock (train.max_minutes) at step {new.steps}: a faster machine goes further")
    try:
        old = Training.read(stored.artifact(model.uri, recipe.version, "training/training.json").parent)
        then = Lineage.read(stored.artifact(model.uri, recipe.version, Lineage.FILE).parent)
    except NotThere as error:
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


def compare_with(model: Model, recipe: Recipe, root: Path, stages: list[str]) -> tuple[dict[str, str], list[str]]:
    """Compare the second making with the first; return a word a stage, and a sentence a difference."""
    version, differences, words = recipe.version, list[str](), dict[str, str]()
    weights = digest_folder(root / "models/trained/model")
    if weights != version.tags["retune.weights"]:
        differences.append(f"weights: were {version.tags['retune.weights'][:12]}, are {weights[:12]}")
    metrics = Metrics.read(root / "reports/evaluation")
    now = {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in metrics.headline.items()}
    differences += compare.metrics_apart(json.loads(version.tags.get("retune.metrics", "{}")), now)
    differences += answers_apart(model, version, root)
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    for stage in stages:
        old, new = compare.files_of(recipe.lock, stage, model.project), compare.files_of(lock, stage, root)
        outputs = compare.compare(stage, old, new, model.project, root)
        apart = [output for output in outputs if not output.equal]
        words[stage] = f"{len(outputs)} files equal" if not apart else f"{len(apart)} of {len(outputs)} files differ"
        differences += [f"{output.path}: was {output.before or 'not there'}, is {output.after or 'not there'}" for output in apart]
    return words, differences


def answers_apart(model: Model, version: registry.Version, root: Path) -> list[str]:
    """Return how far the answers to the test rows are apart, where the first ones are still there."""
    file = "evaluation/predictions/candidate.parquet"
    try:
        before = Predictions.read(stored.artifact(model.uri, version, file))
    except NotThere:
        return []
    said = compare.answers_apart(before, Predictions.read(root / "reports" / file))
    return [said] if said else []
