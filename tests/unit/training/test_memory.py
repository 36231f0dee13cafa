"""A training that runs out of memory."""

import pytest
import torch

from components.core.errors import RetuneError
from components.model import tasks
from components.model.tasks.text_classification.single import Kind
from components.training.trainer import TrainParams
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, fit
from components.training.trainer.memory import divided, fit_within_memory, out_of_memory
from tests.support.fits import same, weights
from tests.support.learn import make_learn

pytestmark = pytest.mark.slow

QUICK = TrainParams(epochs=1, learning_rate=1e-2, batch_size=16, threads=1, precision="float32", patience=0)
ADDRESSES = 2**50  # bytes: more than a process can allocate


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets)


class Limited(Kind):
    """A task whose loss runs out of memory if a batch has more than `most` rows."""

    most = 8

    def loss(self, spec, smoothing):
        def loss(logits, labels):
            if len(labels) > self.most:
                torch.empty(ADDRESSES, dtype=torch.uint8)
            return torch.nn.functional.cross_entropy(logits, labels)

        return loss


def limited(most=8):
    task = Limited(tasks.load("text_classification").options)
    task.most = most
    task.evaluation_batch = 1
    return task


def test_batch_is_halved_until_it_fits(learn, tiny_base, caplog):
    data = PreparedSplits.read(learn)
    result, settings = fit_within_memory(limited(), tiny_base, data, QUICK)

    assert (settings.batch_size, settings.accumulation) == (8, 2)
    assert same(weights(result.model), weights(fit(limited(), tiny_base, data, settings).model))
    assert "training again with batch_size 8 and accumulation 2" in caplog.text


def test_smaller_batch_has_the_same_steps(learn, tiny_base):
    data = PreparedSplits.read(learn)
    whole = fit(limited(10**9), tiny_base, data, QUICK)
    result, _ = fit_within_memory(limited(), tiny_base, data, QUICK)

    assert result.steps == whole.steps
    for name, tensor in weights(whole.model).items():
        assert torch.allclose(tensor, weights(result.model)[name], atol=1e-3), name  # Adam enlarges differences of rounding


def test_training_that_fits_is_unchanged(learn, tiny_base):
    data = PreparedSplits.read(learn)
    result, settings = fit_within_memory(tasks.load("text_classification"), tiny_base, data, QUICK)

    assert settings == QUICK
    assert same(weights(result.model), weights(fit(tasks.load("text_classification"), tiny_base, data, QUICK).model))


def test_each_batch_size_has_its_own_checkpoints(learn, tiny_base, tmp_path):
    def keep(settings):
        return CheckpointPaths(tmp_path / str(settings.batch_size), tmp_path / "history.jsonl")

    fit_within_memory(limited(), tiny_base, PreparedSplits.read(learn), QUICK, keep=keep)

    assert list((tmp_path / "8").glob("checkpoint-*/model.safetensors"))


def test_batch_of_one_names_what_to_change(learn, tiny_base):
    with pytest.raises(RetuneError, match=r"out of memory with train\.batch_size 1: .*preprocess\.max_length"):
        fit_within_memory(limited(0), tiny_base, PreparedSplits.read(learn), QUICK.model_copy(update={"batch_size": 2}))


def test_training_that_compares_rows_is_not_divided(learn, tiny_base):
    task = limited()
    task.compares_rows = True
    with pytest.raises(RetuneError, match="compares the rows of a batch"):
        fit_within_memory(task, tiny_base, PreparedSplits.read(learn), QUICK)


@pytest.mark.parametrize(("size", "expected"), [(32, (16, 2)), (33, (11, 3)), (7, (1, 7)), (1, None)])
def test_division_keeps_the_rows_of_a_step(size, expected):
    smaller = divided(TrainParams(batch_size=size))

    assert (smaller and (smaller.batch_size, smaller.accumulation)) == expected


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_other_exhaustion_is_recognised(error):
    assert out_of_memory(error)


def test_other_errors_are_raised(learn, tiny_base):
    class Broken(Kind):
        def loss(self, spec, smoothing):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit_within_memory(Broken(tasks.load("text_classification").options), tiny_base, PreparedSplits.read(learn), QUICK)
