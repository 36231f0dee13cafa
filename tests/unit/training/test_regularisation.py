"""Penalties, dropout, unfreezing and weight averages against torch and the formulas, and exact resumes."""

import json

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from components.core.errors import BadModel, BadParams
from components.model import tasks
from components.model.support.layers import depths
from components.training.trainer import losses
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, fit, set_dropout
from components.training.trainer.weight_averaging import WeightAverage, moving_average, stochastic_average
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.learn import make_learn, spec_of
from tests.support.tiers import rest_exhaustive

task = tasks.load("text_classification")


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return PreparedSplits.read(make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets))


@pytest.fixture
def model(tiny_base):
    torch.manual_seed(0)
    return task.build_model(tiny_base, spec_of("a", "b", "c"))


RESUMED = {
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd", "nesterov": True},
    "adafactor": {"optimizer": "adafactor"},
    "plateau": {"schedule": "plateau", "plateau_patience": 0, "warmup": 3},
    "penalties": {"l1": 1e-4, "l2_sp": 0.1, "accumulation": 2},
    "noise": {"r_drop": 1.0, "dropout": 0.2, "neftune": 5.0},
    "average": {"ema": 0.9},
    "stochastic average": {"swa": 0.6, "schedule": "constant"},
    "gradual unfreezing": {"method": "freeze", "frozen_layers": -1, "unfreeze_every": 0.5, "l2_sp": 0.1},
    "gradual unfreezing, averaged": {"method": "freeze", "frozen_layers": 2, "unfreeze_every": 0.4, "ema": 0.9, "optimizer": "sgd"},
    "average of adapters": {"ema": 0.9, "method": "lora", "lora_dropout": 0.1},
    "average above frozen layers": {"ema": 0.9, "method": "freeze", "layer_decay": 0.8},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", rest_exhaustive(RESUMED, "gradual unfreezing, averaged"))
def test_resumed_run_equals_an_uninterrupted_run(tiny_base, learn, tmp_path, variant):
    settings = QUICK.model_copy(update=RESUMED[variant])
    expected, resumed = cut_and_resumed(task, tiny_base, learn, settings, tmp_path)
    again = fit(
        task, tiny_base, learn, settings, keep=CheckpointPaths(tmp_path / "broken" / "checkpoints", tmp_path / "broken" / "history.jsonl")
    )

    histories = [(tmp_path / name / "history.jsonl").read_text().splitlines() for name in ("whole", "broken")]
    points = [[{**json.loads(line), "seconds": 0} for line in history] for history in histories]
    assert points[0] == points[1]
    assert same(weights(resumed.model), weights(expected.model))
    assert same(weights(again.model), weights(expected.model))  # finished: only the best weights are loaded
    assert (resumed.best_step, resumed.best_value) == (again.best_step, again.best_value)
    assert not same(weights(expected.model), weights(fit(task, tiny_base, learn, QUICK, keep=keep_in(tmp_path / "plain")).model))


def test_penalties_equal_the_formulas(model):
    names = losses.pretrained_names(model)
    origin = {name: weights.detach().clone() for name, weights in losses.trainable(model, names).items()}
    with torch.no_grad():
        model.classifier.weight.add_(1)  # the head has no penalty
        model.bert.embeddings.word_embeddings.weight.add_(0.1)
    cells = model.bert.embeddings.word_embeddings.weight.numel()

    assert {name for name, at in depths(model).items() if at < 3} == names
    assert losses.half_squared_distance(losses.trainable(model, names), origin).item() == pytest.approx(0.5 * 0.01 * cells, rel=1e-5)
    assert losses.l1_norm({"w": torch.tensor([[1.0, -2.0], [0.5, 0.0]])}).item() == 3.5


def test_divergence_is_the_mean_of_both_directions():
    first, second = np.random.default_rng(0).normal(size=(2, 5, 3))
    p, q = softmax(first, axis=1), softmax(second, axis=1)
    expected = 0.5 * (rel_entr(p, q).sum(axis=1) + rel_entr(q, p).sum(axis=1)).mean()

    assert losses.divergence(torch.tensor(first), torch.tensor(second)).item() == pytest.approx(expected, rel=1e-5)
    assert losses.divergence(torch.tensor(first), torch.tensor(first)).item() == 0


def test_divergence_skips_positions_without_a_label():
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    labels = torch.tensor([[-100, 1, 2], [0, -100, -100]])
    kept = torch.tensor([[0, 1], [0, 2], [1, 0]]).T
    expected = losses.divergence(first[kept[0], kept[1]], second[kept[0], kept[1]])

    assert torch.equal(losses.divergence(first, second, labels), expected)
    assert not torch.equal(losses.divergence(first, second), expected)
    assert torch.equal(losses.divergence(first[:, 0], second[:, 0], torch.tensor([0, 1])), losses.divergence(first[:, 0], second[:, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"label_smoothing": 0.1, "l2_sp": 0.5, "l1": 1e-3}, {"r_drop": 2.0}])
def test_step_in_two_passes_equals_one_pass(tiny_base, learn, changes):
    # With SGD the step is the gradient. The tiny model has no dropout, so both runs see the same numbers.
    settings = QUICK.model_copy(update={"optimizer": "sgd", "epochs": 1, "learning_rate": 0.1, "max_grad_norm": 1e6} | changes)
    once = fit(task, tiny_base, learn, settings).model
    twice = fit(task, tiny_base, learn, settings.model_copy(update={"batch_size": 8, "accumulation": 2})).model

    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(once.parameters(), twice.parameters(), strict=True))


