"""Checkpoints that can be trusted: each has a manifest with the hash of every file, written last.

Trainer's own are not atomic, the newest is taken unchecked, and a missing optimizer or generator state is silently
accepted and gives other weights.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import ClassVar

from transformers import TrainerState

from components.artifacts.base import Artifact
from components.core.errors import NotFound
from components.core.hashing import digest_file

log = logging.getLogger(__name__)

HISTORY = "history.jsonl"


class CheckpointManifest(Artifact):
    """The manifest of a checkpoint; `seconds` were trained until it, `stopped_by` is empty while training goes on."""

    FILE: ClassVar[str] = "whole.json"

    step: int
    seconds: float
    stopped_by: str
    files: dict[str, str]


def seal(folder: Path, step: int, seconds: float, stopped_by: str) -> None:
    """Write the manifest of the checkpoint in `folder`: from now on it counts."""
    CheckpointManifest(step=step, seconds=seconds, stopped_by=stopped_by, files=_hashes(folder)).write(folder)


def newest(checkpoints: Path) -> tuple[Path, CheckpointManifest] | None:
    """Return the newest whole checkpoint with its manifest, and delete the ones that are newer and not whole.

    A checkpoint is whole when its files have the recorded hashes and the best checkpoint that it points at is whole too.
    """
    found = sorted(checkpoints.glob("checkpoint-*"), key=_step, reverse=True)
    for folder in found:
        whole = _verified(folder)
        if whole is not None and _verified(best(folder)) is not None:
            return folder, whole
        log.warning("checkpoint %s is not whole; it is deleted, and training goes on from an older one", folder)
        shutil.rmtree(folder)
    return None


def best(folder: Path) -> Path:
    """Return the best checkpoint known to the checkpoint in `folder`, which may be itself."""
    state = state_of(folder)
    return folder.parent / Path(state.best_model_checkpoint).name if state.best_model_checkpoint else folder


def state_of(folder: Path) -> TrainerState:
    """Return Trainer's own record in a checkpoint."""
    state: TrainerState = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    return state


def _verified(folder: Path) -> CheckpointManifest | None:
    try:
        whole = CheckpointManifest.read(folder)
    except NotFound:
        return None
    return whole if whole.files == _hashes(folder) else None


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(CheckpointManifest.FILE))
    return {os.fspath(path.relative_to(folder)): digest_file(path) for path in files}


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
