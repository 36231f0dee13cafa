import json
import shutil

import numpy as np
import pytest

from components.artifacts.training import ModelSpec
from components.core.errors import BadData, BadModel, NotFound
from components.model import tasks
from tests.support.learn import spec_of

task = tasks.load("text_classification")


@pytest.fixture(scope="module")
def saved(tiny_base, tickets, tmp_path_factory):
    """Return a model folder with large random weights, so that answers differ."""
    import torch

    folder = tmp_path_factory.mktemp("model")
    labels = task.labels_of(tickets)
    torch.manual_seed(3)
    model = task.build_model(tiny_base, spec_of(*labels))
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(4)
    model.save_pretrained(folder)
    task.load_tokenizer(tiny_base).save_pretrained(folder)
    ModelSpec(task="text_classification", labels=labels, max_length=16, unicode_form="NFC").write(folder)
    return folder


@pytest.fixture
def copied(tiny_base, tmp_path):
    return shutil.copytree(tiny_base, tmp_path / "base")


def test_labels_are_sorted(tickets):
    assert task.labels_of(tickets.iloc[::-1]) == ("billing", "device", "network")


def test_encoding_truncates_without_padding(tiny_base, tickets):
    table = task.encode(tickets.head(20), task.load_tokenizer(tiny_base), spec_of(*task.labels_of(tickets), max_length=6))

    assert table.column("length").to_pylist() == [6] * 20
    assert table.column("labels").to_pylist()[:4] == [0, 0, 0, 1]
    assert "attention_mask" not in table.column_names


def test_encoding_is_stateless(tiny_base, tickets):
    tokenizer, spec = task.load_tokenizer(tiny_base), spec_of(*task.labels_of(tickets), max_length=8)
    first = task.encode(tickets.head(5), tokenizer, spec)
    lengths = task.lengths(tickets.head(5), tokenizer)

    assert (lengths == 10).all()
    assert task.encode(tickets.head(5), tokenizer, spec).equals(first)


def test_unknown_label_is_rejected(tiny_base, tickets):
    with pytest.raises(BadData, match="'network'"):
        task.encode(tickets, task.load_tokenizer(tiny_base), spec_of("billing", "device"))


def test_config_names_the_labels(tiny_base):
    config = task.build_model(tiny_base, spec_of("a", "b", "c")).config

    assert config.id2label == {0: "a", 1: "b", 2: "c"}
    assert config.label2id == {"a": 0, "b": 1, "c": 2}


def test_longest_input_of_model_and_tokenizer(tiny_base):
    assert task.longest_input(tiny_base, task.load_tokenizer(tiny_base)) == 64


def test_base_with_only_pickled_weights_is_rejected(copied):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")

    with pytest.raises(BadModel, match=r"safetensors.*pytorch_model\.bin"):
        task.build_model(copied, spec_of("a", "b"))


def test_base_with_custom_code_is_rejected(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))

    with pytest.raises(BadModel, match="auto_map"):
        task.build_model(copied, spec_of("a", "b"))


def test_broken_weights_file_is_rejected(copied):
    (copied / "model.safetensors").write_bytes(b"not weights")

    with pytest.raises(BadModel, match="cannot be loaded"):
        task.build_model(copied, spec_of("a", "b"))


def test_tokenizer_without_padding_token_is_rejected(copied):
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    (copied / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": None}))

    with pytest.raises(BadModel, match="no padding token"):
        task.load_tokenizer(copied)


def test_missing_base_is_rejected(tmp_path):
    with pytest.raises(NotFound, match="is missing"):
        task.load_tokenizer(tmp_path / "nowhere")


def test_macro_f1_includes_absent_labels():
    outputs = np.array([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])

    assert task.validate(outputs, np.array([0, 0, 1, 1]), spec_of("a", "b", "c")) == pytest.approx({"macro_f1": 2 / 3, "accuracy": 1.0})


def test_answers_do_not_depend_on_batching(saved, tickets):
    predictor = task.predictor(saved)
    texts = [*tickets["text"].head(12), "wifi", "invoice " * 200, "", "payment refund"]
    together = predictor.probabilities(texts, batch_size=16)
    alone = np.vstack([predictor.probabilities([text], batch_size=1) for text in texts])

    assert together.shape == (16, 3)
    assert np.ptp(together[:, 0]) > 0.01
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-9)


def test_answers_do_not_depend_on_order(saved, tickets):
    predictor = task.predictor(saved)
    texts = list(tickets["text"].head(20))

    np.testing.assert_allclose(predictor.probabilities(texts[::-1], batch_size=3)[::-1], predictor.probabilities(texts), atol=1e-4)


def test_raw_text_is_normalised(saved):
    answers = task.predictor(saved).probabilities(["wifi  slow\u200b\n", "wifi slow"])

    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


def test_empty_input_gives_empty_output(saved):
    assert task.predictor(saved).probabilities([]).shape == (0, 3)


def test_label_count_mismatch_is_rejected(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    ModelSpec(task="text_classification", labels=("a", "b"), max_length=16, unicode_form="NFC").write(folder)

    with pytest.raises(BadModel, match="3 outputs"):
        task.predictor(folder)
