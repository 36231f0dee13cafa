"""A sentence-transformers base is used as its files define (pooling, dense layers, prompts); sentence-transformers is the oracle."""

import json
import logging
import warnings

import numpy as np
import pytest
import torch

from components.artifacts.training import ModelSpec
from components.core.errors import BadModel
from components.data.base_model import BaseParams, pin_base
from components.model import tasks
from components.model.tasks.contrastive.embedding import TextEmbedder
from tests.support import tiny_generators
from tests.support.encoders import make_encoder
from tests.support.labelled import predict_baselines

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.fixture(scope="module")
def sentence():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sentence_transformers
        import sentence_transformers.sentence_transformer.modules as modules
    return sentence_transformers.SentenceTransformer, modules


@pytest.fixture(scope="module")
def encoder(tickets, tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder"), "bert", tickets["text"].tolist())


def spec(**options):
    full = tasks.load("contrastive", options).options.model_dump(mode="json")
    return ModelSpec(task="contrastive", labels=(), max_length=64, unicode_form="NFC", options=full)


def made(sentence, encoder, folder, pooling="mean", after=(), **settings):
    """Save a folder with sentence-transformers, and pin it."""
    model_class, modules = sentence
    torch.manual_seed(1)
    parts = [modules.Transformer(str(encoder)), modules.Pooling(32, pooling), *(make(modules) for make in after)]
    model = model_class(modules=parts, device="cpu", **settings)
    model.save(str(folder / "model"))
    pin_base(folder, folder / "base", base=BaseParams(model="model"))
    return model.eval(), folder / "base"


def vectors(base, texts, **options):
    task = tasks.load("contrastive", options)
    return TextEmbedder(task.build_model(base, spec(**options)), task.load_tokenizer(base), spec(**options)).embed(texts)


def cosines(first, second):
    first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (np.asarray(first), np.asarray(second)))
    return (first * second).sum(axis=1)


@pytest.mark.parametrize("pooling", [*MODES, ("cls", "mean")])
def test_pooling_is_that_of_the_folder(sentence, encoder, tickets, tmp_path, pooling):
    model, base = made(sentence, encoder, tmp_path, pooling)
    texts = tickets["text"].tolist()[:6]

    np.testing.assert_allclose(cosines(vectors(base, texts), model.encode(texts)), 1, atol=1e-5)


def test_pooling_flags_of_old_folders_work(sentence, encoder, tickets, tmp_path):
    model, _ = made(sentence, encoder, tmp_path, "cls")
    flags = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "model/1_Pooling/config.json").write_text(json.dumps(flags))
    pin_base(tmp_path, tmp_path / "base", base=BaseParams(model="model"))
    texts = tickets["text"].tolist()[:6]

    np.testing.assert_allclose(cosines(vectors(tmp_path / "base", texts), model.encode(texts)), 1, atol=1e-5)


def dense(modules):
    return modules.Dense(32, 12, activation_function=torch.nn.Tanh())


def plain(modules):
    return modules.Dense(32, 8, bias=False, activation_function=torch.nn.Identity())


def normalize(modules):
    return modules.Normalize()


@pytest.mark.parametrize("after", [(dense,), (normalize, plain), (dense, normalize)])
def test_modules_after_the_pooling_are_kept(sentence, encoder, tickets, tmp_path, after):
    model, base = made(sentence, encoder, tmp_path, "mean", after)
    texts = tickets["text"].tolist()[:6]

    np.testing.assert_allclose(cosines(vectors(base, texts), model.encode(texts)), 1, atol=1e-5)


def test_saved_model_keeps_its_config(sentence, encoder, tickets, tmp_path):
    model, base = made(sentence, encoder, tmp_path, "lasttoken", (dense,), prompts={"q": "find "}, default_prompt_name="q")
    task, texts = tasks.load("contrastive"), tickets["text"].tolist()[:6]
    task.build_model(base, spec()).save_pretrained(tmp_path / "saved")
    task.load_tokenizer(base).save_pretrained(tmp_path / "saved")
    spec().write(tmp_path / "saved")
    opened = sentence[0](str(tmp_path / "saved"), device="cpu", local_files_only=True)

    vectors = task.predictor(tmp_path / "saved").embed(texts)
    np.testing.assert_allclose(cosines(vectors, model.encode(texts)), 1, atol=1e-5)
    np.testing.assert_allclose(cosines(vectors, opened.encode(texts)), 1, atol=1e-5)


