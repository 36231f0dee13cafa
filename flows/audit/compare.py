"""What a second making of a version must have in common with the first, stage by stage and file by file."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts.predictions import Predictions
from components.core.errors import NotFound
from flows.dvc_adapter.repro import cached_listing, cached_object

# What says how long something took, and so differs between two makings of one model.
TIMED_FILES = ("models/tuned/trials.parquet", "models/trained/history.jsonl")
TIMED_FIELDS = {"seconds", "examples_per_second", "peak_memory_mib", "resumed"}


@dataclass(frozen=True)
class StageOutput:
    """One file of a stage's outputs: its md5 in both makings, None where it is not; `equal` leaves times out of account.

    `equal` is None where the bytes differ, may do so by times alone, and nobody can look since the first ones are gone.
    """

    stage: str
    path: str
    before: str | None
    after: str | None
    equal: bool | None


def files_of(lock: Mapping[str, Any], stage: str, cache_of: Path, whole: Collection[str] = ()) -> dict[str, str]:
    """Return the md5 of every file that a stage wrote, by path.

    A folder is one entry with its own md5 (`….dir`) where its listing is gone from the cache, or where its path is in `whole`.
    """
    files: dict[str, str] = {}
    for out in lock["stages"].get(stage, {}).get("outs", []):
        path, md5 = str(out["path"]), str(out["md5"])
        if not md5.endswith(".dir") or path in whole:
            files[path] = md5
            continue
        try:
            files |= {f"{path}/{name}": each for name, each in cached_listing(cache_of, md5).items()}
        except NotFound:
            files[path] = md5
    return files


def folders(files: Mapping[str, str]) -> set[str]:
    """Return the folders of which only their own md5 is known."""
    return {path for path, md5 in files.items() if md5.endswith(".dir")}


def compare_stage(stage: str, first: Mapping[str, Any], second: Mapping[str, Any], project: Path, root: Path) -> list[StageOutput]:
    """Compare what a stage wrote by two locks: the first of `project`, whose cache may have lost it, the second of `root`."""
    before = files_of(first, stage, project)
    return compare(stage, before, files_of(second, stage, root, folders(before)), project, root)


def in_a_word(outputs: Sequence[StageOutput]) -> str:
    """Return how a stage's outputs compare: `12 files equal`, `1 of 3 files differ, 1 cannot be compared`."""
    apart, unknown = (sum(output.equal is state for output in outputs) for state in (False, None))
    said = f"{apart} of {len(outputs)} files differ" if apart else f"{len(outputs) - unknown} files equal"
    return f"{said}, {unknown} cannot be compared" if unknown else said


def compare(stage: str, before: Mapping[str, str], after: Mapping[str, str], project: Path, root: Path) -> list[StageOutput]:
    """Compare the outputs of a stage; a folder that is one entry `before` must be one `after`."""
    return [
        StageOutput(stage, name, before.get(name), after.get(name), same(name, before.get(name), after.get(name), project, root))
        for name in sorted({*before, *after})
    ]


def same(name: str, old: str | None, new: str | None, project: Path, root: Path) -> bool | None:
    """Say whether an output is the same but for times; None where it is not known."""
    if old == new:
        return True
    if old is None or new is None:
        return False
    return timed(name, old, project, root)


def timed(name: str, old: str, project: Path, root: Path) -> bool | None:
    """Say whether an output differs by nothing but times; None where it holds some, and the first making's is gone.

    A file that is made of times is not compared further.
    """
    if name in TIMED_FILES:
        return True
    if not holds_times(root / name, name):
        return False
    if old.endswith(".dir"):
        return None
    try:
        first = json.loads(cached_object(project, old).read_text(encoding="utf-8"))
    except NotFound:
        return None
    return isinstance(first, dict) and untimed(first) == untimed(json.loads((root / name).read_text(encoding="utf-8")))


def holds_times(path: Path, name: str) -> bool:
    """Say whether a file, or any file of a folder, tells how long something took."""
    if path.is_dir():
        return any(holds_times(each, f"{name}/{each.relative_to(path).as_posix()}") for each in path.rglob("*") if each.is_file())
    if name in TIMED_FILES or path.suffix != ".json":
        return name in TIMED_FILES
    record = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(record, dict) and not TIMED_FIELDS.isdisjoint(record)


def untimed(record: Mapping[str, object]) -> dict[str, object]:
    """Return a record without the fields that hold times."""
    return {name: value for name, value in record.items() if name not in TIMED_FIELDS}


def metrics_apart(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a sentence for each test metric that is another one, with both values."""
    said = []
    for name in before:
        old, new = before[name], after.get(name)
        if new is None:
            said.append(f"test {name}: was {old['value']:.6f}, is not measured now")
        elif any(old[key] != new[key] for key in ("value", "low", "high")):
            said.append(f"test {name}: was {old['value']:.6f} ({old['low']:.6f} to {old['high']:.6f}), is {new['value']:.6f}")
    return said


def answers_apart(before: Predictions, after: Predictions) -> str | None:
    """Return a sentence on how far the answers to the test rows are apart; None where they are the same."""
    if before.ids.tolist() != after.ids.tolist() or before.labels != after.labels:
        return "the test rows or the labels are others, so the answers cannot be compared row by row"
    others = [
        name for name in before.measured if not np.array_equal(before.measured[name], after.measured.get(name, np.zeros(0)), equal_nan=True)
    ]
    other = int(np.sum(before.predicted != after.predicted))
    largest = float(np.abs(before.probabilities - after.probabilities).max(initial=0.0))
    if other == 0 and largest == 0:
        return f"what the model measures of the test rows is otherwise: {', '.join(others)}" if others else None
    return f"{other} of {len(before.ids)} test rows are answered otherwise; the largest difference of a probability is {largest:.2e}"
