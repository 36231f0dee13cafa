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
    """A model folder as training writes it, with random weights that are large enough to disagree."""
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


def test_labels_are_numbered_in_sorted_order(tickets):
    assert task.labels_of(tickets.iloc[::-1]) == ("billing", "device", "network")


def test_encoding_cuts_long_texts_and_pads_none(tiny_base, tickets):
    table = task.encode(tickets.head(20), task.load_tokenizer(tiny_base), spec_of(*task.labels_of(tickets), max_length=6))

    assert table.column("length").to_pylist() == [6] * 20
    assert table.column("labels").to_pylist()[:4] == [0, 0, 0, 1]
    assert "attention_mask" not in table.column_names


def test_encoding_does_not_depend_on_what_was_encoded_before(tiny_base, tickets):
    tokenizer, spec = task.load_tokenizer(tiny_base), spec_of(*task.labels_of(tickets), max_length=8)
    first = task.encode(tickets.head(5), tokenizer, spec)
    lengths = task.lengths(tickets.head(5), tokenizer)

    assert (lengths == 10).all()
    assert task.encode(tickets.head(5), tokenizer, spec).equals(first)


def test_a_label_outside_the_map_is_named(tiny_base, tickets):
    with pytest.raises(BadData, match="'network'"):
        task.encode(tickets, task.load_tokenizer(tiny_base), spec_of("billing", "device"))


def test_the_model_knows_the_names_of_its_labels(tiny_base):
    config = task.build_model(tiny_base, spec_of("a", "b", "c")).config

    assert config.id2label == {0: "a", 1: "b", 2: "c"}
    assert config.label2id == {"a": 0, "b": 1, "c": 2}


def test_the_longest_input_is_that_of_model_and_tokenizer(tiny_base):
    assert task.longest_input(tiny_base, task.load_tokenizer(tiny_base)) == 64


def test_a_base_with_only_pickled_weights_is_refused(copied):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")

    with pytest.raises(BadModel, match=r"safetensors.*pytorch_model\.bin"):
        task.build_model(copied, spec_of("a", "b"))


def test_a_base_with_code_of_its_own_is_refused(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))

    with pytest.raises(BadModel, match="auto_map"):
        task.build_model(copied, spec_of("a", "b"))


def test_a_broken_weights_file_is_one_message(copied):
    (copied / "model.safetensors").write_bytes(b"not weights")

    with pytest.raises(BadModel, match="cannot be loaded"):
        task.build_model(copied, spec_of("a", "b"))


def test_a_tokenizer_without_a_padding_token_is_refused(copied):
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    (copied / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": None}))

    with pytest.raises(BadModel, match="no padding token"):
        task.load_tokenizer(copied)


def test_a_missing_base_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="is missing"):
        task.load_tokenizer(tmp_path / "nowhere")


def test_macro_f1_runs_over_every_label_and_an_absent_one_counts_nothing():
    outputs = np.array([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])

    assert task.validate(outputs, np.array([0, 0, 1, 1]), spec_of("a", "b", "c")) == pytest.approx({"macro_f1": 2 / 3, "accuracy": 1.0})


def test_padding_and_company_do_not_change_an_answer(saved, tickets):
    predictor = task.predictor(saved)
    texts = [*tickets["text"].head(12), "wifi", "invoice " * 200, "", "payment refund"]
    together = predictor.probabilities(texts, batch_size=16)
    alone = np.vstack([predictor.probabilities([text], batch_size=1) for text in texts])

    assert together.shape == (16, 3)
    assert np.ptp(together[:, 0]) > 0.01
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-9)


def test_the_order_of_the_texts_does_not_change_an_answer(saved, tickets):
    predictor = task.predictor(saved)
    texts = list(tickets["text"].head(20))

    np.testing.assert_allclose(predictor.probabilities(texts[::-1], batch_size=3)[::-1], predictor.probabilities(texts), atol=1e-4)


def test_raw_text_is_normalised_as_in_training(saved):
    answers = task.predictor(saved).probabilities(["wifi  slow\u200b\n", "wifi slow"])

    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


def test_no_texts_give_no_answers(saved):
    assert task.predictor(saved).probabilities([]).shape == (0, 3)


def test_a_model_folder_that_disagrees_with_its_labels_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    ModelSpec(task="text_classification", labels=("a", "b"), max_length=16, unicode_form="NFC").write(folder)

    with pytest.raises(BadModel, match="3 outputs"):
        task.predictor(folder)
