"""Training of every label kind with every method: learning, resuming and reloading."""

import json
import shutil
import statistics

import numpy as np
import pytest
import safetensors.torch

from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec
from components.core.errors import BadParams
from components.model import tasks
from components.training.train import save
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.labelled import KINDS, METRIC, paired, relabelled, statistics_of
from tests.support.learn import make_learn
from tests.support.tiers import rest_exhaustive

ADDED = {"label_smoothing": 0.1, "r_drop": 0.5, "dropout": 0.1}
METHODS = {"full": {}, "freeze": {"method": "freeze", "frozen_layers": 1}, "lora": {"method": "lora", "lora_dropout": 0.1}}


def prepared(folder, base, tickets, kind, **options):
    task = tasks.load("text_classification", {**KINDS[kind], **options})
    rows = relabelled(tickets, kind)
    rows = task.read(paired(rows) if options.get("pair") else rows)[0]
    return task, PreparedSplits.read(make_learn(folder / "learn", base, rows, options={**KINDS[kind], **options}))


@pytest.fixture(scope="module")
def tiny_base(tiny_base, tmp_path_factory):
    """Return the two-layer model with scaled weights, so that untrained outputs depend on the words."""
    folder = shutil.copytree(tiny_base, tmp_path_factory.mktemp("loud") / "base")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    loud = {name: 10 * tensor if tensor.ndim == 2 and "embeddings" not in name else tensor for name, tensor in state.items()}
    safetensors.torch.save_file(loud, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def kinds(tiny_base, tickets, tmp_path_factory):
    return {kind: prepared(tmp_path_factory.mktemp(kind), tiny_base, tickets, kind) for kind in KINDS}


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "single"])
def test_every_kind_learns_with_every_method(tiny_base, kinds, tmp_path, kind, method):
    task, learn = kinds[kind]
    changes = {"epochs": 8, "metric": METRIC[kind], **METHODS[method]}
    keep = keep_in(tmp_path / "out")
    outcome = fit(task, tiny_base, learn, QUICK.model_copy(update=changes), keep=keep)
    losses = [point["loss"] for point in map(json.loads, keep.history.read_text().splitlines()) if "loss" in point]

    falls, reaches = (0.93, 0.2) if method == "freeze" else (0.75, 0.4)  # frozen random embeddings carry little information
    assert statistics.fmean(losses[-6:]) < falls * losses[0]
    assert outcome.best_value > reaches


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "single"])
def test_training_resumes_exactly_and_reloads(tiny_base, kinds, tickets, tmp_path, kind, method):
    task, learn = kinds[kind]
    settings = QUICK.model_copy(update={"metric": METRIC[kind], **METHODS[method]})
    expected, resumed = cut_and_resumed(task, tiny_base, learn, settings, tmp_path)
    folder = save(resumed, task, tiny_base, learn.spec, tmp_path / "model")
    predictor, rows = task.predictor(folder), relabelled(tickets, kind)[["text"]].iloc[:20]

    assert same(weights(expected.model), weights(resumed.model))
    together = predictor.scores(rows)
    alone = np.vstack([predictor.scores(rows.iloc[[index]]) for index in range(20)])
    np.testing.assert_allclose(together, alone, atol=1e-4 * max(1.0, np.abs(together).max()))
    assert len(predictor.answer(rows).predicted) == 20
    again = task.build_model(folder, learn.spec)
    assert same(weights(again), weights(resumed.model))


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["single", "multi", "ordinal"])
@pytest.mark.parametrize("changes", [{"method": "lora"}, ADDED], ids=["lora", "added"])
def test_class_weights_combine_with_other_settings(tiny_base, tickets, tmp_path, kind, changes):
    changes = changes if kind == "single" else {"method": changes.get("method", "full")}  # the other kinds do not support ADDED
    task, learn = prepared(tmp_path, tiny_base, tickets, kind, class_weights="balanced")
    settings = QUICK.model_copy(update={"metric": METRIC[kind], **changes})
    expected, resumed = cut_and_resumed(task, tiny_base, learn, settings, tmp_path)
    heavy = {**learn.spec.options, "class_weights": {name: 50.0 if name == learn.spec.labels[0] else 0.02 for name in learn.spec.labels}}
    other = fit(task, tiny_base, PreparedSplits(learn.spec.model_copy(update={"options": heavy}), learn.train, learn.validation), settings)

    assert same(weights(expected.model), weights(resumed.model))
    assert not same(weights(expected.model), weights(other.model))


