"""Sentence embeddings with every method: they learn, are saved whole, and a cut changes nothing."""

import json
import statistics

import pytest
import torch

from components.core.errors import BadParams
from components.model import tasks
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support.encoders import FAMILIES, make_encoder
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.labelled import CONTRASTIVE_FORMATS, contrastive_rows
from tests.support.learn import make_learn
from tests.support.tiers import rest_exhaustive

VARIANTS = {
    "full": {},
    "freeze": {"method": "freeze", "frozen_layers": 1},
    "lora": {"method": "lora", "lora_dropout": 0.1},
    "added": {"ema": 0.5, "l2_sp": 0.01, "neftune": 1.0, "accumulation": 2, "layer_decay": 0.5, "dropout": 0.2},
}


def settings(task, **changes):
    return QUICK.model_copy(update={"metric": task.validation_metrics[0], "evaluations_per_epoch": 3} | changes)


@pytest.fixture(scope="module")
def base(tickets, tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("bert"), "bert", tickets["text"].tolist())


@pytest.fixture(scope="module")
def learn(base, tickets, tmp_path_factory):
    """By the kind of data: the task, and its rows encoded."""
    folder = tmp_path_factory.mktemp("prepared")
    found = {}
    for data in CONTRASTIVE_FORMATS:
        task = tasks.load("contrastive", {"data": data})
        rows = contrastive_rows(tickets, data, 240)
        found[data] = (
            task,
            PreparedSplits.read(make_learn(folder / data, base, rows, name="contrastive", options=task.options.model_dump())),
        )
    return found


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("data", "variant"), [*(("pairs", variant) for variant in VARIANTS), *((data, "full") for data in CONTRASTIVE_FORMATS[1:])]
)
def test_it_learns_and_the_saved_model_answers_alike(base, learn, tmp_path, data, variant):
    task, rows = learn[data]
    keep = keep_in(tmp_path / "out")
    changes = {"epochs": 6, "learning_rate": 0.003} if data == "scored" else {"epochs": 3}
    trained = fit(task, base, rows, settings(task, **changes | VARIANTS[variant]), keep=keep).model
    losses = [point["loss"] for point in map(json.loads, keep.history.read_text().splitlines()) if "loss" in point]
    trained.save_pretrained(tmp_path / "model")
    loaded = task.build_model(tmp_path / "model", rows.spec)
    batch = task.collator(task.load_tokenizer(base), rows.spec)([rows.validation[place] for place in range(8)])

    assert statistics.fmean(losses[-4:]) < 0.95 * statistics.fmean(losses[:2])
    assert same(weights(loaded), weights(trained))
    with torch.no_grad():
        # The saved model ends in Normalize, which rounds the last bit of vectors that the loss normalises itself.
        torch.testing.assert_close(trained.eval()(**batch).logits, loaded.eval()(**batch).logits, rtol=0, atol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("data", "variant"), [*(("pairs", variant) for variant in VARIANTS), ("texts", "full"), ("scored", "full")])
def test_a_resumed_run_equals_an_uninterrupted_one(base, learn, tmp_path, data, variant):
    task, rows = learn[data]
    expected, resumed = cut_and_resumed(task, base, rows, settings(task, **VARIANTS[variant]), tmp_path)

    assert same(weights(resumed.model), weights(expected.model))
    assert (resumed.best_step, resumed.best_value) == (expected.best_step, expected.best_value)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_seed_decides_and_frozen_weights_stay(base, learn):
    task, rows = learn["pairs"]
    one, again, other = (weights(fit(task, base, rows, settings(task, epochs=1, seed=seed)).model) for seed in (7, 7, 8))
    before = weights(task.build_model(base, rows.spec))
    frozen = weights(fit(task, base, rows, settings(task, epochs=1, **VARIANTS["freeze"])).model)

    assert same(one, again)
    assert not same(one, other)
    moved = {name for name in before if not torch.equal(before[name], frozen[name])}
    assert moved == {name for name in before if "layer.1." in name}


def test_freezing_all_layers_leaves_nothing_to_learn(base, learn):
    task, rows = learn["pairs"]

    with pytest.raises(BadParams, match="nothing would learn"):
        fit(task, base, rows, settings(task, method="freeze", frozen_layers=-1))


@pytest.mark.parametrize("field", ["r_drop", "label_smoothing"])
def test_what_needs_labels_is_refused_with_the_reason(base, learn, field):
    task, rows = learn["pairs"]

    with pytest.raises(BadParams, match=f"train.{field} is set, and the task refuses it: .*label"):
        fit(task, base, rows, settings(task, **{field: 0.5}))


@pytest.mark.slow
@pytest.mark.parametrize("family", rest_exhaustive(FAMILIES, "roberta"))
@pytest.mark.parametrize("variant", ["full", "lora"])
def test_every_family_learns_and_is_loaded_again(family, variant, tickets, tmp_path):
    task = tasks.load("contrastive")
    base = make_encoder(tmp_path / "base", family, tickets["text"].tolist())
    learn = PreparedSplits.read(
        make_learn(tmp_path / "learn", base, contrastive_rows(tickets, count=120), name="contrastive", options=task.options.model_dump())
    )
    trained = fit(task, base, learn, settings(task, epochs=1, **VARIANTS[variant])).model
    trained.save_pretrained(tmp_path / "model")

    assert same(weights(task.build_model(tmp_path / "model", learn.spec)), weights(trained))