def test_default_prompt_is_used(sentence, encoder, tickets, tmp_path, caplog):
    caplog.set_level(logging.INFO, "components.model.tasks")
    prompts = {"q": "help with ", "other": "say "}
    model, base = made(sentence, encoder, tmp_path, prompts=prompts, default_prompt_name="q")
    texts = tickets["text"].tolist()[:6]
    task = tasks.load("contrastive")
    rows, _ = task.read(tickets[:2].assign(anchor=texts[:2], positive=texts[2:4]))
    tokenizer = task.load_tokenizer(base)

    np.testing.assert_allclose(cosines(vectors(base, texts), model.encode(texts)), 1, atol=1e-5)
    assert tokenizer.decode(task.encode(rows, tokenizer, spec())["input_ids"][0].as_py()[0]).startswith("[CLS] help with ")
    assert task.lengths(rows, tokenizer)[0] == len(tokenizer("help with " + texts[0])["input_ids"])
    assert any("the prompts other of the base are not used" in record.getMessage() for record in caplog.records)


def test_option_wins_and_is_logged(sentence, encoder, tickets, tmp_path, caplog):
    caplog.set_level(logging.INFO, "components.model.tasks")
    _, base = made(sentence, encoder, tmp_path, "cls")
    mean, _ = made(sentence, encoder, tmp_path / "other", "mean")
    texts = tickets["text"].tolist()[:6]

    np.testing.assert_allclose(cosines(vectors(base, texts, pooling="mean"), mean.encode(texts)), 1, atol=1e-5)
    assert "using pooling mean from task_options.pooling instead of cls of the base" in caplog.messages


def test_baseline_respects_the_maximum_length(sentence, encoder, tickets, tmp_path):
    model, base = made(sentence, encoder, tmp_path)
    settings = json.loads((base / "sentence_bert_config.json").read_text())
    (base / "sentence_bert_config.json").write_text(json.dumps(settings | {"max_seq_length": 6}))
    model.max_seq_length = 6
    task = tasks.load("contrastive")
    texts = tickets["text"].tolist()
    rows, _ = task.read(tickets[:8].assign(anchor=texts[:8], positive=texts[8:16]))
    baseline = predict_baselines(task, rows, rows, spec(), base)["base"]

    np.testing.assert_allclose(cosines([json.loads(vector) for vector in baseline.predicted], model.encode(texts[:8])), 1, atol=1e-4)


def test_only_the_t5_encoder_is_used(sentence, tickets, tmp_path):
    tiny_generators.make_t5(tmp_path / "t5", tickets["text"].tolist())
    model, base = made(sentence, tmp_path / "t5", tmp_path, "mean", (dense,))
    texts = tickets["text"].tolist()[:6]

    np.testing.assert_allclose(cosines(vectors(base, texts), model.encode(texts)), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ({"type": "own.modules.Router", "path": "2_Router"}, "has Router; contrastive supports Transformer, Pooling, Dense, Normalize"),
        ({"type": "sentence_transformers.models.Dense", "path": "2_Dense"}, "2_Dense has no model.safetensors"),
        ({"type": "sentence_transformers.models.Dense", "path": "../other"}, "names '../other'; expected a folder next to it"),
    ],
)
def test_unsupported_module_is_refused(sentence, encoder, tmp_path, module, message):
    _, base = made(sentence, encoder, tmp_path)
    listed = json.loads((base / "modules.json").read_text())
    (base / "modules.json").write_text(json.dumps([*listed, {"idx": 2, "name": "2", **module}]))

    with pytest.raises(BadModel, match=message):
        tasks.load("contrastive").build_model(base, spec())


def test_missing_pooling_config_is_refused(sentence, encoder, tmp_path):
    _, base = made(sentence, encoder, tmp_path, "cls")
    (base / "1_Pooling/config.json").unlink()

    with pytest.raises(BadModel, match=r"lists the pooling 1_Pooling, but .*1_Pooling/config\.json is missing"):
        tasks.load("contrastive").build_model(base, spec())