@pytest.mark.slow
def test_gradient_accumulation_equals_a_large_batch(tiny_base, tickets, tmp_path):
    """The mean over a batch equals the mean over its halves."""
    task, learn = prepared(tmp_path, tiny_base, tickets, "single", class_weights="balanced")
    rows = learn.train.take(list(range(160)))
    large, accumulated = (
        fit(task, tiny_base, PreparedSplits(learn.spec, rows, learn.validation), QUICK.model_copy(update={"epochs": 1, **changes}))
        for changes in ({"batch_size": 32}, {"batch_size": 16, "accumulation": 2})
    )

    for name, tensor in weights(large.model).items():
        np.testing.assert_allclose(tensor, weights(accumulated.model)[name], atol=2e-3, err_msg=name)


@pytest.mark.parametrize("kind", ["multi", "ordinal", "regression"])
@pytest.mark.parametrize("field", ["label_smoothing", "r_drop"])
def test_unsupported_settings_are_rejected(tiny_base, kinds, kind, field):
    task, learn = kinds[kind]
    settings = QUICK.model_copy(update={"metric": METRIC[kind], field: 0.1})

    with pytest.raises(BadParams, match=rf"train\.{field} is set, and the task refuses it"):
        fit(task, tiny_base, learn, settings)


@pytest.mark.slow
def test_thresholds_are_fitted_and_stored(tiny_base, tickets, tmp_path):
    task, learn = prepared(tmp_path, tiny_base, tickets, "multi", thresholds={"billing": 0.35})
    outcome = fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 6, "metric": "average_precision"}))
    folder = save(outcome, task, tiny_base, learn.spec, tmp_path / "model")
    validation = read_rows(tmp_path / "learn" / "validation.parquet")
    before = task.predictor(folder).answer(validation)
    fitted = task.calibrate(folder, validation)
    spec = ModelSpec.read(folder)
    spec.model_copy(update={"options": {**spec.options, **fitted}}).write(folder)
    after = task.predictor(folder).answer(validation)
    f1 = [task.test_metrics["micro_f1"].of(statistics_of(task, Predictions.from_output(validation, output))) for output in (before, after)]

    assert set(fitted["thresholds"]) == set(learn.spec.labels)
    assert fitted["thresholds"]["billing"] == 0.35
    assert f1[1] >= f1[0]
    assert all((values == after.measured[name]).all() for name, values in before.measured.items())
    assert set(before.measured) == {f"probability {label}" for label in learn.spec.labels}


@pytest.mark.slow
@pytest.mark.parametrize("kind", rest_exhaustive(["single", "regression"], "single"))
def test_pairs_are_learnt(tiny_base, tickets, tmp_path, kind):
    task, learn = prepared(tmp_path, tiny_base, tickets, kind, pair=True)
    outcome = fit(
        task,
        tiny_base,
        learn,
        QUICK.model_copy(update={"epochs": 12, "learning_rate": 2e-2, "metric": METRIC[kind]}),
        keep=keep_in(tmp_path / "out"),
    )
    folder = save(outcome, task, tiny_base, learn.spec, tmp_path / "model")
    rows = paired(tickets)[["text_a", "text_b"]].iloc[:20]
    scores = task.predictor(folder).scores(rows)

    assert outcome.best_value > 0.4
    np.testing.assert_allclose(
        scores, np.vstack([task.predictor(folder).scores(rows.iloc[[index]]) for index in range(20)]), rtol=1e-4, atol=1e-4
    )
    assert not np.allclose(scores, task.predictor(folder).scores(rows.rename(columns={"text_a": "text_b", "text_b": "text_a"})))


def test_raw_pairs_are_normalised(tiny_base, tickets, tmp_path):
    task, learn = prepared(tmp_path, tiny_base, tickets, "single", pair=True)
    rows = task.read(paired(tickets.head(4)))[0]
    untidy = rows.assign(text_a=[f" {text}\u200b\n" for text in rows["text_a"]])
    tokenizer = task.load_tokenizer(tiny_base)

    assert task.encode(untidy, tokenizer, learn.spec).equals(task.encode(rows, tokenizer, learn.spec))
