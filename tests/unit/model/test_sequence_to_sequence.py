"""Sequence to sequence on random two-layer models of every family."""

import importlib.util
import json
import random
import statistics

import numpy as np
import pandas as pd
import pytest
import torch

from components.artifacts.predictions import Predictions
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, BadParams
from components.data.base_model import BaseParams, pin_base
from components.model import tasks
from components.model.tasks.sequence_to_sequence import _model
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support import tiny_generators
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.labelled import predict_baselines
from tests.support.learn import make_learn
from tests.support.tiers import rest_exhaustive

ENGLISH = ["one", "two", "three", "four", "five", "red", "green", "blue", "dogs", "cats", "birds", "run", "sleep", "eat"]
GERMAN = ["eins", "zwei", "drei", "vier", "fünf", "rote", "grüne", "blaue", "hunde", "katzen", "vögel", "laufen", "schlafen", "essen"]
OPTIONS = {"max_target_length": 16, "max_new_tokens": 12}

task = tasks.load("sequence_to_sequence", OPTIONS)


def phrases(rows=200):
    rng = random.Random(3)
    rows_of_phrases = []
    for number in range(rows):
        indexes = [rng.randrange(0, 5), rng.randrange(5, 8), rng.randrange(8, 11), rng.randrange(11, 14)][: rng.randint(2, 4)]
        source, target = (" ".join(words[index] for index in indexes) for words in (ENGLISH, GERMAN))
        rows_of_phrases.append({"id": f"p{number:03d}", "group": f"g{number:03d}", "source": source, "target": target})
    return task.read(pd.DataFrame(rows_of_phrases))[0]


@pytest.fixture(scope="module")
def rows():
    return phrases()


def test_generation_constraints_of_the_base_are_kept(tmp_path, rows):
    tiny_generators.make_bart(tmp_path / "bart", rows["source"].tolist())
    constraints = {"forced_bos_token_id": 7, "bad_words_ids": [[9]], "suppress_tokens": [11], "sequence_bias": [[[8], -2.0]]}
    path = tmp_path / "bart/generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | constraints))
    pin_base(tmp_path, tmp_path / "base", base=BaseParams(model="bart"))
    spec = ModelSpec(
        task="sequence_to_sequence", labels=(), max_length=32, unicode_form="NFC", options=task.options.model_dump(mode="json")
    )
    model = task.build_model(tmp_path / "base", spec)
    model.save_pretrained(tmp_path / "trained")
    task.load_tokenizer(tmp_path / "base").save_pretrained(tmp_path / "trained")
    again = task.build_model(tmp_path / "trained", spec)

    for loaded in (model, again):
        assert {name: getattr(loaded.generation_config, name) for name in constraints} == constraints
    assert int(again.generate(input_ids=torch.ones(1, 4, dtype=torch.long))[0, 1]) == 7


@pytest.fixture(scope="module")
def bases(rows, tmp_path_factory):
    texts = [*rows["source"], *rows["target"]]
    return {name: make(tmp_path_factory.mktemp(name), texts) for name, make in tiny_generators.SEQUENCE_FAMILIES.items()}


@pytest.fixture(scope="module")
def learns(bases, rows, tmp_path_factory):
    folders = {
        name: make_learn(tmp_path_factory.mktemp("p") / "learn", base, rows, 40, "sequence_to_sequence", OPTIONS)
        for name, base in bases.items()
    }
    return {name: PreparedSplits.read(folder) for name, folder in folders.items()}


def save(model, base, spec, folder):
    model.save_pretrained(folder)
    task.load_tokenizer(base).save_pretrained(folder)
    spec.write(folder)
    return folder


@pytest.fixture(scope="module", params=rest_exhaustive(tiny_generators.SEQUENCE_FAMILIES, "t5", "bart"))
def fitted(request, bases, learns, tmp_path_factory):
    """Return a trained model of each family, its losses and its folder."""
    keep, learn = keep_in(tmp_path_factory.mktemp("fitted") / "out"), learns[request.param]
    outcome = fit(task, bases[request.param], learn, QUICK.model_copy(update={"epochs": 6, "metric": "log_likelihood"}), keep=keep)
    losses = [line["loss"] for line in map(json.loads, keep.history.read_text().splitlines()) if "loss" in line]
    return outcome, losses, save(outcome.model, bases[request.param], learn.spec, keep.history.parent / "model")


@pytest.fixture
def trained(fitted):
    return fitted[2]


