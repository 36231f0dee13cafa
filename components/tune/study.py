"""The study on disk: a journal in var/optuna that survives a kill, and is continued to the same total.

One process at a time holds a study, so what a killed one left behind can be mended without asking: a torn last line is cut
off, Optuna's own lock is removed, and a trial that was running is failed and queued again with its settings.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from components.errors import Unavailable
from components.learning.params import Value
from components.learning.state import state_folder
from components.tune.carried import CARRIED, Kin, carry
from components.tune.params import TuneParams

log = logging.getLogger(__name__)

ERROR = "error"  # why a trial failed; a failed trial without it was interrupted, and does not count
SECONDS = "seconds"
SETTINGS = "settings"
CUT = "cut"


@contextmanager
def open_study(identity: str, tune: TuneParams, first: Mapping[str, Value], kin: Kin | None = None) -> Iterator[optuna.Study]:
    """Open the study called `identity`, mended and ready for its next trial, for this process alone.

    A new one begins with the trials of its `kin` that lie in its space.

    Raises:
        Unavailable: another process holds it.
    """
    folder = state_folder("optuna")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{identity}.log"
    try:
        with FileLock(folder / f"{identity}.held", timeout=10):
            yield _opened(path, tune, first, kin)
    except Timeout:
        raise Unavailable(f"another process is searching in {path}; wait for it or end it, then run again") from None


def repair(path: Path) -> None:
    """Cut off what a kill or a full disk left of the last entry, which would make the whole journal unreadable."""
    if not path.exists():
        return
    whole = bytearray()
    content = path.read_bytes()
    for line in content.splitlines(keepends=True):
        if not _is_entry(line):
            break
        whole += line
    if len(whole) == len(content):
        return
    log.warning("%s ends in a torn entry; %d bytes are cut off", path, len(content) - len(whole))
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(bytes(whole))
    os.replace(partial, path)


def sampler(tune: TuneParams, ordinal: int) -> optuna.samplers.TPESampler:
    """Return the sampler of the trial with this `ordinal`; seeded by it, so that a continued study proposes the same."""
    return optuna.samplers.TPESampler(n_startup_trials=tune.explore, seed=(tune.seed * 1_000_003 + ordinal) % 2**32)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that use up the budget: complete, pruned, or failed for a reason of their own; none of an earlier search."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    own = [trial for trial in study.trials if CARRIED not in trial.user_attrs]
    return [trial for trial in own if trial.state in done or (trial.state is TrialState.FAIL and ERROR in trial.user_attrs)]


def spent(study: optuna.Study) -> float:
    """Return the seconds of all trials, interrupted ones included; those of an earlier search were spent there."""
    return sum(float(trial.user_attrs.get(SECONDS, 0.0)) for trial in study.trials if CARRIED not in trial.user_attrs)


def _opened(path: Path, tune: TuneParams, first: Mapping[str, Value], kin: Kin | None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for stale in path.parent.glob(path.name + ".lock*"):
        stale.unlink(missing_ok=True)
    repair(path)
    study = optuna.create_study(
        study_name=path.stem,
        storage=JournalStorage(JournalFileBackend(str(path))),
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=tune.prune_after),
        load_if_exists=True,
    )
    if kin is not None and all(CARRIED in trial.user_attrs for trial in study.trials):
        carry(study, path, kin)
    _requeue(study, first)
    study.sampler = sampler(tune, len(counted(study)))
    return study


def _requeue(study: optuna.Study, first: Mapping[str, Value]) -> None:
    """Fail the trials that a killed process left running, and queue the settings that the next trial must have."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        log.warning("trial %d was interrupted; its settings are tried again", trial.number)
        study.tell(trial.number, state=TrialState.FAIL)
    trials = study.trials
    if any(trial.state is TrialState.WAITING for trial in trials):
        return
    interrupted = bool(trials) and trials[-1].state is TrialState.FAIL and ERROR not in trials[-1].user_attrs
    if interrupted and trials[-1].params:
        study.enqueue_trial(trials[-1].params)
    elif not counted(study) and first and not any(first.items() <= trial.params.items() for trial in trials):
        study.enqueue_trial(dict(first))


def _is_entry(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
