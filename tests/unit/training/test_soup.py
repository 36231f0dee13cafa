"""Averages of the weights of several trainings in the step `train`."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.artifacts.training import Training
from components.artifacts.tuning_result import TunedSettings
from components.core.errors import BadParams
from components.core.hashing import digest_folder
from components.model import tasks
from components.training.train import train
from components.training.trainer import TrainParams, TrainSection
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, fit
from components.training.trainer.identity import digest_inputs, training_identity
from components.training.trainer.soup import average_weights, evaluate, greedy_soup, soup_members
from components.training.trainer.state_dir import state_folder
from tests.support.learn import make_learn

pytestmark = pytest.mark.slow

WRITTEN = {"batch_size": 16, "threads": 1, "precision": "float32", "patience": 0, "epochs": 1}
CHOSEN = TunedSettings(settings={"learning_rate": 1e-2}, soup=({"seed": 8}, {"learning_rate": 5e-3}))


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(learn, base, out, chosen=CHOSEN, **written):
    chosen.write(learn.parent)
    train(learn, base, learn.parent, out, task="text_classification", train=TrainSection.parse(WRITTEN | written, "train"))
    return Training.read(out)


def members(chosen=CHOSEN, **written):
    return soup_members(TrainSection.parse(WRITTEN | written, "train"), chosen)


def test_soup_is_the_mean_of_its_members(learn, tiny_base, workspace):
    task, data = tasks.load("text_classification"), PreparedSplits.read(learn)
    record = run(learn, tiny_base, workspace / "out")
    trained = [
        fit(task, tiny_base, data, settings, keep=CheckpointPaths(workspace / str(number), workspace / f"{number}.jsonl"))
        for number, settings in enumerate(members())
    ]
    states = [result.model.state_dict() for result in trained]
    stored = load_file(workspace / "out" / "model" / "model.safetensors")

    for name, tensor in stored.items():
        mean = torch.stack([state[name].double() for state in states]).sum(dim=0) / 3
        assert torch.allclose(tensor.double(), mean, rtol=0, atol=1e-9 + 1e-7 * float(mean.abs().max()))
    assert [member.settings for member in record.soup] == [{}, {"seed": 8}, {"learning_rate": 5e-3}]
    assert [member.best_value for member in record.soup] == [result.best_value for result in trained]
    assert list((workspace / "var" / "checkpoints").iterdir()) == []


@pytest.mark.exhaustive
def test_soup_gives_the_same_bits_again(learn, tiny_base, workspace, monkeypatch):
    run(learn, tiny_base, workspace / "one")
    monkeypatch.setenv("RETUNE_VAR", str(workspace / "elsewhere"))
    run(learn, tiny_base, workspace / "two")

    assert digest_folder(workspace / "one" / "model") == digest_folder(workspace / "two" / "model")


@pytest.mark.exhaustive
def test_soup_of_adopted_members_has_the_same_bits(learn, tiny_base, workspace):
    trained = run(learn, tiny_base, workspace / "trained")
    task, data = tasks.load("text_classification"), PreparedSplits.read(learn)
    inputs = digest_inputs(learn, tiny_base)
    for settings in members():
        folder = state_folder("checkpoints") / training_identity(inputs, data.spec, settings)
        fit(task, tiny_base, data, settings, keep=CheckpointPaths(folder, folder / "history.jsonl", resumable=False))
    adopted = run(learn, tiny_base, workspace / "adopted")

    assert (trained.resumed, adopted.resumed) == (0, trained.steps)
    assert digest_folder(workspace / "trained" / "model") == digest_folder(workspace / "adopted" / "model")


def test_score_of_the_soup_is_that_of_its_model(learn, tiny_base, workspace):
    task, data = tasks.load("text_classification"), PreparedSplits.read(learn)
    record = run(learn, tiny_base, workspace / "out")
    model = task.build_model(workspace / "out" / "model", data.spec)

    assert evaluate(task, model, tiny_base, data, members()[0])[0] == record.best_value


def test_evaluation_repeats_that_of_the_training(learn, tiny_base):
    task, data, settings = tasks.load("text_classification"), PreparedSplits.read(learn), members()[0]
    result = fit(task, tiny_base, data, settings)
    value, outputs = evaluate(task, result.model, tiny_base, data, settings)

    assert value == result.best_value
    assert np.array_equal(outputs.outputs, result.outputs.outputs)
    assert np.array_equal(outputs.labels, result.outputs.labels)


def test_greedy_soup_adds_only_what_helps(learn, tiny_base):
    task, data, settings = tasks.load("text_classification"), PreparedSplits.read(learn), members()[0]
    good = fit(task, tiny_base, data, settings)
    spoiled = copy.deepcopy(good.model)
    with torch.no_grad():
        spoiled.classifier.weight.mul_(-100)
    models, values = [spoiled, good.model, copy.deepcopy(good.model)], [0.0, good.best_value, good.best_value]

    assert greedy_soup(task, models, values, tiny_base, data, settings) == ((1,), good.best_value, None)


def test_greedy_soup_returns_the_value_of_the_mean(learn, tiny_base):
    task, data, settings = tasks.load("text_classification"), PreparedSplits.read(learn), members()[0]
    model = fit(task, tiny_base, data, settings.model_copy(update={"epochs": 8, "learning_rate": 1e-3})).model
    halves = [copy.deepcopy(model), copy.deepcopy(model)]  # two models whose mean is the trained one
    for half, sign in zip(halves, (1, -1), strict=True):
        with torch.no_grad():
            half.classifier.bias += sign * torch.tensor([100.0, 0.0, 0.0])
    values = [evaluate(task, half, tiny_base, data, settings)[0] for half in halves]
    chosen, value, outputs = greedy_soup(task, halves, values, tiny_base, data, settings)

    assert len(chosen) == 2
    assert value > max(values)
    assert task.validate(outputs.outputs, outputs.labels, data.spec)["macro_f1"] == value


def test_mean_of_equal_models_is_that_model(tiny_base, learn):
    model = tasks.load("text_classification").build_model(tiny_base, PreparedSplits.read(learn).spec)
    mean = average_weights([model, copy.deepcopy(model), copy.deepcopy(model)])

    assert all(torch.equal(tensor, mean[name]) for name, tensor in model.state_dict().items())


def test_mean_keeps_the_types_of_the_weights():
    class Buffered(torch.nn.Linear):
        def __init__(self):
            super().__init__(2, 1, dtype=torch.bfloat16)
            self.register_buffer("positions", torch.arange(3))

    mean = average_weights([Buffered(), Buffered()])

    assert {name: tensor.dtype for name, tensor in mean.items()} == {
        "weight": torch.bfloat16,
        "bias": torch.bfloat16,
        "positions": torch.int64,
    }


def test_members_that_do_not_differ_are_refused():
    with pytest.raises(BadParams, match=r"members of a weight average differ in train\.learning_rate, train\.seed"):
        members(seed=7, learning_rate=1e-2)


def test_members_of_different_bases_are_refused():
    with pytest.raises(BadParams, match="different base models"):
        members(TunedSettings(settings={}, soup=({"base": "other"},)))


def test_soup_cannot_be_stored_as_an_adapter():
    with pytest.raises(BadParams, match=r"train\.lora_store is adapter"):
        members(method="lora", lora_store="adapter")


def test_choice_without_soup_has_one_member():
    assert soup_members(TrainSection.parse({}, "train"), TunedSettings(settings={"epochs": 2})) == (TrainParams(epochs=2),)
