"""Optimizers, layer-wise rates and schedules against torch's own and the documented formulas."""

import json
import math

import pytest
import torch

from components.model import tasks
from components.model.support.layers import depths
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from components.training.trainer.optimizers import WarmPlateau, build_optimizer, parameter_groups
from tests.support.fits import QUICK, keep_in, weights
from tests.support.learn import make_learn, spec_of

task = tasks.load("text_classification")


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return PreparedSplits.read(make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets))


@pytest.fixture
def model(tiny_base):
    torch.manual_seed(0)
    return task.build_model(tiny_base, spec_of("a", "b", "c"))


class ReferenceAdafactor:
    """Adafactor with a given learning rate: Shazeer & Stern, "Adafactor" (2018), algorithms 4 and 5, with decay 1 - t^-0.8 and d = 1."""

    def __init__(self, groups):
        self.groups = groups
        self.means = {}
        self.number = 0

    def step(self):
        self.number += 1
        for group in self.groups:
            for parameter in group["params"]:
                self.change(parameter.data, parameter.grad, group["lr"], group["weight_decay"])

    def change(self, weights, gradient, rate, decay):
        square, kept = gradient**2 + 1e-30, 1 - self.number**-0.8
        parts = [square.mean(-1), square.mean(-2)] if square.ndim == 2 else [square]
        old = self.means.get(weights.data_ptr(), [torch.zeros_like(part) for part in parts])
        means = [kept * mean + (1 - kept) * part for mean, part in zip(old, parts, strict=True)]
        self.means[weights.data_ptr()] = means
        second = torch.outer(means[0] / means[0].mean(), means[1]) if len(means) == 2 else means[0]
        update = gradient / second.sqrt()
        weights.sub_(rate * update / (update**2).mean().sqrt().clamp(min=1) + rate * decay * weights)


@pytest.mark.parametrize(
    ("changes", "reference"),
    [
        ({"layer_decay": 0.9}, lambda groups: torch.optim.AdamW(groups, lr=1e-2)),
        ({"optimizer": "adam"}, lambda groups: torch.optim.Adam(groups, lr=1e-2)),
        ({"optimizer": "sgd", "momentum": 0.0}, lambda groups: torch.optim.SGD(groups, lr=1e-2)),
        ({"optimizer": "sgd", "momentum": 0.0, "nesterov": True}, lambda groups: torch.optim.SGD(groups, lr=1e-2)),
        ({"optimizer": "sgd"}, lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9)),
        ({"optimizer": "sgd", "nesterov": True}, lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=True)),
        ({"optimizer": "adafactor"}, lambda groups: ReferenceAdafactor(groups)),
    ],
)
def test_optimizer_step_equals_the_reference(tiny_base, changes, reference):
    settings = QUICK.model_copy(update=changes | {"weight_decay": 0.1})
    model, reference_model = (task.build_model(tiny_base, spec_of("a", "b")) for _ in range(2))
    reference_model.load_state_dict(model.state_dict())
    decayed = [name for name, weights in model.named_parameters() if weights.ndim == 2]
    optimizers = [build_optimizer(model, decayed, settings), reference(parameter_groups(reference_model, decayed, settings))]
    for step in range(3):
        for trained, optimizer in zip((model, reference_model), optimizers, strict=True):
            torch.manual_seed(step)
            for parameter in trained.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()

    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(model.parameters(), reference_model.parameters(), strict=True))


STEP = {"epochs": 1 / 12, "evaluations_per_epoch": 1, "schedule": "constant", "warmup": 0, "weight_decay": 0.0, "max_grad_norm": 1e6}


def after_a_step(tiny_base, learn, **changes):
    return weights(fit(task, tiny_base, learn, QUICK.model_copy(update=STEP | changes), evaluations=1).model)


@pytest.mark.slow
def test_gradient_is_clipped_to_the_norm(tiny_base, learn):
    plain = {"optimizer": "sgd", "momentum": 0.0}
    start = after_a_step(tiny_base, learn, **plain, learning_rate=1e-12)
    whole, cut = (after_a_step(tiny_base, learn, **plain, max_grad_norm=norm) for norm in (1e6, 0.01))
    names = [name for name in start if start[name].is_floating_point()]
    steps = [torch.cat([(state[name] - start[name]).ravel() for name in names]) for state in (whole, cut)]

    assert steps[0].norm() > 10 * 1e-2 * 0.01
    assert float(steps[1].norm()) == pytest.approx(1e-2 * 0.01, rel=1e-3)  # the rate times the norm
    assert torch.allclose(steps[1], steps[0] * (steps[1].norm() / steps[0].norm()), atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "adafactor"])
