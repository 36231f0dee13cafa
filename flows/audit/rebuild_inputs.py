"""Read from the registry how a version was built, and lay out its workspace as it was before the first stage.

Reads the version's tags, the package's dvc.lock, dvc.yaml, params.yaml and copy of the code, and DVC's cache for the data.
"""

import filecmp
import hashlib
import json
import shutil
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from components.core.documents import read_yaml
from components.core.errors import BadModel, NotFound, listed
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from components.mlflow_store.registry.package import PIPELINE_CODE
from components.mlflow_store.registry.verify import checked_package
from flows.audit.registered_model import RegisteredModel
from flows.audit.worktree import fetch_inputs, prepare_worktree
from flows.dvc_adapter.cache import cached_file
from flows.dvc_adapter.lock import stage_graph, within

BY_CLOCK = "max_minutes"
TUNE = "tune"


@dataclass(frozen=True)
class Recipe:
    """Everything the registry entry records about building the version; `package` is its folder in MLflow's artifacts."""

    version: registry.Version
    commit: str
    package: Path
    lock: dict[str, Any]

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the version's pipeline in dependency order."""
        return tuple(TopologicalSorter(stage_graph(self.lock["stages"])).static_order())

    @property
    def inputs(self) -> dict[str, str]:
        """The md5 of each DVC folder that no stage writes, by path."""
        outputs = [out for name in self.lock["stages"] for out in self.outs(name)]
        needed = {path: md5 for name in self.lock["stages"] for path, md5 in self.deps(name).items() if not within(path, "components")}
        return {path: md5 for path, md5 in needed.items() if not any(within(path, out) for out in outputs)}

    def deps(self, stage: str) -> dict[str, str]:
        """The md5 of each file and folder that a stage reads, by path."""
        return {dep["path"]: dep["md5"] for dep in self.lock["stages"][stage].get("deps", [])}

    def outs(self, stage: str) -> dict[str, str]:
        """The md5 of each output of a stage, by path."""
        return {out["path"]: out["md5"] for out in self.lock["stages"][stage].get("outs", [])}


def read_recipe(model: RegisteredModel, version: registry.Version) -> Recipe:
    """Read from the registry how a version was built.

    Raises:
        NotFound: it was not registered by Retune, or has no lock.
        BadModel: its package is missing or was changed.
    """
    model.hashes(version)
    package = checked_package(model.uri, version)
    artifacts = package / "artifacts"
    lock: dict[str, Any] = {"stages": {}}
    missing = [name for name in ("dvc.lock", "dvc.yaml", "params.yaml") if not (artifacts / name).is_file()]
    if not missing:
        lock = read_yaml(artifacts / "dvc.lock", as_dvc=True)
        expected = read_yaml(artifacts / "dvc.yaml")["stages"]
        recorded = {name.partition("@")[0] for name in lock["stages"]}  # a stage with `foreach` has several entries
        missing = [f"a record of the stage {name}" for name in expected if name not in recorded]
        lock["stages"] = {name: stage for name, stage in lock["stages"].items() if name.partition("@")[0] in expected}
    if missing:
        raise NotFound(f"{version.uri} cannot be rebuilt: its package lacks {', '.join(missing)}")
    return Recipe(version, version.tags.get("retune.git_commit", ""), package, lock)


def lay_out_workspace(root: Path, project: Path, recipe: Recipe) -> list[str]:
    """Turn the worktree into the version's workspace before the first stage; return notes on replaced code.

    Raises:
        NotFound: the snapshot or the base model is neither in DVC's cache nor in its remote.
    """
    notes = write_code(root, recipe)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(recipe.package / "artifacts" / name, root / name)
    for folder in ("data", "models", "reports", "var"):
        shutil.rmtree(root / folder, ignore_errors=True)
    (root / "dvc.lock").unlink(missing_ok=True)
    prepare_worktree(root, project)
    fetch_inputs(root, project, recipe.inputs)
    return notes


