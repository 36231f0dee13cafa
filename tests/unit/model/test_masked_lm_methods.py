"""Masked language modelling with every method: it learns, is saved whole, and a cut changes nothing."""

import json
import statistics

import pytest
import torch

from components.model import tasks
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support.encoders import FAMILIES, make_encoder
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.learn import make_learn
from tests.support.tiers import rest_exhaustive

task = tasks.load("masked_lm")

SETTINGS = QUICK.model_copy(update={"metric": "log_likelihood"})
VARIANTS = {
    "full": {},
    "freeze": {"method": "freeze", "frozen_layers": 1},
    "lora": {"method": "lora", "lora_dropout": 0.1},
    "added": {"r_drop": 0.5, "label_smoothing": 0.1, "ema": 0.5, "l2_sp": 0.01, "neftune": 1.0, "accumulation": 2},
}


@pytest.fixture(scope="module")
def base(tickets, tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("bert"), "bert", tickets["text"].tolist())


@pytest.fixture(scope="module")
def learn(base, tickets, tmp_path_factory):
    rows, _ = task.read(tickets)
    return PreparedSplits.read(make_learn(tmp_path_factory.mktemp("prepared") / "learn", base, rows, name="masked_lm"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_learns_and_the_saved_model_answers_alike(base, learn, tickets, tmp_path, variant):
    keep = keep_in(tmp_path / "out")
    before = task.build_model(base, learn.spec)
    trained = fit(task, base, learn, SETTINGS.model_copy(update={"epochs": 6} | VARIANTS[variant]), keep=keep).model
    losses = [point["loss"] for point in map(json.loads, keep.history.read_text().splitlines()) if "loss" in point]
    trained.save_pretrained(tmp_path / "model")
    loaded = task.build_model(tmp_path / "model", learn.spec)
    batch = task.collator(task.load_tokenizer(base), learn.spec)([learn.validation[place] for place in range(8)])

    assert statistics.fmean(losses[-4:]) < 0.95 * losses[0]  # frozen embeddings are random ones here, and tied to the output
    assert same(weights(loaded), weights(trained))
    assert weights(trained).keys() == weights(before).keys()
    assert trained.get_output_embeddings().weight is trained.get_input_embeddings().weight
    with torch.no_grad():
        assert torch.equal(trained.eval()(**batch).logits, loaded.eval()(**batch).logits)


@pytest.mark.exhaustive
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_equals_an_uninterrupted_one(base, learn, tmp_path, variant):
    within_an_epoch = SETTINGS.model_copy(update={"evaluations_per_epoch": 3} | VARIANTS[variant])
    expected, resumed = cut_and_resumed(task, base, learn, within_an_epoch, tmp_path)

    assert same(weights(resumed.model), weights(expected.model))
    assert (resumed.best_step, resumed.best_value) == (expected.best_step, expected.best_value)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_seed_decides_the_masks(base, learn):
    settings = SETTINGS.model_copy(update={"epochs": 1})
    one, again, other = (weights(fit(task, base, learn, settings.model_copy(update={"seed": seed})).model) for seed in (7, 7, 8))

    assert same(one, again)
    assert not same(one, other)


@pytest.mark.slow
def test_frozen_and_tied_weights_stay(base, learn):
    before = weights(task.build_model(base, learn.spec))
    for variant in ("freeze", "lora"):
        after = weights(fit(task, base, learn, SETTINGS.model_copy(update={"epochs": 1} | VARIANTS[variant])).model)
        name = "bert.embeddings.word_embeddings.weight"
        assert torch.equal(before[name], after[name])
        assert torch.equal(after["cls.predictions.decoder.weight"], after[name])


@pytest.mark.slow
@pytest.mark.parametrize("family", rest_exhaustive(FAMILIES, "roberta"))
@pytest.mark.parametrize("variant", ["full", "lora"])
def test_every_family_learns_and_is_loaded_again(family, variant, tickets, tmp_path):
    base = make_encoder(tmp_path / "base", family, tickets["text"].tolist())
    learn = PreparedSplits.read(
        make_learn(tmp_path / "learn", base, task.read(tickets.head(120))[0], name="masked_lm", options={"whole_word": True})
    )
    settings = SETTINGS.model_copy(update={"epochs": 2} | VARIANTS[variant])
    trained = fit(task, base, learn, settings).model
    trained.save_pretrained(tmp_path / "model")

    assert same(weights(task.build_model(tmp_path / "model", learn.spec)), weights(trained))
