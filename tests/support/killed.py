"""A training ended by SIGKILL and started again, in processes forked from one that has torch already: neither imports it again."""

import multiprocessing
import signal
from multiprocessing.process import BaseProcess

from components.artifacts.training import Training
from flows.project.params import read_params
from flows.project.workspace import Workspace
from tests.support.pipeline import learn
from tests.support.project import wait_for

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["components.training.train", "tests.support.pipeline"])


def train_with_a_kill(place: Workspace) -> Training:
    """Train a line's model, kill the process when a checkpoint is whole, train again, and return what that one says of itself."""
    killed = start(place)
    try:
        wait_for(lambda: any(place.root.glob("var/checkpoints/*/checkpoint-*/whole.json")) or not killed.is_alive(), every=0.002)
    finally:
        killed.kill()
        killed.join()
    assert killed.exitcode == -signal.SIGKILL, "it ended before it could be killed"
    assert not (place.root / "models/trained/training.json").exists()

    again = start(place)
    again.join()
    assert again.exitcode == 0
    return Training.read(place.model.parent)


def start(place: Workspace) -> BaseProcess:
    process = FORKS.Process(target=_learn, args=(place,))
    process.start()
    return process


def _learn(place: Workspace) -> None:
    learn(place, read_params(place.params))
