"""What dvc.lock says: the settings and the files that the stages ran with, and whether they are of one piece."""

import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from components.core.documents import parse_yaml, read_yaml
from components.core.errors import BadParams, NotFound
from components.steps import STAGES

RESTORE = "`git checkout` restores it where it was committed"
POINTERS = ("data/raw.dvc", "data/base.dvc")  # of the folders that a run makes before its stages


def edited_params(root: Path) -> list[str]:
    """Return the sections of params.yaml that differ from those that dvc.lock says its stages ran with.

    Raises:
        NotFound: dvc.lock is missing.
        BadParams: it is damaged.
    """
    params = root / "params.yaml"
    now = read_yaml(params, as_dvc=True)  # a text that is `yes` has no quotes in dvc.lock, and is one
    if not isinstance(now, dict):
        raise BadParams(f"{params}: expected a mapping with a section a step, found {type(now).__name__}")
    used = [pair for stage in _ours(root).values() for pair in stage.get("params", {}).get("params.yaml", {}).items()]
    return sorted({name for name, value in used if value != now.get(name)})


def lock_hashes(root: Path) -> dict[str, str]:
    """Return DVC's md5 of every tracked folder and stage output below `root`, by path.

    Raises:
        NotFound: dvc.lock is missing.
    """
    hashes = {out["path"]: str(out["md5"]) for stage in _stages(root).values() for out in stage.get("outs", []) if "md5" in out}
    for pointer in sorted((root / "data").glob("*.dvc")):
        hashes |= {f"data/{path}": md5 for path, md5 in pointed_at(pointer).items()}
    return dict(sorted(hashes.items()))


def pointed_at(pointer: Path) -> dict[str, str]:
    """Return the md5 of each file or folder that a .dvc file points at, by its name.

    Raises:
        BadParams: it is damaged.
    """
    found = read_yaml(pointer, as_dvc=True)
    outs = found.get("outs") if isinstance(found, dict) else None
    if not outs or not _have_paths(outs) or not all(isinstance(out.get("md5"), str) for out in outs):
        raise BadParams(f"{pointer} is damaged: expected `outs` with a path and an md5; {RESTORE}, and `retune snapshot` writes it anew")
    return {out["path"]: out["md5"] for out in outs}


def locked(root: Path) -> frozenset[str]:
    """Return the stages that dvc.lock knows and dvc.yaml has; none where there is no lock."""
    return frozenset(_stages(root)) if (root / "dvc.lock").exists() else frozenset()


def depends_on(root: Path, stage: str) -> frozenset[str]:
    """Return a stage and all that it hangs on, as far as dvc.lock knows them."""
    on = needs(_stages(root)) if (root / "dvc.lock").exists() else {}
    return frozenset({stage, *upstream(on, stage)})


def pointed(root: Path, path: str) -> str | None:
    """Return DVC's md5 of a folder that a run makes before its stages; None where DVC does not know it."""
    pointer = root / f"{path}.dvc"
    if not pointer.exists():
        return None
    return next(iter(pointed_at(pointer).values()))


def outputs(root: Path, stages: Collection[str]) -> dict[str, str]:
    """Return DVC's md5 of each output that these stages keep in its cache, by path; nothing where there is no dvc.lock.

    An output with a hash of another kind is left out, as those that DVC 2 wrote.
    """
    try:
        known = _stages(root)
    except NotFound:
        return {}
    return {out["path"]: out["md5"] for stage in stages for out in known.get(stage, {}).get("outs", []) if out.get("hash") == "md5"}


def overtaken_stages(root: Path) -> dict[str, list[str]]:
    """Return the stages that ran with other files than those that are there by now, with these files.

    So it is after one stage was run alone, with other settings or on other data, and not those that come after it.

    Raises:
        NotFound: dvc.lock is missing.
    """
    made = lock_hashes(root)
    used = {
        name: [dep["path"] for dep in stage.get("deps", []) if made.get(dep["path"], dep.get("md5")) != dep.get("md5")]
        for name, stage in _ours(root).items()
    }
    return {name: paths for name, paths in used.items() if paths}


def _ours(root: Path) -> dict[str, dict[str, Any]]:
    """Return the stages that a run brings up to date; a stage of the user's own, or one that is no more, says nothing of the model."""
    stages = _stages(root)
    return {name: stages[name] for name in STAGES if name in stages}


def settled_stages(root: Path, changed: Collection[str]) -> frozenset[str]:
    """Return the stages of a run that stand as they are: nothing that they hang on, itself included, is among the `changed`.

    Where something has changed that dvc.lock does not know, nobody can say what hangs on it, and none stands.
    """
    try:
        on = needs(_stages(root))
    except NotFound:
        return frozenset()
    if not set(changed) <= {*on, *POINTERS}:
        return frozenset()
    return frozenset(stage for stage in STAGES if stage in on and not (upstream(on, stage) | {stage}) & set(changed))


def needs(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return, for each stage of a dvc.lock, the stages whose outputs it reads."""
    outs = {str(out["path"]): name for name, stage in stages.items() for out in stage.get("outs", [])}
    return {
        name: {
            maker
            for dep in stage.get("deps", [])
            for out, maker in outs.items()
            if maker != name and (within(dep["path"], out) or within(out, dep["path"]))
        }
        for name, stage in stages.items()
    }


def upstream(on: Mapping[str, Collection[str]], stage: str) -> set[str]:
    """Return all stages that `stage` hangs on, directly or not, by what `needs` returns."""
    found, left = set[str](), [stage]
    while left:
        left += (new := set(on.get(left.pop(), ())) - found)
        found |= new
    return found


def within(path: str, folder: str) -> bool:
    """Say whether `path` is `folder` or lies below it."""
    return path == folder or path.startswith(f"{folder}/")


def _stages(root: Path) -> dict[str, dict[str, Any]]:
    """Return the stages of dvc.lock that dvc.yaml still has: DVC keeps what it knows of others."""
    lock, pipeline = root / "dvc.lock", root / "dvc.yaml"
    if not lock.exists():
        raise NotFound(f"{lock} is missing: nothing was made here yet; `retune run` makes it")
    stages = _parsed(lock, lock.read_bytes())
    if not pipeline.exists():
        return stages
    described = read_yaml(pipeline)
    wanted = described.get("stages") if isinstance(described, dict) else None
    if not isinstance(wanted, dict):
        raise BadParams(f"{pipeline} has no `stages`; {RESTORE}")
    # Of a stage with `foreach` there are several.
    return {name: stage for name, stage in stages.items() if name.partition("@")[0] in wanted}


@functools.lru_cache(maxsize=4)  # asked several times in a run
def _parsed(lock: Path, content: bytes) -> dict[str, dict[str, Any]]:
    found = parse_yaml(content, lock, as_dvc=True) or {}
    stages = found.get("stages", {}) if isinstance(found, dict) else None
    whole = isinstance(stages, dict) and all(
        isinstance(stage, dict) and _have_paths(stage.get("outs", [])) and _have_paths(stage.get("deps", [])) and _has_params(stage)
        for stage in stages.values()
    )
    if not isinstance(stages, dict) or not whole:
        raise BadParams(f"{lock} is damaged: expected `stages` with their deps and outs; {RESTORE}, else delete it, then `retune run`")
    return stages


def _has_params(stage: dict[str, Any]) -> bool:
    found = stage.get("params", {})
    return isinstance(found, dict) and isinstance(found.get("params.yaml", {}), dict)


def _have_paths(entries: object) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, dict) and isinstance(entry.get("path"), str) for entry in entries)
