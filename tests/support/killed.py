"""A training that is killed and resumed, in forks of a process that has imported torch."""

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


def train_with_a_kill(workspace: Workspace) -> Training:
    """Kill the training of a workspace after its first checkpoint, train again, and return the record of the second training."""
    killed = _start(workspace)
    try:
        wait_for(lambda: any(workspace.root.glob("var/checkpoints/*/checkpoint-*/whole.json")) or not killed.is_alive(), every=0.002)
    finally:
        killed.kill()
        killed.join()
    assert killed.exitcode == -signal.SIGKILL, "the training ended before it was killed"
    assert not (workspace.root / "models/trained/training.json").exists()

    again = _start(workspace)
    again.join()
    assert again.exitcode == 0
    return Training.read(workspace.model.parent)


def _start(workspace: Workspace) -> BaseProcess:
    process = FORKS.Process(target=_learn, args=(workspace,))
    process.start()
    return process


def _learn(workspace: Workspace) -> None:
    learn(workspace, read_params(workspace.params))
