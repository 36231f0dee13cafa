"""Short trainings: uninterrupted, and interrupted and resumed."""

import pytest
import torch

from components.training.trainer import TrainParams
from components.training.trainer.fit import CheckpointPaths, fit

QUICK = TrainParams(epochs=2, learning_rate=1e-2, batch_size=16, threads=1, precision="float32", patience=0, evaluations_per_epoch=2)


def keep_in(folder):
    folder.mkdir()
    return CheckpointPaths(folder / "checkpoints", folder / "history.jsonl")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def interrupt_after(evaluations):
    def watch(number, value):
        if number > evaluations:
            raise KeyboardInterrupt

    return watch


def cut_and_resumed(task, base, learn, settings, folder):
    """Train once without and once with an interruption; return both, and assert that the second one resumed."""
    expected = fit(task, base, learn, settings, keep=keep_in(folder / "whole"))
    broken = keep_in(folder / "broken")
    with pytest.raises(KeyboardInterrupt):
        fit(task, base, learn, settings, keep=broken, watch=interrupt_after(2))
    resumed = fit(task, base, learn, settings, keep=broken)
    assert resumed.resumed > 0
    return expected, resumed
