"""Read dvc.lock: the settings and files that the stages ran with, and whether they are consistent."""

import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from components.core.documents import parse_yaml, read_yaml
from components.core.errors import BadParams, NotFound
from components.steps import STAGES

RESTORE = "`git checkout` restores it if it was committed"
POINTERS = ("data/raw.dvc", "data/base.dvc")  # folders that a run writes before its stages


def edited_params(root: Path) -> list[str]:
    """Return the sections of params.yaml that differ from dvc.lock; raise NotFound without it, BadParams if it is damaged."""
    params = root / "params.yaml"
    now = read_yaml(params, as_dvc=True)  # dvc.lock has the string `yes` without quotes
    if not isinstance(now, dict):
        raise BadParams(f"{params}: expected a mapping with a section per step, content {type(now).__name__}")
    used = [pair for stage in _ours(root).values() for pair in stage.get("params", {}).get("params.yaml", {}).items()]
    return sorted({name for name, value in used if value != now.get(name)})


def lock_hashes(root: Path) -> dict[str, str]:
    """Return DVC's md5 of every tracked folder and stage output, by path; raise NotFound without dvc.lock."""
    hashes = {out["path"]: str(out["md5"]) for stage in _stages(root).values() for out in stage.get("outs", []) if "md5" in out}
    for pointer in sorted((root / "data").glob("*.dvc")):
        hashes |= {f"data/{path}": md5 for path, md5 in read_pointer(pointer).items()}
    return dict(sorted(hashes.items()))


def read_pointer(pointer: Path) -> dict[str, str]:
    """Return the md5 of each file or folder in a .dvc file, by name; raise BadParams if it is damaged."""
    content = read_yaml(pointer, as_dvc=True)
    outs = content.get("outs") if isinstance(content, dict) else None
    if not outs or not _have_paths(outs) or not all(isinstance(out.get("md5"), str) for out in outs):
        raise BadParams(f"{pointer} is damaged: expected `outs` with a path and an md5; {RESTORE}, or `retune snapshot` recreates it")
    return {out["path"]: out["md5"] for out in outs}


def locked_stages(root: Path) -> frozenset[str]:
    """Return the stages in both dvc.lock and dvc.yaml; none without a lock."""
    return frozenset(_stages_if_any(root))


def depends_on(root: Path, stage: str) -> frozenset[str]:
    """Return a stage and all stages in dvc.lock that it depends on."""
    return frozenset({stage, *upstream(stage_graph(_stages_if_any(root)), stage)})


def tracked_md5(root: Path, path: str) -> str | None:
    """Return DVC's md5 of a folder with a .dvc file; None if it has none."""
    pointer = root / f"{path}.dvc"
    return next(iter(read_pointer(pointer).values())) if pointer.exists() else None


def outputs(root: Path, stages: Collection[str]) -> dict[str, str]:
    """Return DVC's md5 of each cached output of these stages, by path; empty without dvc.lock.

    Outputs with another type of hash, as written by DVC 2, are left out.
    """
    locked = _stages_if_any(root)
    return {out["path"]: out["md5"] for stage in stages for out in locked.get(stage, {}).get("outs", []) if out.get("hash") == "md5"}


def overtaken_stages(root: Path) -> dict[str, list[str]]:
    """Return the stages whose inputs in dvc.lock differ from the current outputs, with these inputs; raise NotFound without it."""
    current = lock_hashes(root)
    # Inputs differ if a stage was run alone with other settings or data and the stages after it were not.
    stale = {
        name: [dep["path"] for dep in stage.get("deps", []) if current.get(dep["path"], dep.get("md5")) != dep.get("md5")]
        for name, stage in _ours(root).items()
    }
    return {name: paths for name, paths in stale.items() if paths}


def _ours(root: Path) -> dict[str, dict[str, Any]]:
    """Return the stages of a run; user stages and removed stages do not affect the model."""
    stages = _stages(root)
    return {name: stages[name] for name in STAGES if name in stages}


def unchanged_stages(root: Path, changed: Collection[str]) -> frozenset[str]:
    """Return the stages of a run that are up to date: neither they nor their dependencies are among the `changed`.

    None is up to date if something changed that is not in dvc.lock, since its dependants are unknown.
    """
    graph = stage_graph(_stages_if_any(root))
    if not set(changed) <= {*graph, *POINTERS}:
        return frozenset()
    return frozenset(stage for stage in STAGES if stage in graph and not (upstream(graph, stage) | {stage}) & set(changed))


def stage_graph(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return, for each stage of a dvc.lock, the stages whose outputs it reads."""
    outs = {str(out["path"]): name for name, stage in stages.items() for out in stage.get("outs", [])}
    deps = {name: [dep["path"] for dep in stage.get("deps", [])] for name, stage in stages.items()}
    return {
        name: {maker for out, maker in outs.items() if maker != name and any(within(out, dep) or within(dep, out) for dep in paths)}
        for name, paths in deps.items()
    }


def upstream(graph: Mapping[str, Collection[str]], stage: str) -> set[str]:
    """Return all direct and indirect dependencies of `stage` in a `stage_graph`."""
    stages, queue = set[str](), [stage]
    while queue:
        queue += (new := set(graph.get(queue.pop(), ())) - stages)
        stages |= new
    return stages


def within(path: str, folder: str) -> bool:
    """Return whether `path` is `folder` or inside it."""
    return path == folder or path.startswith(f"{folder}/")


def _stages_if_any(root: Path) -> dict[str, dict[str, Any]]:
    """Return `_stages`; empty without dvc.lock."""
    return _stages(root) if (root / "dvc.lock").exists() else {}


def _stages(root: Path) -> dict[str, dict[str, Any]]:
    """Return the stages of dvc.lock that are in dvc.yaml; DVC keeps removed ones in the lock."""
    lock, pipeline = root / "dvc.lock", root / "dvc.yaml"
    if not lock.exists():
        raise NotFound(f"{lock} is missing: no stage ran here yet; start with `retune run`")
    stages = _parsed(lock, lock.read_bytes())
    if not pipeline.exists():
        return stages
    definition = read_yaml(pipeline)
    defined = definition.get("stages") if isinstance(definition, dict) else None
    if not isinstance(defined, dict):
        raise BadParams(f"{pipeline} has no `stages`; {RESTORE}")
    # A stage with `foreach` has several entries.
    return {name: stage for name, stage in stages.items() if name.partition("@")[0] in defined}


@functools.lru_cache(maxsize=4)  # read several times in a run
def _parsed(lock: Path, data: bytes) -> dict[str, dict[str, Any]]:
    content = parse_yaml(data, lock, as_dvc=True) or {}
    stages = content.get("stages", {}) if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not all(map(_is_stage, stages.values())):
        raise BadParams(f"{lock} is damaged: expected `stages` with their deps and outs; {RESTORE}; else delete it and run `retune run`")
    return stages


def _is_stage(stage: object) -> bool:
    if not isinstance(stage, dict) or not all(_have_paths(stage.get(name, [])) for name in ("outs", "deps")):
        return False
    params = stage.get("params", {})
    return isinstance(params, dict) and isinstance(params.get("params.yaml", {}), dict)


def _have_paths(entries: object) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, dict) and isinstance(entry.get("path"), str) for entry in entries)
