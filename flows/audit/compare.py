"""What a second making of a version must have in common with the first, stage by stage and file by file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts.predictions import Predictions
from components.errors import NotThere
from flows.dvc import cached_listing, cached_object

# What says how long something took, and so differs between two makings of one model.
TIMED_FILES = ("models/tuned/trials.parquet", "models/trained/history.jsonl")
TIMED_FIELDS = {"seconds", "examples_per_second", "peak_memory_mib", "resumed"}


@dataclass(frozen=True)
class Output:
    """One file of a stage's outputs: its md5 in both makings, None where it is not; `equal` leaves times out of account."""

    stage: str
    path: str
    before: str | None
    after: str | None
    equal: bool


def files_of(lock: Mapping[str, Any], stage: str, cache_of: Path) -> dict[str, str]:
    """Return the md5 of every file that a stage wrote, by path; a folder is one entry where its listing is gone from the cache."""
    files: dict[str, str] = {}
    for out in lock["stages"].get(stage, {}).get("outs", []):
        path, md5 = str(out["path"]), str(out["md5"])
        if not md5.endswith(".dir"):
            files[path] = md5
            continue
        try:
            files |= {f"{path}/{name}": each for name, each in cached_listing(cache_of, md5).items()}
        except NotThere:
            files[path] = md5
    return files


def compare(stage: str, before: Mapping[str, str], after: Mapping[str, str], project: Path, root: Path) -> list[Output]:
    """Compare the files of a stage; where the first making's listing of a folder is gone, the folders' own hashes are compared."""
    names = sorted({*before, *after})
    whole = {name for name in before if before[name].endswith(".dir")}
    outputs = []
    for name in names:
        if any(name.startswith(f"{folder}/") for folder in whole):
            continue
        old, new = before.get(name), after.get(name)
        outputs.append(
            Output(stage, name, old, new, old == new or (old is not None and new is not None and timed(name, old, project, root)))
        )
    return outputs


def timed(name: str, old: str, project: Path, root: Path) -> bool:
    """Say whether a file differs by nothing but times: one that is made of them is not compared further."""
    if name in TIMED_FILES:
        return True
    if not name.endswith(".json"):
        return False
    try:
        first = json.loads(cached_object(project, old).read_text(encoding="utf-8"))
    except NotThere:
        return False
    second = json.loads((root / name).read_text(encoding="utf-8"))
    return untimed(first) == untimed(second) and TIMED_FIELDS & set(first) != set()


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
    other = int(np.sum(before.predicted != after.predicted))
    largest = float(np.abs(before.probabilities - after.probabilities).max(initial=0.0))
    if other == 0 and largest == 0:
        return None
    return f"{other} of {len(before.ids)} test rows are answered otherwise; the largest difference of a probability is {largest:.2e}"
