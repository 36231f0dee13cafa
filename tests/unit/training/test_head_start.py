"""The output layer starts as the linear probe's solution, or stays it with the method `probe`; tasks without a probe refuse both."""

import json

import numpy as np
import pytest
import torch

from components.artifacts.training import Training
from components.artifacts.tuning_result import BestTrial, TunedSettings
from components.core.errors import BadModel, BadParams
from components.core.section import OpenSection
from components.model import tasks
from components.model.support.feature_cache import FeatureCache
from components.model.support.output_heads import output_layer
from components.training.train import train
from components.training.trainer import TrainParams, TrainSection
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from components.training.trainer.head_start import probe_head
from components.training.tune.settings import TuneParams
from components.training.tune.step import tune
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.labelled import KINDS, METRIC, relabelled, tagged
from tests.support.learn import make_learn
from tests.support.tiers import rest_exhaustive

PROBE = QUICK.model_copy(update={"method": "probe"})
START = QUICK.model_copy(update={"head_start": "probe", "learning_rate": 1e-6, "epochs": 1})
single = tasks.load("text_classification")


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return PreparedSplits.read(make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets))


@pytest.fixture(scope="module")
def kinds(tiny_base, tickets, tmp_path_factory):
    """Return task and splits of each kind."""
    made = {}
    for kind, options in KINDS.items():
        folder = tmp_path_factory.mktemp(kind) / "learn"
        learn = PreparedSplits.read(make_learn(folder, tiny_base, relabelled(tickets, kind), options=options))
        made[kind] = (tasks.load("text_classification", options), learn)
    return made


def built(task, base, learn, seed=PROBE.seed):
    torch.manual_seed(seed)
    return task.build_model(base, learn.spec)


def test_probe_changes_only_the_output_layer(tiny_base, learn):
    before, after = weights(built(single, tiny_base, learn)), weights(fit(single, tiny_base, learn, PROBE).model)

    assert {name for name in before if not torch.equal(before[name], after[name])} == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("kind", KINDS)
def test_probe_of_every_kind_is_the_fitted_head(tiny_base, kinds, kind):
    task, learn = kinds[kind]
    settings = PROBE.model_copy(update={"metric": METRIC[kind]})
    result = fit(task, tiny_base, learn, settings)
    head = probe_head(built(task, tiny_base, learn), task, tiny_base, learn, settings, None)
    layer = output_layer(result.model, result.model.config.num_labels)[1]

    assert np.array_equal(layer.weight.detach().numpy(), head.weight)
    assert np.array_equal(layer.bias.detach().numpy(), head.bias)
    assert result.best_value > 0.5
    assert head.value > 0.5
    assert (result.steps, result.best_step, result.epochs, result.stopped_by) == (0, 0, 0.0, "no training")


@pytest.mark.parametrize("head", ["linear", "crf"])
def test_probe_of_tokens_tags_entities(tiny_base, tickets, tmp_path, head):
    task, rows = tasks.load("token_classification", {"head": head}), tagged(tickets)
    learn = PreparedSplits.read(make_learn(tmp_path / "learn", tiny_base, rows, name="token_classification", options={"head": head}))
    settings = PROBE.model_copy(update={"metric": "entity_f1"})
    result = fit(task, tiny_base, learn, settings)
    fitted = probe_head(built(task, tiny_base, learn), task, tiny_base, learn, settings, None)

    assert fitted.outputs.shape == fitted.expected.shape == (len(learn.train), max(len(text.split()) for text in rows["text"][60:]))
    assert fitted.value == task.validate(fitted.outputs, fitted.expected, learn.spec)["entity_f1"]
    assert result.best_value > 0.6
    assert fitted.value > 0.6


def test_probe_is_evaluated_once_and_recorded(tiny_base, learn, tmp_path):
    keep, seen = keep_in(tmp_path / "kept"), []
    result = fit(single, tiny_base, learn, PROBE, keep=keep, watch=lambda number, value: seen.append((number, value)))
    (point,) = map(json.loads, keep.history.read_text().splitlines())

    assert seen == [(1, result.best_value)]
    assert point["step"] == 0
    assert point["eval_macro_f1"] == result.best_value


def test_cache_changes_no_bit_of_a_probe(tiny_base, learn, tmp_path):
    cache = FeatureCache(tmp_path)
    results = [fit(single, tiny_base, learn, PROBE, cache=each) for each in (None, cache, cache)]

    assert len(list(tmp_path.iterdir())) == 1
    assert same(weights(results[0].model), weights(results[1].model))
    assert same(weights(results[0].model), weights(results[2].model))


def test_another_split_of_the_same_rows_finds_the_features(tiny_base, learn, tmp_path):
    cache = FeatureCache(tmp_path)
    swapped = PreparedSplits(learn.spec, learn.validation, learn.train)
    for each in (learn, swapped):
        fit(single, tiny_base, each, PROBE, cache=cache)

    assert len(list(tmp_path.iterdir())) == 1


def test_probe_uses_the_groups_of_the_rows(tiny_base, learn):
    bare = PreparedSplits(learn.spec, learn.train, learn.validation)
    heads = [probe_head(built(single, tiny_base, each), single, tiny_base, each, PROBE, None) for each in (learn, bare)]

    assert learn.groups is not None
    assert heads[0].value != heads[1].value


