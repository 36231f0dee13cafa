"""What dvc.lock says: the settings and the files that the stages ran with, and whether they are of one piece."""

import functools
from pathlib import Path
from typing import Any

import yaml

from components.errors import NotThere
from flows.dvc import STAGES

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a lock has a thousand lines


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
    hashes = {out["path"]: out["md5"] for stage in _stages(root).values() for out in stage.get("outs", [])}
    for pointer in sorted((root / "data").glob("*.dvc")):
        for out in yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"]:
            hashes[f"data/{out['path']}"] = out["md5"]
    return dict(sorted(hashes.items()))


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


def _stages(root: Path) -> dict[str, dict[str, Any]]:
    lock = root / "dvc.lock"
    if not lock.exists():
        raise NotThere(f"{lock} is missing: nothing was made here yet; `retune run` makes it")
    return _parsed(lock.read_bytes())


@functools.lru_cache(maxsize=4)  # asked several times in a run
def _parsed(content: bytes) -> dict[str, dict[str, Any]]:
    stages: dict[str, dict[str, Any]] = (yaml.load(content.decode("utf-8"), LOADER) or {}).get("stages", {})
    return stages