def test_weight_decay_skips_biases_and_norms(tiny_base, learn, optimizer):
    start = task.build_model(tiny_base, learn.spec).state_dict()
    bare, decayed = (after_a_step(tiny_base, learn, optimizer=optimizer, weight_decay=share) for share in (0.0, 0.5))
    names = [name for name in bare if name.startswith("bert.") and bare[name].is_floating_point()]  # the head is drawn at random

    assert {start[name].ndim for name in names} == {1, 2}
    for name in names:
        share = 1e-2 * 0.5 if start[name].ndim == 2 else 0.0
        assert torch.allclose(bare[name] - decayed[name], share * start[name], atol=1e-6), name


def test_layer_decay_lowers_the_rate_per_layer(model):
    settings = QUICK.model_copy(update={"layer_decay": 0.5, "weight_decay": 0.1})
    decayed = {name for name, weights in model.named_parameters() if weights.ndim == 2}
    groups = parameter_groups(model, decayed, settings)
    rates = {id(weights): (group["lr"], group["weight_decay"]) for group in groups for weights in group["params"]}

    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert groups[0]["lr"] == settings.learning_rate
    for name, parameter in model.named_parameters():
        rate = 1e-2 * 0.5 ** (3 - depths(model)[name])
        assert rates[id(parameter)] == (rate, 0.1 if name in decayed else 0.0), name


def rates_of(tiny_base, learn, tmp_path, **changes):
    keep = keep_in(tmp_path / "out")
    fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 3, "evaluations_per_epoch": 1} | changes), keep=keep)
    points = [json.loads(line) for line in keep.history.read_text().splitlines()]
    scores = [point["eval_macro_f1"] for point in points if "eval_macro_f1" in point]
    return {point["step"] - 1: point["learning_rate"] for point in points if "learning_rate" in point}, scores


def falling(step, warmup, shape):
    return 1e-2 * (step / warmup if step < warmup else shape((36 - step) / (36 - warmup)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "warmup", "shape"),
    [
        ({"schedule": "linear", "warmup": 6}, 6, lambda left: left),
        ({"schedule": "cosine", "warmup": 0.25}, 9, lambda left: 0.5 * (1 - math.cos(math.pi * left))),
        ({"schedule": "constant", "warmup": 1}, 1, lambda left: 1.0),
        ({"schedule": "polynomial", "schedule_power": 3.0, "warmup": 0}, 0, lambda left: left**3),
    ],
    ids=["linear", "cosine", "constant", "polynomial"],
)
def test_learning_rate_equals_the_formula(tiny_base, learn, tmp_path, changes, warmup, shape):
    rates, _ = rates_of(tiny_base, learn, tmp_path, **changes, weight_decay=0.0)

    assert len(rates) == 36
    assert rates == pytest.approx({step: falling(step, warmup, shape) for step in range(36)})


@pytest.mark.slow
def test_plateau_lowers_the_rate_like_torch(tiny_base, learn, tmp_path):
    rates, scores = rates_of(tiny_base, learn, tmp_path, schedule="plateau", plateau_patience=2, warmup=4, evaluations_per_epoch=12)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-2)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=2, threshold=0, eps=0)
    expected = {}
    for step, score in enumerate(scores):
        expected[step] = optimizer.param_groups[0]["lr"] * min(1.0, step / 4)
        reference.step(score)

    assert len(scores) == 36
    assert rates == pytest.approx(expected)
    assert min(rates[step] for step in range(4, 36)) < 1e-2


def test_plateau_state_is_complete():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    plateau = WarmPlateau(optimizer, 0, 0.1, 0)
    for value in (0.5, 0.4):
        plateau.record(value)
    restored = WarmPlateau(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), 0, 0.1, 0)
    restored.load_state_dict(plateau.state_dict())

    assert (restored.scale, restored.best, restored.worse) == (0.1, 0.5, 0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