@pytest.mark.parametrize("method", rest_exhaustive(["full", "lora", "freeze"], "full"))
def test_training_starts_at_the_probe(tiny_base, learn, method):
    expected = fit(single, tiny_base, learn, PROBE).best_value
    started = fit(single, tiny_base, learn, START.model_copy(update={"method": method})).best_value
    random = fit(single, tiny_base, learn, START.model_copy(update={"method": method, "head_start": "random"})).best_value

    assert started == pytest.approx(expected, abs=0.05)
    assert random < expected - 0.2


@pytest.mark.slow
def test_resumed_training_equals_an_uninterrupted_one(tiny_base, learn, tmp_path):
    settings = QUICK.model_copy(update={"head_start": "probe"})
    expected, resumed = cut_and_resumed(single, tiny_base, learn, settings, tmp_path)

    assert same(weights(resumed.model), weights(expected.model))


@pytest.mark.slow
def test_step_packages_a_probe(tiny_base, tickets, tmp_path, monkeypatch):
    monkeypatch.setenv("RETUNE_VAR", str(tmp_path / "var"))
    learn, tuned = make_learn(tmp_path / "learn", tiny_base, tickets, options={"pooling": "last_four"}), tmp_path / "tuned"
    tuned.mkdir()
    TunedSettings(settings={}).write(tuned)
    section = TrainSection.parse({"method": "probe", "threads": 1, "precision": "float32"}, "train")
    options = OpenSection.parse({"pooling": "last_four"}, "task_options")
    train(learn, tiny_base, tuned, tmp_path / "out", task="text_classification", train=section, task_options=options)
    record = Training.read(tmp_path / "out")
    answers = tasks.of(PreparedSplits.read(learn).spec).predictor(tmp_path / "out/model").answer(tickets.head(60))

    assert (record.settings["method"], record.steps, record.stopped_by) == ("probe", 0, "no training")
    assert np.mean(np.array(answers.predicted) == tickets["label"].head(60)) > 0.8


@pytest.mark.slow
def test_search_compares_a_probe_with_training(tiny_base, tickets, tmp_path, monkeypatch):
    monkeypatch.setenv("RETUNE_VAR", str(tmp_path / "var"))
    space = {"method": {"type": "categorical", "choices": ["probe", "full"]}}
    params = TuneParams.parse({"trials": 2, "epochs": 1, "train_fraction": 1, "initial_trial": {"method": "probe"}, "space": space}, "tune")
    section = TrainSection.parse({"method": "tuned", "learning_rate": 1e-6, "threads": 1, "precision": "float32"}, "train")
    learn = make_learn(tmp_path / "learn", tiny_base, tickets)
    tune(learn, tiny_base, tmp_path / "tuned", task="text_classification", tune=params, train=section)

    assert BestTrial.read(tmp_path / "tuned").settings == {"method": "probe"}
    assert len(list((tmp_path / "var/features").iterdir())) == 1


@pytest.mark.parametrize("name", ["causal_lm", "contrastive", "masked_lm", "question_answering", "sequence_to_sequence"])
@pytest.mark.parametrize(("changes", "message"), [({"head_start": "probe"}, "head_start is set"), ({"method": "probe"}, "method is probe")])
def test_task_without_a_probe_refuses(tiny_base, learn, name, changes, message):
    task = tasks.load(name)
    settings = QUICK.model_copy(update={"metric": task.validation_metrics[0]} | changes)
    with pytest.raises(BadParams, match=rf"^params\.yaml: train\.{message}, and the task refuses it: the (output layer|model) "):
        fit(task, tiny_base, learn, settings)


def test_every_task_has_a_probe_or_refuses():
    without = [name for name in tasks.available() if "head_start" in tasks.load(name).unsupported_settings]
    overriding = [name for name in tasks.available() if type(tasks.load(name)).fit_head is not tasks.Task.fit_head]

    assert sorted([*without, *overriding]) == tasks.available()


def test_new_task_without_a_probe_gets_a_message(tiny_base, learn, monkeypatch):
    monkeypatch.setattr(type(single), "fit_head", tasks.Task.fit_head)
    with pytest.raises(BadParams, match=r"the task text_classification has no linear probe; set it to random"):
        fit(single, tiny_base, learn, START)


def test_base_with_nan_weights_is_named(tiny_base, learn, monkeypatch):
    build = type(single).build_model

    def broken(self, base, spec):
        model = build(self, base, spec)
        torch.nn.init.constant_(model.base_model.pooler.dense.bias, float("nan"))
        return model

    monkeypatch.setattr(type(single), "build_model", broken)
    with pytest.raises(BadModel, match=r"the base model model in .* gives NaN or infinite features"):
        fit(single, tiny_base, learn, PROBE)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "probe", "learning_rate": 1e-3}, "train.learning_rate: is used only if method is "),
        ({"method": "probe", "layer_decay": 0.9}, "train.layer_decay: is used only if method is "),
        ({"head_start": "probe", "contrastive_start": 1}, "train.head_start: contrastive_start changes the features"),
    ],
)
def test_setting_without_effect_is_refused(section, message):
    with pytest.raises(BadParams) as caught:
        TrainSection.parse(section, "train")

    assert str(caught.value).startswith(f"params.yaml: {message}")


def test_defaults_do_not_start_at_the_probe():
    assert not TrainParams().starts_at_probe
    assert TrainParams(method="probe").starts_at_probe
