"""Compare a rebuilt version with the original, stage by stage and file by file."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts.predictions import Predictions
from components.core.errors import NotFound
from flows.dvc_adapter.cache import cached_listing, cached_object

# Files and fields with timings, which differ between two builds of the same model.
TIMED_FILES = ("models/tuned/trials.parquet", "models/trained/history.jsonl")
TIMED_FIELDS = {"seconds", "examples_per_second", "peak_memory_mib", "resumed"}


@dataclass(frozen=True)
class StageOutput:
    """One output file of a stage with its md5 in both builds, None if absent; `equal` ignores timings.

    `equal` is None if the bytes differ, possibly only in timings, and the original file is no longer available to check.
    """

    stage: str
    path: str
    before: str | None
    after: str | None
    equal: bool | None


def stage_files(lock: Mapping[str, Any], stage: str, cache_of: Path, whole: Collection[str] = ()) -> dict[str, str]:
    """Return the md5 of every file that a stage wrote, by path.

    A folder is one entry with its own md5 (`….dir`) if its listing is missing from the cache or its path is in `whole`.
    """
    files: dict[str, str] = {}
    for out in lock["stages"].get(stage, {}).get("outs", []):
        path, md5 = str(out["path"]), str(out["md5"])
        if not md5.endswith(".dir") or path in whole:
            files[path] = md5
            continue
        try:
            files |= {f"{path}/{name}": file_md5 for name, file_md5 in cached_listing(cache_of, md5).items()}
        except NotFound:
            files[path] = md5
    return files


def compare_stage(stage: str, first: Mapping[str, Any], second: Mapping[str, Any], project: Path, root: Path) -> list[StageOutput]:
    """Compare a stage's outputs in two locks: `first` of `project`, whose cache may lack files, and `second` of `root`."""
    before = stage_files(first, stage, project)
    unlisted = {path for path, md5 in before.items() if md5.endswith(".dir")}
    return compare(stage, before, stage_files(second, stage, root, unlisted), project, root)


def summarize(outputs: Sequence[StageOutput]) -> str:
    """Summarize a comparison: `12 files equal`, `1 of 3 files differ, 1 cannot be compared`."""
    different, unknown = (sum(output.equal is state for output in outputs) for state in (False, None))
    summary = f"{different} of {len(outputs)} files differ" if different else f"{len(outputs) - unknown} files equal"
    return f"{summary}, {unknown} cannot be compared" if unknown else summary


def compare(stage: str, before: Mapping[str, str], after: Mapping[str, str], project: Path, root: Path) -> list[StageOutput]:
    """Compare the outputs of a stage; a folder that is one entry in `before` must be one entry in `after`."""
    return [
        StageOutput(stage, name, before.get(name), after.get(name), is_equal(name, before.get(name), after.get(name), project, root))
        for name in sorted({*before, *after})
    ]


def is_equal(name: str, old: str | None, new: str | None, project: Path, root: Path) -> bool | None:
    """Return whether an output is equal apart from timings; None if it contains some and the original is missing.

    Files in TIMED_FILES always count as equal.
    """
    if old == new:
        return True
    if old is None or new is None or not _contains_times(root / name, name):
        return False
    if name in TIMED_FILES:
        return True
    if old.endswith(".dir"):
        return None
    try:
        first = json.loads(cached_object(project, old).read_text(encoding="utf-8"))
    except NotFound:
        return None
    return isinstance(first, dict) and _without_times(first) == _without_times(json.loads((root / name).read_text(encoding="utf-8")))


def _contains_times(path: Path, name: str) -> bool:
    if path.is_dir():
        return any(_contains_times(file, f"{name}/{file.relative_to(path).as_posix()}") for file in path.rglob("*") if file.is_file())
    if name in TIMED_FILES or path.suffix != ".json":
        return name in TIMED_FILES
    record = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(record, dict) and not TIMED_FIELDS.isdisjoint(record)


def _without_times(record: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in record.items() if name not in TIMED_FIELDS}


def metric_differences(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Describe each test metric that differs, with both values."""
    differences = []
    for name, old in before.items():
        if (new := after.get(name)) is None:
            differences.append(f"test {name}: was {old['value']:.6f}, is not measured now")
        elif any(old[key] != new[key] for key in ("value", "low", "high")):
            differences.append(f"test {name}: was {old['value']:.6f} ({old['low']:.6f} to {old['high']:.6f}), is {new['value']:.6f}")
    return differences


def prediction_difference(before: Predictions, after: Predictions) -> str | None:
    """Describe how the predictions on the test rows differ; None if they are equal."""
    if before.ids.tolist() != after.ids.tolist() or before.labels != after.labels:
        return "the test rows or the labels differ, so the predictions cannot be compared row by row"
    changed = [
        name for name in before.measured if not np.array_equal(before.measured[name], after.measured.get(name, np.zeros(0)), equal_nan=True)
    ]
    different = int(np.sum(before.predicted != after.predicted))
    largest = float(np.abs(before.probabilities - after.probabilities).max(initial=0.0))
    if different == 0 and largest == 0:
        return f"the per-row measurements differ: {', '.join(changed)}" if changed else None
    return f"{different} of {len(before.ids)} predictions differ; the largest difference of a probability is {largest:.2e}"
