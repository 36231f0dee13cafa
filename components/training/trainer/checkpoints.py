"""Checkpoints with a manifest that contains the hash of every file and is written last.

Trainer's own checkpoints are not atomic, the newest is used unchecked, and a missing optimizer or generator state is silently
accepted and changes the weights.
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
STATE = "trainer_state.json"  # Trainer's name


class CheckpointManifest(Artifact):
    """The manifest of a checkpoint; `seconds` is the training time so far, `stopped_by` is empty until training ends.

    `step` is the last step of the training, which is later than that of the checkpoint if only the best weights were kept.
    """

    FILE: ClassVar[str] = "whole.json"

    step: int
    seconds: float
    stopped_by: str
    files: dict[str, str]
    examples_per_second: float = 0.0


def seal(folder: Path, history: Path, step: int, seconds: float, stopped_by: str, speed: float = 0.0) -> None:
    """Add the history so far to the checkpoint in `folder`, and write its manifest, which makes it valid."""
    if history.exists():
        shutil.copyfile(history, folder / HISTORY)
    files = _hashes(folder)
    CheckpointManifest(step=step, seconds=seconds, stopped_by=stopped_by, files=files, examples_per_second=speed).write(folder)


def seal_best(state: TrainerState, history: Path, seconds: float, stopped_by: str, speed: float) -> None:
    """Make the best checkpoint of a training that has ended in `state` valid, so that its weights can be loaded."""
    if state.best_model_checkpoint:  # missing if the metric was never a number
        folder = Path(state.best_model_checkpoint)
        state.save_to_json(str(folder / STATE))
        seal(folder, history, state.global_step, seconds, stopped_by, speed)


def newest(checkpoints: Path) -> tuple[Path, CheckpointManifest] | None:
    """Return the newest valid checkpoint with its manifest, and delete newer ones that are not valid.

    A checkpoint is valid if its files have the recorded hashes and the best checkpoint that it refers to is valid too.
    """
    for folder in sorted(checkpoints.glob("checkpoint-*"), key=_step, reverse=True):
        manifest = _verified(folder)
        if manifest is not None and _verified(best(folder)) is not None:
            return folder, manifest
        log.warning("checkpoint %s is incomplete; it is deleted, and training resumes from an older one", folder)
        shutil.rmtree(folder)
    return None


def best(folder: Path) -> Path:
    """Return the best checkpoint recorded in the checkpoint in `folder`, which may be itself."""
    state = state_of(folder)
    return folder.parent / Path(state.best_model_checkpoint).name if state.best_model_checkpoint else folder


def state_of(folder: Path) -> TrainerState:
    """Return Trainer's state in a checkpoint."""
    state: TrainerState = TrainerState.load_from_json(str(folder / STATE))
    return state


def _verified(folder: Path) -> CheckpointManifest | None:
    try:
        manifest = CheckpointManifest.read(folder)
    except NotFound:
        return None
    return manifest if manifest.files == _hashes(folder) else None


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(CheckpointManifest.FILE))
    return {os.fspath(path.relative_to(folder)): digest_file(path) for path in files}


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
