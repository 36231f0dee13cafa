"""Frozen features are the inputs of the output layer, for every family and head; a cache changes no bit."""

import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.core.errors import BadModel
from components.model import tasks
from components.model.support import frozen_features as frozen_features_module
from components.model.support.feature_cache import FeatureCache
from components.model.support.frozen_features import IGNORED, features_of, frozen_features
from components.model.support.output_heads import output_layer
from components.model.tasks.text_classification import model as model_module
from components.training.trainer.data import PreparedSplits
from tests.support.families import FAMILIES, make_family
from tests.support.labelled import tagged
from tests.support.learn import make_learn
from tests.support.tickets import WORDS
from tests.support.tiers import rest_exhaustive
from tests.support.token_classification_families import FAMILIES as TAGGERS
from tests.support.token_classification_families import make_family as make_tagger

HEADS = {"default": {}, "mean": {"pooling": "mean"}, "last four": {"pooling": "last_four"}, "hidden": {"head_hidden": 8}}
KINDS = {"linear": {}, "crf": {"head": "crf"}}


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return PreparedSplits.read(make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets))


def logits_of(model, task, base, spec, table):
    """Return the logits of the model in evaluation mode, in one batch, and the batch."""
    names = [name for name in table.column_names if name != "length"]
    batch = task.collator(task.load_tokenizer(base), spec)([{name: row[name] for name in names} for row in table.to_pylist()])
    with torch.no_grad():
        return model.eval()(**{name: value for name, value in batch.items() if name != "labels"}).logits, batch


def answers(model, features):
    layer = output_layer(model, model.config.num_labels)[1]
    with torch.no_grad():
        return layer(torch.from_numpy(features.vectors))


@pytest.mark.parametrize("family", rest_exhaustive(FAMILIES, "roberta", "gpt2"))
def test_output_layer_on_features_gives_the_logits(tickets, tmp_path, family):
    task, base = tasks.load("text_classification"), make_family(tmp_path, family, WORDS)
    learn = PreparedSplits.read(make_learn(tmp_path / "learn", base, tickets.head(40), validation=20))
    model = task.build_model(base, learn.spec)
    features = features_of(model, task, base, learn.spec, learn.train.table)
    expected, batch = logits_of(model, task, base, learn.spec, learn.train.table)

    torch.testing.assert_close(answers(model, features), expected, atol=1e-5, rtol=1e-4)
    assert features.targets.tolist() == batch["labels"].tolist()
    assert features.rows.tolist() == list(range(len(learn.train)))