ALONE = [
    {"dropout": 0.3},
    {"neftune": 5.0},
    {"l1": 1e-3},
    {"l2_sp": 1.0},
    {"ema": 0.9},
    {"layer_decay": 0.5},
    {"optimizer": "adafactor"},
    {"label_smoothing": 0.1},
]
WITH = [
    ({"dropout": 0.3}, {"r_drop": 1.0}),
    ({"method": "lora"}, {"lora_rank": 2}),
    ({"method": "lora"}, {"lora_alpha": 64.0}),
    ({"method": "lora"}, {"lora_dropout": 0.5}),
    ({"method": "lora"}, {"lora_dora": True}),
    ({"method": "lora"}, {"precision": "bfloat16"}),
    ({"method": "freeze", "frozen_layers": 2}, {"unfreeze_every": 0.2}),
    ({"schedule": "constant"}, {"swa": 0.5}),
    ({"optimizer": "sgd"}, {"momentum": 0.5}),
    ({"optimizer": "sgd"}, {"nesterov": True}),
]


@pytest.mark.exhaustive
def test_every_setting_has_an_effect(tiny_base, learn):
    def trained(**changes):
        return weights(fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 0.5} | changes), evaluations=1).model)

    plain = {json.dumps(others): trained(**others) for others, _ in [({}, {}), *WITH]}
    for others, changes in [*(({}, changes) for changes in ALONE), *WITH]:
        assert not same(plain[json.dumps(others)], trained(**others, **changes)), changes


def test_l2_sp_with_a_frozen_base_is_refused(tiny_base, learn):
    with pytest.raises(BadParams, match=r"train\.l2_sp has no effect"):
        fit(task, tiny_base, learn, QUICK.model_copy(update={"method": "freeze", "frozen_layers": 2, "l2_sp": 1.0}))


@pytest.mark.exhaustive
@pytest.mark.slow
def test_layers_are_unfrozen_from_the_top(tiny_base, learn):
    settings = QUICK.model_copy(update={"epochs": 1, "method": "freeze", "frozen_layers": -1})
    torch.manual_seed(settings.seed)
    before = weights(task.build_model(tiny_base, learn.spec))
    depth = depths(task.build_model(tiny_base, learn.spec))
    for every, moved in ((0.9, {2, 3}), (0.4, {1, 2, 3}), (0.3, {0, 1, 2, 3})):
        model = fit(task, tiny_base, learn, settings.model_copy(update={"unfreeze_every": every})).model
        after = weights(model)

        assert {depth[name] for name in depth if not torch.equal(before[name], after[name])} == moved
        assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.slow
