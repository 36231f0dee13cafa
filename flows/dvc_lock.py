"""What dvc.lock says: the settings and the files that the stages ran with, and whether they are of one piece."""

import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from components.errors import NotThere
from flows.dvc import LOADER, STAGES

POINTERS = ("data/raw.dvc", "data/base.dvc")  # of the folders that a run makes before its stages


def edited_params(root: Path) -> list[str]:
    """Return the sections of params.yaml that differ from those that dvc.lock says its stages ran with.

    Raises:
        NotThere: dvc.lock is missing.
    """
    now = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    used = [pair for stage in _ours(root).values() for pair in stage.get("params", {}).get("params.yaml", {}).items()]
    return sorted({name for name, value in used if not _same(value, now.get(name))})


def _same(locked: object, written: object) -> bool:
    """Compare two settings; DVC writes 1e-07 into its lock, which YAML 1.1 takes for a text."""
    if isinstance(locked, dict) and isinstance(written, dict):
        return locked.keys() == written.keys() and all(_same(locked[name], written[name]) for name in locked)
    if isinstance(locked, list) and isinstance(written, list):
        return len(locked) == len(written) and all(map(_same, locked, written))
    if isinstance(locked, str) != isinstance(written, str):
        try:
            return float(locked) == float(written)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return False
    return locked == written


def lock_hashes(root: Path) -> dict[str, str]:
    """Return DVC's md5 of every tracked folder and stage output below `root`, by path.

    Raises:
        NotThere: dvc.lock is missing.
    """
    hashes = {out["path"]: out["md5"] for stage in _stages(root).values() for out in stage.get("outs", []) if "md5" in out}
    for pointer in sorted((root / "data").glob("*.dvc")):
        for out in yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"]:
            hashes[f"data/{out['path']}"] = out["md5"]
    return dict(sorted(hashes.items()))


def locked(root: Path) -> frozenset[str]:
    """Return the stages that dvc.lock knows and dvc.yaml has; none where there is no lock."""
    return frozenset(_stages(root)) if (root / "dvc.lock").exists() else frozenset()


def leads_to(root: Path, stage: str) -> frozenset[str]:
    """Return a stage and all that it hangs on, as far as dvc.lock knows them."""
    on = needs(_stages(root)) if (root / "dvc.lock").exists() else {}
    return frozenset({stage, *upstream(on, stage)})


def pointed(root: Path, path: str) -> str | None:
    """Return DVC's md5 of a folder that a run makes before its stages; None where DVC does not know it."""
    pointer = root / f"{path}.dvc"
    if not pointer.exists():
        return None
    return str(yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]["md5"])


def outputs(root: Path, stages: Collection[str]) -> dict[str, str]:
    """Return DVC's md5 of each output that these stages keep in its cache, by path; nothing where there is no dvc.lock.

    An output with a hash of another kind is left out, as those that DVC 2 wrote.
    """
    try:
        known = _stages(root)
    except NotThere:
        return {}
    return {out["path"]: out["md5"] for stage in stages for out in known.get(stage, {}).get("outs", []) if out.get("hash") == "md5"}


def overtaken(root: Path) -> dict[str, list[str]]:
    """Return the stages that ran with other files than those that are there by now, with these files.

    So it is after one stage was run alone, with other settings or on other data, and not those that come after it.

    Raises:
        NotThere: dvc.lock is missing.
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


def settled(root: Path, changed: Collection[str]) -> frozenset[str]:
    """Return the stages of a run that stand as they are: nothing that they hang on, itself included, is among the `changed`.

    Where something has changed that dvc.lock does not know, nobody can say what hangs on it, and none stands.
    """
    try:
        on = needs(_stages(root))
    except NotThere:
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
        raise NotThere(f"{lock} is missing: nothing was made here yet; `retune run` makes it")
    stages = _parsed(lock.read_bytes())
    if not pipeline.exists():
        return stages
    wanted = _parsed(pipeline.read_bytes())
    return {
        name: stage for name, stage in stages.items() if name.partition("@")[0] in wanted
    }  # of a stage with `foreach` there are several


@functools.lru_cache(maxsize=4)  # asked several times in a run
def _parsed(content: bytes) -> dict[str, dict[str, Any]]:
    stages: dict[str, dict[str, Any]] = (yaml.load(content.decode("utf-8"), LOADER) or {}).get("stages") or {}
    return stages