@pytest.mark.parametrize("head", HEADS)
def test_every_head_has_features(tiny_base, learn, head):
    task = tasks.load("text_classification", HEADS[head])
    model = task.build_model(tiny_base, learn.spec)
    features = features_of(model, task, tiny_base, learn.spec, learn.train.table)

    expected, _ = logits_of(model, task, tiny_base, learn.spec, learn.train.table)
    torch.testing.assert_close(answers(model, features), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", rest_exhaustive(TAGGERS, "bert", "xlnet"))
def test_features_of_tokens_are_those_of_their_first_sub_words(tickets, tmp_path, family, kind):
    rows = tagged(tickets.head(30))
    task, base = tasks.load("token_classification", KINDS[kind]), make_tagger(tmp_path, family, rows["text"].tolist())
    learn = PreparedSplits.read(make_learn(tmp_path / "learn", base, rows, 10, "token_classification", KINDS[kind]))
    model = task.build_model(base, learn.spec)
    features = features_of(model, task, base, learn.spec, learn.train.table)
    expected, batch = logits_of(model, task, base, learn.spec, learn.train.table)
    begins = batch["labels"] != IGNORED

    torch.testing.assert_close(answers(model, features), expected[begins], atol=1e-5, rtol=1e-4)
    assert features.targets.tolist() == batch["labels"][begins].tolist()
    assert features.rows.tolist() == begins.nonzero()[:, 0].tolist()


def of(base, learn, table, **settings):
    return frozen_features(tasks.load("text_classification"), base, learn.spec, table, seed=1, **settings)


def test_cached_features_have_the_same_bits(tiny_base, learn, tmp_path):
    cache = FeatureCache(tmp_path / "features")
    computed = of(tiny_base, learn, learn.train.table)
    stored = of(tiny_base, learn, learn.train.table, cache=cache)
    (file,) = cache.folder.iterdir()
    os.utime(file, ns=(0, 0))
    cached = of(tiny_base, learn, learn.train.table, cache=cache)

    assert file.stat().st_mtime_ns > 0  # read, and marked as used
    assert computed.vectors.tobytes() == stored.vectors.tobytes() == cached.vectors.tobytes()


def test_another_order_and_other_labels_find_the_cached_features(tiny_base, learn, tmp_path):
    cache, table = FeatureCache(tmp_path), learn.train.table
    first = of(tiny_base, learn, table, cache=cache)
    order = np.random.default_rng(0).permutation(len(table))
    labels = pa.array(np.zeros(len(table), np.int64))
    second = of(tiny_base, learn, table.set_column(table.column_names.index("labels"), "labels", labels).take(order), cache=cache)

    assert len(list(tmp_path.iterdir())) == 1
    assert np.array_equal(second.vectors, first.vectors[order])
    assert not second.targets.any()


CHANGES = {
    "seed": {"seed": 2},
    "precision": {"precision": "bfloat16"},
    "pooling": {"task": tasks.load("text_classification", HEADS["hidden"] | HEADS["mean"])},
}


@pytest.mark.parametrize("change", CHANGES)
def test_features_of_another_model_are_computed(tiny_base, learn, tmp_path, change):
    cache = FeatureCache(tmp_path)
    settings = {"task": tasks.load("text_classification", HEADS["hidden"]), "seed": 1, "cache": cache}
    for each in (settings, settings | CHANGES[change]):
        frozen_features(base=tiny_base, spec=learn.spec, table=learn.train.table.slice(0, 8), **each)

    assert len(list(tmp_path.iterdir())) == 2


def test_features_that_are_not_finite_name_the_base(tiny_base, learn, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    model = tasks.load("text_classification").build_model(base, learn.spec)
    with torch.no_grad():
        model.base_model.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(BadModel, match=r"the base model model in .*/base gives NaN or infinite features for \d+ of \d+ vectors; choose"):
        features_of(model, tasks.load("text_classification"), base, learn.spec, learn.train.table, cache=FeatureCache(tmp_path / "cache"))

    assert not (tmp_path / "cache").exists()


def test_too_many_features_are_sampled_by_row(tiny_base, learn, caplog):
    table = learn.train.table
    most = {"most_mib": 100 * 32 * 4 / 2**20}
    with caplog.at_level("INFO"):
        model = tasks.load("text_classification").build_model(tiny_base, learn.spec)
        task = tasks.load("text_classification")
        sampled = features_of(model, task, tiny_base, learn.spec, table, **most)
        again = features_of(model, task, tiny_base, learn.spec, table.take(list(range(len(table)))[::-1]), **most)

    assert len(sampled.vectors) == 100 < len(table)
    assert sorted(again.rows.tolist()) == sorted((len(table) - 1 - sampled.rows).tolist())
    assert "rows are sampled, because all need too much memory" in caplog.text


@pytest.mark.parametrize(("first", "second"), [("mean", "last_four"), ("cls", "mean")])
def test_one_pass_gives_the_features_of_other_poolings(tiny_base, learn, tmp_path, monkeypatch, first, second):
    cache, tables = FeatureCache(tmp_path / "cache"), (tiny_base, learn.spec, learn.train.table)

    def features(pooling, cache):
        return frozen_features(tasks.load("text_classification", {"pooling": pooling}), *tables, seed=0, cache=cache).vectors

    features(first, cache)
    alone = features(second, None)
    monkeypatch.setattr(frozen_features_module, "_compute", None)

    assert features(second, cache).tobytes() == alone.tobytes()


def test_base_with_hidden_layers_of_different_lengths_has_no_last_four(tiny_base, learn, tmp_path, monkeypatch):
    cache, tables = FeatureCache(tmp_path / "cache"), (tiny_base, learn.spec, learn.train.table)
    monkeypatch.setattr(model_module, "_alike", lambda output: False)  # as of CANINE and Funnel

    frozen_features(tasks.load("text_classification", {"pooling": "mean"}), *tables, seed=0, cache=cache)

    assert len(list(cache.folder.iterdir())) == 1
    with pytest.raises(BadModel, match="hidden layers of the base model have different lengths; set"):
        frozen_features(tasks.load("text_classification", {"pooling": "last_four"}), *tables, seed=0, cache=cache)