def test_strong_l2_sp_keeps_the_base_but_not_the_head(tiny_base, learn):
    base = task.build_model(tiny_base, learn.spec)

    def distance(**changes):
        model = fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 1} | changes)).model
        return losses.half_squared_distance(dict(model.bert.encoder.named_parameters()), dict(base.bert.encoder.named_parameters())).item()

    assert distance(l2_sp=100.0) < 0.2 * distance()


def test_moving_average_equals_the_formula():
    linear = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(linear.weight)
    average, state = WeightAverage(linear, moving_average(0.5)), type("State", (), {"global_step": 0, "max_steps": 4})()
    expected = 0.0
    for step, value in enumerate([1.0, 3.0, -2.0, 4.0], start=1):
        torch.nn.init.constant_(linear.weight, value)
        state.global_step = step
        average.on_step_end(None, state, None)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value

    with average.applied():
        assert linear.weight.item() == pytest.approx(expected)
    assert linear.weight.item() == 4.0


def test_stochastic_average_is_the_mean_of_the_last_steps():
    linear = torch.nn.Linear(1, 1, bias=False)
    average, state = WeightAverage(linear, stochastic_average(0.5)), type("State", (), {"global_step": 0, "max_steps": 8})()
    seen = []
    for step, value in enumerate([1.0, 3.0, -2.0, 4.0, 5.0, 1.0, 0.0, 2.0], start=1):
        torch.nn.init.constant_(linear.weight, value)
        state.global_step = step
        average.on_step_end(None, state, None)
        with average.applied():
            seen.append(linear.weight.item())

    assert seen == pytest.approx([1.0, 3.0, -2.0, 4.0, 5.0, 3.0, 2.0, 2.0])  # in the first half, the weights themselves


@pytest.mark.exhaustive
@pytest.mark.slow
def test_evaluated_weights_are_returned(tiny_base, learn, tmp_path):
    keep = keep_in(tmp_path / "out")
    settings = QUICK.model_copy(update={"epochs": 1, "ema": 0.99})
    seen = []
    last = fit(task, tiny_base, learn, settings, evaluations=1, watch=lambda number, value: seen.append(value)).model
    best = fit(task, tiny_base, learn, settings, keep=keep)
    plain = fit(task, tiny_base, learn, settings.model_copy(update={"ema": 0.0}), evaluations=1).model
    saved = task.build_model(keep.checkpoints / f"checkpoint-{best.best_step}", learn.spec)

    assert len(seen) == 1
    assert same(weights(best.model), weights(saved))
    assert not same(weights(last), weights(plain))
    batch = task.collator(task.load_tokenizer(tiny_base), spec_of("a", "b", "c"))([learn.validation[i] for i in range(60)])
    with torch.no_grad():
        answers = last.eval()(**batch).logits.numpy()
    assert task.validate(answers, batch["labels"].numpy(), learn.spec)["macro_f1"] == pytest.approx(seen[0])


def pairs(share):
    """Yield models of four families: one with a dropout of `share`, then one without."""
    import transformers as t

    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    for family, fields in (
        ("Bert", small),
        ("Roberta", small),
        ("Electra", small),
        ("DistilBert", {"vocab_size": 50, "dim": 16, "n_heads": 2}),
    ):
        config, build = getattr(t, f"{family}Config"), getattr(t, f"{family}ForSequenceClassification")
        own = [name for name in vars(config(**fields)) if "drop" in name and name not in ("classifier_dropout", "summary_last_dropout")]
        for value in (share, 0.0):
            torch.manual_seed(0)
            yield build(config(**fields, **dict.fromkeys(own, value)))


def test_dropout_equals_that_of_the_config():
    built = list(pairs(0.3))
    for expected, bare in zip(built[::2], built[1::2], strict=True):
        set_dropout(bare, 0.3)
        answers = []
        for model in (expected.train(), bare.train()):
            torch.manual_seed(1)
            answers.append(model(input_ids=torch.arange(5, 25).reshape(4, 5)).logits)
        assert torch.equal(*answers), type(bare).__name__
        assert sum(value == 0.3 for name, value in vars(bare.config).items() if "drop" in name) >= 2


def test_model_without_dropout_is_refused():
    with pytest.raises(BadModel, match=r"has no dropout to set; set train\.dropout to null"):
        set_dropout(torch.nn.Linear(1, 1), 0.1)
