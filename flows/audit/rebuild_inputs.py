"""How a version was made, read from its registry entry alone, and laid out in a folder apart as it was before the first stage.

Reads the version's tags and, of its package, dvc.lock, dvc.yaml, params.yaml and the copy of the code; DVC's cache for the data.
"""

import filecmp
import json
import shutil
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from components.core.documents import read_yaml
from components.core.errors import BadModel, NotFound
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from components.mlflow_store.registry.package import PIPELINE_CODE
from components.mlflow_store.registry.verify import checked_package
from flows.audit.registered_model import RegisteredModel
from flows.audit.worktree import fetch_inputs, prepare_worktree
from flows.dvc_adapter.lock import needs, within
from flows.dvc_adapter.repro import cached_file

BY_CLOCK = "max_minutes"
TUNE = "tune"


@dataclass(frozen=True)
class Recipe:
    """What the registry entry says about how to make the version; `package` is its folder in MLflow's artifacts."""

    version: registry.Version
    commit: str
    package: Path
    lock: dict[str, Any]

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the version's own pipeline, each after those whose outputs it reads."""
        return tuple(TopologicalSorter(needs(self.lock["stages"])).static_order())

    @property
    def inputs(self) -> dict[str, str]:
        """DVC's folders that no stage makes, by path."""
        made = [out for name in self.lock["stages"] for out in self.outs(name)]
        needed = {path: md5 for name in self.lock["stages"] for path, md5 in self.deps(name).items() if not within(path, "components")}
        return {path: md5 for path, md5 in needed.items() if not any(within(path, out) for out in made)}

    def deps(self, stage: str) -> dict[str, str]:
        """The md5 of each file and folder that a stage reads, by path."""
        return {dep["path"]: dep["md5"] for dep in self.lock["stages"][stage].get("deps", [])}

    def outs(self, stage: str) -> dict[str, str]:
        """The md5 of each output of a stage, by path."""
        return {out["path"]: out["md5"] for out in self.lock["stages"][stage].get("outs", [])}


def read_recipe(model: RegisteredModel, version: registry.Version) -> Recipe:
    """Read how a version was made, from the registry alone.

    Raises:
        NotThere: it was not registered by Retune, or without its lock.
        BadModel: its package is gone, or is not what was registered.
    """
    model.hashes(version)
    package = checked_package(model.uri, version)
    artifacts = package / "artifacts"
    lock: dict[str, Any] = {"stages": {}}
    absent = [name for name in ("dvc.lock", "dvc.yaml", "params.yaml") if not (artifacts / name).is_file()]
    if not absent:
        lock = read_yaml(artifacts / "dvc.lock", as_dvc=True)
        wanted = read_yaml(artifacts / "dvc.yaml")["stages"]
        made = {name.partition("@")[0] for name in lock["stages"]}  # of a stage with `foreach` there are several
        absent = [f"a record of the stage {name}" for name in wanted if name not in made]
        lock["stages"] = {name: stage for name, stage in lock["stages"].items() if name.partition("@")[0] in wanted}
    if absent:
        raise NotFound(f"{version.uri} cannot be made again: its package lacks {', '.join(absent)}")
    return Recipe(version, version.tags.get("retune.git_commit", ""), package, lock)


def lay_out_workspace(root: Path, project: Path, recipe: Recipe) -> list[str]:
    """Turn the worktree into the version's workspace as it was before the first stage; return what had to be replaced.

    Raises:
        NotThere: the snapshot or the base model is neither in DVC's cache nor in its remote.
    """
    notes = write_code(root, recipe)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(recipe.package / "artifacts" / name, root / name)
    for made in ("data", "models", "reports", "var"):
        shutil.rmtree(root / made, ignore_errors=True)
    (root / "dvc.lock").unlink(missing_ok=True)
    prepare_worktree(root, project)
    fetch_inputs(root, project, recipe.inputs)
    return notes


def write_code(root: Path, recipe: Recipe) -> list[str]:
    """Replace the commit's code by the package's copy of the pipeline where it has one and the two differ, and say so.

    Raises:
        BadModel: the package has no such copy, and the commit's code is not the code that the package carries.
    """
    whole = recipe.package / "artifacts" / PIPELINE_CODE / "components"
    kept = whole if whole.is_dir() else recipe.package / "code/components"
    complete = (kept / "__main__.py").is_file()  # as in every package that was registered before packages carried the model's code alone
    apart = differing_files(root / "components", kept, complete)
    stages = root / "dvc.yaml"
    if not stages.is_file() or not filecmp.cmp(stages, recipe.package / "artifacts/dvc.yaml", shallow=False):
        apart.append("dvc.yaml")
    if not apart:
        return []
    more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""
    where = f"{', '.join(apart[:5])}{more}"
    if not complete:
        raise BadModel(f"commit {recipe.commit[:12]} does not contain the code that {recipe.version.uri} was made with: {where} differs")
    shutil.rmtree(root / "components", ignore_errors=True)
    shutil.copytree(kept, root / "components", ignore=shutil.ignore_patterns("__pycache__"))
    dirty = recipe.version.tags.get("retune.dirty", "0")
    return [
        f"the version was made from uncommitted code ({dirty} files then): its package's copy stands in for commit {recipe.commit[:12]} "
        f"in {where}"
    ]


def differing_files(code: Path, kept: Path, complete: bool) -> list[str]:
    """Return the files of `kept` that `code` has not or otherwise, and if it is `complete` those of `code` that it lacks."""
    sides = [
        {path.relative_to(side).as_posix() for path in side.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        for side in (code, kept)
    ]
    apart = {name for name in sides[0] & sides[1] if not filecmp.cmp(code / name, kept / name, shallow=False)}
    missing = sides[0] ^ sides[1] if complete else sides[1] - sides[0]
    return [f"components/{name}" for name in sorted(apart | missing)]


def unrepeatable_search(model: RegisteredModel, recipe: Recipe) -> str | None:
    """Say why the version's search would find something else elsewhere: it was ended by the clock, or began with trials of earlier ones.

    Raises:
        NotThere: neither DVC's cache nor the run knows.
    """
    if TUNE not in recipe.lock["stages"]:
        return None
    try:
        path = cached_file(model.project, recipe.outs(TUNE)["models/tuned/best.json"])
    except (NotFound, KeyError):
        path = artifact_access.artifact(model.uri, recipe.version, "search/best.json")
    best = json.loads(path.read_text(encoding="utf-8"))
    if best.get("stopped_by") == BY_CLOCK:
        return "was ended by the clock (tune.max_minutes)"
    return f"began with {best['carried']} trials of earlier searches" if best.get("carried") else None


def restore_tuned(root: Path, project: Path, recipe: Recipe) -> None:
    """Lay the search's result into the workspace.

    Raises:
        NotThere: it is gone from DVC's cache.
    """
    folder = root / "models/tuned"
    folder.mkdir(parents=True)
    for path, md5 in recipe.outs(TUNE).items():
        shutil.copyfile(cached_file(project, md5), folder / Path(path).name)