def write_code(root: Path, recipe: Recipe) -> list[str]:
    """Replace the commit's code with the package's complete copy of the pipeline if they differ, and return a note about it."""
    full_copy = recipe.package / "artifacts" / PIPELINE_CODE / "components"
    packaged = full_copy if full_copy.is_dir() else recipe.package / "code/components"
    complete = (packaged / "__main__.py").is_file()  # older packages contain the whole pipeline here, newer ones only the model's code
    different = differing_files(root / "components", packaged, complete)
    stages = root / "dvc.yaml"
    if not stages.is_file() or not filecmp.cmp(stages, recipe.package / "artifacts/dvc.yaml", shallow=False):
        different.append("dvc.yaml")
    if not different:
        return []
    files = listed(different, 5)
    if not complete:
        raise BadModel(f"commit {recipe.commit[:12]} does not contain the code of {recipe.version.uri}: {files} differs")
    shutil.rmtree(root / "components", ignore_errors=True)
    shutil.copytree(packaged, root / "components", ignore=shutil.ignore_patterns("__pycache__"))
    dirty = recipe.version.tags.get("retune.dirty", "0")
    return [
        f"the version was built from uncommitted code ({dirty} files): its package's copy replaces commit {recipe.commit[:12]} in {files}"
    ]


def differing_files(code: Path, packaged: Path, complete: bool) -> list[str]:
    """Return the files of `packaged` that are missing or different in `code`; if `complete`, also the extra files of `code`."""
    sides = [
        {path.relative_to(side).as_posix() for path in side.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        for side in (code, packaged)
    ]
    different = {name for name in sides[0] & sides[1] if not filecmp.cmp(code / name, packaged / name, shallow=False)}
    missing = sides[0] ^ sides[1] if complete else sides[1] - sides[0]
    return [f"components/{name}" for name in sorted(different | missing)]


def unrepeatable_search(model: RegisteredModel, recipe: Recipe) -> str | None:
    """Return why repeating the version's search may give another result: its strategy, a time limit, or trials of earlier searches.

    Raises:
        NotFound: neither DVC's cache nor the run has the search's result.
    """
    if TUNE not in recipe.lock["stages"]:
        return None
    if _strategy(recipe) == "auto":
        return "tried what fitted into its minutes (tune.strategy auto)"
    try:
        path = cached_file(model.project, recipe.outs(TUNE)["models/tuned/best.json"])
    except (NotFound, KeyError):
        path = artifact_access.artifact(model.uri, recipe.version, "search/best.json")
    best = json.loads(path.read_text(encoding="utf-8"))
    if best.get("stopped_by") in ("minutes", BY_CLOCK):  # a search of an earlier release ended by `max_minutes` too
        return "reached its time limit (tune.minutes)"
    return f"started from {best['carried']} trials of earlier searches" if best.get("carried") else None


def _strategy(recipe: Recipe) -> str | None:
    path = recipe.package / "artifacts/params.yaml"
    params = read_yaml(path) if path.is_file() else {}
    return (params.get("tune") or {}).get("strategy") if isinstance(params, dict) else None


def restore_tuned(root: Path, model: RegisteredModel, recipe: Recipe) -> None:
    """Copy the search's result from DVC's cache, or from the run's artifacts, into the workspace.

    Raises:
        NotFound: it is missing from both.
    """
    folder = root / "models/tuned"
    folder.mkdir(parents=True)
    for path, md5 in recipe.outs(TUNE).items():
        shutil.copyfile(_search_file(model, recipe, Path(path).name, md5), folder / Path(path).name)


def _search_file(model: RegisteredModel, recipe: Recipe, name: str, md5: str) -> Path:
    try:
        return cached_file(model.project, md5)
    except NotFound as missing:
        try:
            logged = artifact_access.artifact(model.uri, recipe.version, f"search/{name}")
        except NotFound:
            raise missing from None
        if hashlib.md5(logged.read_bytes()).hexdigest() != md5:
            raise missing from None
        return logged
