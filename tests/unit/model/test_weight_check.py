"""All weights except the head's must be in the base's file; every task refuses missing ones by name."""

import json
import logging
import shutil

import pytest
import safetensors.torch
import torch
import transformers

from components.artifacts.training import ModelSpec
from components.core.errors import BadModel
from components.data.base_model import BaseParams, pin_base
from components.model import tasks
from components.model.support import pretrained
from tests.support.tiny_generators import make_marian, make_t5

TASKS = {
    "text_classification": {},
    "text_classification pooled": {"pooling": "mean"},
    "token_classification": {},
    "token_classification crf": {"head": "crf"},
    "question_answering": {},
    "masked_lm": {},
    "contrastive": {},
    "sequence_to_sequence": {"max_target_length": 16, "max_new_tokens": 12},
}


def build(name, folder):
    task = tasks.load(name.split()[0], TASKS[name])
    options = task.options.model_dump(mode="json")
    return task.build_model(folder, ModelSpec(task=name, labels=("O", "B-X", "I-X"), max_length=32, unicode_form="NFC", options=options))


@pytest.fixture
def model(tmp_path, tiny_base):
    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("manifest.json"))
    return folder


def rewritten(folder, change):
    """Replace the tensors by the result of `change`."""
    path = folder / "model.safetensors"
    tensors = change(safetensors.torch.load_file(path))
    safetensors.torch.save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    return folder


def configured(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def without(*parts):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)}


DAMAGES = {
    "empty": (lambda folder: rewritten(folder, lambda _: {}), "lacks 37 tensors"),
    "half": (lambda folder: rewritten(folder, lambda tensors: dict(list(tensors.items())[::2])), "lacks"),
    "renamed": (lambda folder: rewritten(folder, lambda tensors: {f"x.{name}": tensor for name, tensor in tensors.items()}), "lacks"),
    "one": (lambda folder: rewritten(folder, without("layer.1.output.dense.bias")), "lacks 1 tensor: .*layer.1.output.dense.bias"),
    "more layers": (lambda folder: configured(folder, num_hidden_layers=3), "lacks 16 tensors: .*layer.2"),
    "fewer layers": (lambda folder: configured(folder, num_hidden_layers=1), "in layers beyond config.json, 16 tensors"),
    "vocabulary": (
        lambda folder: configured(folder, vocab_size=500),
        r"wrong shape for 1 tensor: .*word_embeddings|size mismatch|ignore_mism",
    ),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_incomplete_base_is_not_pinned(tmp_path, model, how):
    damage, message = DAMAGES[how]
    damage(model)

    with pytest.raises(BadModel, match=message):
        pin_base(tmp_path, tmp_path / "base", base=BaseParams(model="model"))
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("how", ["renamed", "one", "more layers", "fewer layers"])
def test_every_task_refuses_missing_weights(model, name, how):
    damage, message = DAMAGES[how]

    with pytest.raises(BadModel, match=message):
        build(name, damage(model))


@pytest.mark.parametrize("name", TASKS)
def test_missing_pooler_is_accepted(model, name):
    assert build(name, rewritten(model, without("pooler"))) is not None


def test_weights_drawn_at_random_are_logged(model, caplog):
    caplog.set_level(logging.INFO, "components.model.support")
    build("text_classification", rewritten(model, without("pooler")))

    assert any(record.getMessage().endswith("lacks bert.pooler.dense, classifier: initialised randomly") for record in caplog.records)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinite_weights_are_refused(tmp_path, model, value):
    def damaged(tensors):
        tensors["encoder.layer.0.output.dense.bias"][3] = value
        return tensors

    rewritten(model, damaged)
    with pytest.raises(
        BadModel, match=r"base.model model: model.safetensors has NaN or infinite .*1 of \d+ tensors: encoder.layer.0.output"
    ):
        pin_base(tmp_path, tmp_path / "base", base=BaseParams(model="model"))


@pytest.mark.parametrize("tied", [True, False])
def test_language_model_needs_its_untied_output_layer(tmp_path, tied):
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=tied))
    made.save_pretrained(tmp_path)
    rewritten(tmp_path, without("lm_head"))

    if tied:
        loaded = pretrained.load_model("AutoModelForCausalLM", tmp_path, head=False)
        assert torch.equal(loaded.lm_head.weight, made.model.embed_tokens.weight)
    else:
        with pytest.raises(BadModel, match=r"lacks 1 tensor: lm_head\.weight"):
            pretrained.load_model("AutoModelForCausalLM", tmp_path, head=False)


def test_trained_model_without_its_head_is_refused(tmp_path, tiny_base):
    shutil.copytree(tiny_base, tmp_path / "model")
    transformers.BertForSequenceClassification.from_pretrained(tiny_base, num_labels=2).save_pretrained(tmp_path / "model")
    rewritten(tmp_path / "model", without("classifier"))
    options = tasks.load("text_classification").options.model_dump(mode="json")
    ModelSpec(task="text_classification", labels=("a", "b"), max_length=16, unicode_form="NFC", options=options).write(tmp_path / "model")

    with pytest.raises(BadModel, match=r"lacks 2 tensors: classifier.bias, classifier.weight"):
        tasks.load("text_classification").predictor(tmp_path / "model")


@pytest.mark.parametrize("made", ["BertForMaskedLM", "BertForPreTraining", "BertForTokenClassification", "BertLMHeadModel"])
@pytest.mark.parametrize("name", ["text_classification", "masked_lm", "contrastive"])
def test_model_with_a_different_head_is_complete(tmp_path, tiny_base, name, made):
    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("manifest.json"))
    torch.manual_seed(0)
    getattr(transformers, made).from_pretrained(tiny_base).save_pretrained(folder)

    assert pin_base(tmp_path, tmp_path / "base", base=BaseParams(model="model")).parts
    assert build(name, tmp_path / "base") is not None


def test_encoder_decoder_tagger_is_complete(tmp_path):
    folder, task = make_t5(tmp_path, ["a dog ran"]), tasks.load("token_classification", {"head": "crf"})
    options = task.options.model_dump(mode="json")
    task.build_model(folder, ModelSpec(task="any", labels=("O", "B-X"), max_length=8, unicode_form="NFC", options=options)).save_pretrained(
        folder
    )

    pretrained.refuse_unloadable(folder)  # its own class has no decoder
    assert not any(name.startswith("decoder.") for name in safetensors.torch.load_file(folder / "model.safetensors"))
    with pytest.raises(BadModel, match=r"lacks 1 tensor: .*encoder\.block\.1\.layer\.1\.DenseReluDense\.wo\.weight"):
        pretrained.refuse_unloadable(rewritten(folder, without("encoder.block.1.layer.1.DenseReluDense.wo")))


def test_translator_without_architecture_is_complete(tmp_path):
    folder = configured(make_marian(tmp_path, ["a dog ran"]), architectures=None)

    pretrained.refuse_unloadable(folder)
    assert not any("embed_positions" in name for name in safetensors.torch.load_file(folder / "model.safetensors"))  # sinusoids
    with pytest.raises(BadModel, match=r"lacks 1 tensor: .*decoder\.layers\.1\.fc2\.bias"):
        pretrained.refuse_unloadable(rewritten(folder, without("decoder.layers.1.fc2.bias")))