def logits(model, folder, learn):
    batch = task.collator(task.load_tokenizer(folder), learn.spec)([learn.validation[index] for index in range(8)])
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.mark.slow
def test_every_family_trains_and_reloads(fitted, rows, learns, request, tmp_path):
    outcome, losses, folder = fitted
    learn = learns[request.node.callspec.params["fitted"]]
    again = save(task.build_model(folder, learn.spec), folder, learn.spec, tmp_path / "again")
    answers = task.predictor(folder).answer(rows.head(12)[["source"]]).predicted

    assert statistics.fmean(losses[-3:]) < 0.7 * losses[0]
    assert outcome.best_value > -2.5
    assert len(set(answers)) > 1
    assert answers == task.predictor(again).answer(rows.head(12)[["source"]]).predicted
    assert torch.equal(logits(outcome.model, folder, learn), logits(task.build_model(folder, learn.spec), folder, learn))


METHODS = {
    "full": {},
    "freeze": {"method": "freeze", "frozen_layers": 1},
    "lora": {"method": "lora", "lora_targets": "all-linear"},
    "smoothed": {"label_smoothing": 0.1, "l2_sp": 1e-4},
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("family", ["t5", "pair"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_resumes_exactly(family, method, bases, learns, tmp_path):
    settings = QUICK.model_copy(update={"metric": "log_likelihood"} | METHODS[method])
    whole, resumed = cut_and_resumed(task, bases[family], learns[family], settings, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    spec = learns[family].spec
    plain = task.build_model(bases[family], spec)

    assert same(weights(whole.model), weights(resumed.model))
    assert whole.best_value == resumed.best_value
    assert statistics.fmean(losses[-4:]) < 0.95 * losses[0]
    assert whole.model.state_dict().keys() == plain.state_dict().keys()
    folder = save(whole.model, bases[family], learns[family].spec, tmp_path / "model")
    assert torch.equal(*(logits(model, folder, learns[family]) for model in (whole.model, task.build_model(folder, spec))))


@pytest.mark.slow
def test_same_seed_gives_same_weights(bases, learns):
    settings = QUICK.model_copy(update={"epochs": 1, "metric": "token_accuracy"})
    first, second = (weights(fit(task, bases["pair"], learns["pair"], settings).model) for _ in range(2))

    assert same(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
def test_answers_do_not_depend_on_batching(trained, rows, beams):
    sources = rows.head(24)[["source"]]
    writer = tasks.load("sequence_to_sequence", OPTIONS | {"num_beams": beams}).predictor(trained)
    together = writer.answer(sources, batch_size=24).predicted
    backwards = writer.answer(sources.iloc[::-1], batch_size=5).predicted[::-1]
    alone = writer.answer(sources, batch_size=1).predicted

    assert together == backwards == alone
    assert len(set(together)) > 1


def test_padding_does_not_change_logits(trained, rows):
    spec, tokenizer = ModelSpec.read(trained), task.load_tokenizer(trained)
    table = task.encode(rows.sort_values("source", key=lambda texts: texts.str.len()).iloc[[0, -1]], tokenizer, spec).to_pylist()
    batches = [[{name: row[name] for name in row if name != "length"} for row in part] for part in (table, table[:1])]
    model, collate = task.build_model(trained, spec).eval(), task.collator(tokenizer, spec)
    with torch.no_grad():
        both, alone = (model(**collate(batch)).logits for batch in batches)

    assert both.shape[1] > alone.shape[1]
    np.testing.assert_allclose(both[0, : alone.shape[1]], alone[0], atol=1e-4)


def test_condensed_outputs_give_the_likelihood(bases, learns):
    spec, base = learns["bart"].spec, bases["bart"]
    model = task.build_model(base, spec).eval()
    batch = task.collator(task.load_tokenizer(base), spec)([learns["bart"].validation[index] for index in range(10)])
    with torch.no_grad():
        output = model(**batch)
    condensed = task.condense((output.logits, None), batch["labels"])

    assert condensed.shape == (10, 3)
    assert task.validate(condensed.numpy(), batch["labels"].numpy(), spec)["log_likelihood"] == pytest.approx(-float(output.loss), rel=1e-5)
    assert condensed[:, 1].sum() == (batch["labels"] != -100).sum()


def test_targets_are_padded_and_shifted(bases, learns):
    for family, start in (("t5", 0), ("bart", 2), ("marian", 2), ("opus", "<pad>"), ("pair", 2)):
        tokenizer = task.load_tokenizer(bases[family])
        start = tokenizer.convert_tokens_to_ids(start) if isinstance(start, str) else start
        rows = sorted((learns[family].train[index] for index in range(30)), key=lambda row: len(row["labels"]))
        batch = task.collator(tokenizer, learns[family].spec)([rows[0], rows[-1]])
        first = rows[0]["labels"]

        assert batch["labels"][0].tolist() == first + [-100] * (len(rows[-1]["labels"]) - len(first)), family
        assert batch["decoder_input_ids"][0, : len(first)].tolist() == [start, *first[:-1]], family
        assert first[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id), family
        assert first[0] != start, family


def test_rows_without_visible_text_are_invalid():
    frame = pd.DataFrame({"source": ["a b", "\u200b", "c"], "target": [" x y\nz ", "x", "\ufeff\u200b"], "kind": ["k", "k", "k"]})
    read, faults = task.read(frame)

    assert faults == {1: "source without a visible character", 2: "target without a visible character"}
    assert read["label"][0] == "x y\nz"
    assert read["text"][0] == "a b"
    assert list(read["kind"]) == ["k", "k", "k"]


def test_prefix_is_part_of_the_source(bases, rows, learns):
    prefixed, tokenizer = tasks.load("sequence_to_sequence", {"prefix": "two: "}), task.load_tokenizer(bases["t5"])
    spec = learns["t5"].spec.model_copy(update={"max_length": 6})
    encoded = prefixed.encode(rows.head(3), tokenizer, spec)

    assert (prefixed.lengths(rows.head(3), tokenizer) > task.lengths(rows.head(3), tokenizer)).all()
    assert max(encoded.column("length").to_pylist()) <= 6
    assert tokenizer.decode(encoded.column("input_ids")[0].as_py()).startswith("two")


def test_unsupported_bases_and_lengths_are_rejected(bases, tmp_path, learns):
    from transformers import DistilBertConfig, DistilBertModel

    task.load_tokenizer(bases["pair"]).save_pretrained(tmp_path)
    DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2)).save_pretrained(tmp_path)

    with pytest.raises(BadModel, match="is a distilbert: expected an encoder-decoder"):
        task.build_model(tmp_path, learns["pair"].spec)
    with pytest.raises(BadParams, match=r"task_options\.max_target_length is 65, expected at most 64"):
        tasks.load("sequence_to_sequence", {"max_target_length": 65}).build_model(bases["bart"], learns["bart"].spec)
    with pytest.raises(BadParams, match="length_penalty 2 is used only with num_beams above 1"):
        tasks.load("sequence_to_sequence", {"length_penalty": 2.0})


@pytest.mark.parametrize("field", [{"r_drop": 1.0}, {"neftune": 5.0}, {"calibration": "temperature"}])
def test_unsupported_settings_are_rejected(bases, learns, field):
    with pytest.raises(BadParams, match="the task refuses it"):
        fit(task, bases["t5"], learns["t5"], QUICK.model_copy(update={"metric": "log_likelihood"} | field))


def test_baselines_copy_and_truncate(rows, learns, bases):
    answers = predict_baselines(task, rows.head(100), rows.tail(20), learns["t5"].spec, bases["t5"])
    words = round(float(np.median(rows.head(100)["label"].str.split().str.len())))

    assert tuple(answers) == task.baselines
    assert answers["copy"].predicted == rows.tail(20)["text"].tolist()
    assert answers["lead"].predicted == [" ".join(text.split()[:words]) for text in rows.tail(20)["text"]]


def test_slices_and_tables_show_lengths(rows):
    subset = rows.head(40)
    wrong = [*subset["label"][:38], "", "ganz anders"]
    predictions = Predictions(
        *(np.array(list(column)) for column in (subset["id"], subset["group"], subset["label"], wrong)), np.zeros((40, 0)), ()
    )
    worst, samples, lengths = task.tables(subset, predictions)

    assert set(task.slices(subset)["source_length"]) == {"1-4 words"}
    assert {row[0] for row in worst.rows[:2]} == {"p038", "p039"}
    assert len(samples.rows) == 15
    assert ("empty", 0.0, 1.0) in lengths.rows


def test_generation_settings_follow_the_options(trained, learns):
    wide = tasks.load("sequence_to_sequence", {"num_beams": 4, "length_penalty": 0.5, "no_repeat_ngram_size": 3, "max_new_tokens": 7})
    model = wide.build_model(trained, ModelSpec.read(trained))
    settings = _model.build(trained, wide.load_tokenizer(trained), wide.options).generation_config

    assert (settings.num_beams, settings.length_penalty, settings.no_repeat_ngram_size, settings.max_new_tokens) == (4, 0.5, 3, 7)
    assert settings.do_sample is False
    model.generation_config.validate(strict=True)


@pytest.mark.parametrize("package", ["sacremoses", "sentencepiece"])
def test_missing_marian_package_names_the_extra(package, bases, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name, *rest))

    message = rf"needs the package {package}: python -m pip install 'retune\[marian\]'"
    with pytest.raises(BadModel, match=message):
        task.load_tokenizer(bases["opus"])
    with pytest.raises(BadModel, match=rf"base.model .*: the tokenizer {message}"):
        pin_base(tmp_path, tmp_path / "base", base=BaseParams(model=str(bases["opus"])))
    assert pin_base(tmp_path, tmp_path / "base", base=BaseParams(model=str(bases["marian"]))).parts
    assert task.load_tokenizer(bases["marian"]).pad_token == "<pad>"
