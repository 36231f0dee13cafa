"""Text classification with every model family and method: train, save, reload and predict."""

import json

import numpy as np
import pytest
import torch

from components.artifacts.training import ModelSpec
from components.core.errors import BadParams
from components.model import tasks
from components.model.support.layers import depths, head_depth
from components.training.train import save
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support.families import FAMILIES, make_family
from tests.support.fits import QUICK, same, weights
from tests.support.labelled import paired
from tests.support.learn import make_learn
from tests.support.tickets import WORDS

pytestmark = pytest.mark.exhaustive

single = tasks.load("text_classification")
METHODS = {"full": {}, "freeze": {"method": "freeze", "frozen_layers": 1}, "lora": {"method": "lora"}}
STEPS = QUICK.model_copy(update={"epochs": 1, "evaluations_per_epoch": 1})


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {family: make_family(tmp_path_factory.mktemp(family), family, WORDS) for family in FAMILIES}


@pytest.fixture(scope="module")
def folders(bases, tickets, tmp_path_factory):
    """Return the prepared splits of each family."""
    splits = {}
    for family, base in bases.items():
        splits[family] = PreparedSplits.read(make_learn(tmp_path_factory.mktemp("learn") / family, base, tickets.head(112), validation=16))
    return splits


def saved(model, base, spec, folder, task=single):
    class Done:
        pass

    done = Done()
    done.model = model
    return save(done, task, base, spec, folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_depths_of_every_family(bases, folders, family):
    model = single.build_model(bases[family], folders[family].spec)
    depth, layers = depths(model), 4 if family in ("bart", "t5") else 2

    assert head_depth(model) == layers + 1
    assert set(depth.values()) == set(range(layers + 2))
    assert {name for name, level in depth.items() if level == 0} >= {name for name in depth if "_embeddings." in name or "shared" in name}
    assert sum(level == 0 for level in depth.values()) < 12
    assert all(level == layers + 1 for name, level in depth.items() if "classif" in name or "score" in name or "logits_proj" in name)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_and_reloads(bases, folders, tickets, tmp_path, family, method):
    base, learn = bases[family], folders[family]
    trained = fit(single, base, learn, STEPS.model_copy(update=METHODS[method]))
    folder = saved(trained.model, base, learn.spec, tmp_path / "model")
    predictor, rows = single.predictor(folder), tickets.iloc[112:132]
    answers = predictor.answer(rows)
    again = single.build_model(folder, learn.spec)  # a base for the next training
    batch = single.collator(single.load_tokenizer(folder), learn.spec)([learn.validation[index] for index in range(5)])

    assert not list(folder.glob("*.bin"))
    assert np.ptp(answers.probabilities[:, 0]) > 1e-5
    with torch.no_grad():
        assert torch.equal(again.eval()(**batch).logits, trained.model.eval()(**batch).logits)
    texts = [*rows["text"], "", "wifi", "invoice </s> refund <|endoftext|>", "payment " * 70]
    together = predictor.probabilities(texts, batch_size=24)
    alone = np.vstack([predictor.probabilities([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("family", ["xlnet", "gpt2", "llama", "bart"])
def test_same_seed_gives_same_weights(bases, folders, family):
    first, second = (weights(fit(single, bases[family], folders[family], STEPS).model) for _ in range(2))

    assert same(first, second)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_pairs(bases, tickets, family):
    task = tasks.load("text_classification", {"pair": True})
    rows, tokenizer = task.read(paired(tickets.head(6)))[0], task.load_tokenizer(bases[family])
    spec = ModelSpec(
        task="text_classification", labels=task.labels_of(rows), max_length=16, unicode_form="NFC", options=task.options.model_dump()
    )
    rows.loc[3, "text_a"] = ""
    table = task.encode(rows, tokenizer, spec)
    model = task.build_model(bases[family], spec).eval()
    collate = task.collator(tokenizer, spec)
    encoded = [{name: table.column(name)[index].as_py() for name in table.column_names if name != "length"} for index in range(6)]

    with torch.no_grad():
        together = model(**collate(encoded)).logits
        alone = torch.cat([model(**collate([row])).logits for row in encoded])
    assert torch.allclose(together, alone, atol=1e-4)
    assert ("token_type_ids" in table.column_names) == (family in ("bert", "electra", "deberta", "xlnet"))


def test_language_model_pads_with_its_end_token(bases, folders):
    tokenizer = single.load_tokenizer(bases["gpt2"])

    assert json.loads((bases["gpt2"] / "config.json").read_text()).get("pad_token_id") is None
    assert tokenizer.pad_token == "<|endoftext|>"
    assert single.build_model(bases["gpt2"], folders["gpt2"].spec).config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("head", [{"pooling": "mean"}, {"pooling": "max", "head_hidden": 24}, {"head_dropout": 0.0, "head_hidden": 16}])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("bart", "t5")])
def test_custom_head_fits_every_encoder_and_decoder(bases, tickets, tmp_path, family, head):
    task = tasks.load("text_classification", head)
    base = bases[family]
    learn = PreparedSplits.read(make_learn(tmp_path / "learn", base, tickets.head(64), validation=16, options=head))
    method = METHODS["lora" if "head_hidden" in head else "full"]
    trained = fit(task, base, learn, STEPS.model_copy(update=method))
    folder = saved(trained.model, base, learn.spec, tmp_path / "model", task)
    predictor = task.predictor(folder)
    batch = task.collator(task.load_tokenizer(folder), learn.spec)([learn.validation[index] for index in range(5)])

    with torch.no_grad():
        expected = trained.model.eval()(**batch).logits
        assert torch.equal(predictor._model(**batch).logits, expected)
        assert torch.equal(task.build_model(folder, learn.spec).eval()(**batch).logits, expected)
    texts = [*tickets["text"].iloc[64:76], "wifi", "payment " * 70]
    alone = np.vstack([predictor.probabilities([text]) for text in texts])
    np.testing.assert_allclose(predictor.probabilities(texts), alone, atol=1e-4)
    assert head_depth(trained.model) == 3
    assert {name for name, level in depths(trained.model).items() if name.startswith("head.")} >= {"head.out.weight", "head.out.bias"}


def test_model_with_custom_head_is_a_base(bases, folders, tmp_path):
    headed = tasks.load("text_classification", {"pooling": "mean"})
    spec = folders["bert"].spec
    model = headed.build_model(bases["bert"], spec)
    folder = saved(model, bases["bert"], spec, tmp_path / "model", headed)
    plain = single.build_model(folder, spec)
    plain.save_pretrained(tmp_path / "plain")

    assert type(plain).__name__ == "BertForSequenceClassification"
    assert all(torch.equal(tensor, plain.bert.state_dict()[name]) for name, tensor in model.bert.state_dict().items())
    assert not json.loads((tmp_path / "plain" / "config.json").read_text()).get("retune_head")


def test_unsupported_head_is_rejected(bases, folders):
    for family, head, match in [
        ("gpt2", {"pooling": "cls"}, "the first token of gpt2 sees no other token"),
        ("bart", {"pooling": "mean"}, "do not support the encoder-decoder bart"),
    ]:
        with pytest.raises(BadParams, match=match):
            tasks.load("text_classification", head).build_model(bases[family], folders[family].spec)


def test_pooling_ignores_masked_tokens():
    from components.model.tasks.text_classification.model import pooled

    tokens = torch.tensor([[[1.0], [5.0], [9.0], [3.0]], [[7.0], [2.0], [4.0], [8.0]]])
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])

    assert pooled(tokens, mask, "mean").squeeze().tolist() == [3.0, 6.0]
    assert pooled(tokens, mask, "max").squeeze().tolist() == [5.0, 8.0]
    assert pooled(tokens, mask, "cls").squeeze().tolist() == [1.0, 4.0]
    assert pooled(tokens, mask, "last").squeeze().tolist() == [5.0, 8.0]


def test_dropout_and_head_dropout_conflict(bases, folders, tickets):
    task = tasks.load("text_classification", {"head_dropout": 0.2})

    with pytest.raises(BadParams, match=r"train\.dropout is set.*head_dropout"):
        fit(task, bases["bert"], folders["bert"], STEPS.model_copy(update={"dropout": 0.1}))
    assert task.build_model(bases["bert"], folders["bert"].spec).head.dropout.p == 0.2
