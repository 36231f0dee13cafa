"""Folders in hub layout, tokenizer and all, of every family that tags: each is loaded, trained for some steps and found again."""

import json

import pandas as pd
import pytest
import tokenizers as tk
import torch
import transformers as t

from components.artifacts.training import ModelSpec
from components.model import tasks
from components.training.trainer.data import Encoded, PreparedSplits
from components.training.trainer.fit import fit
from tests.support.fits import QUICK, keep_in

pytestmark = pytest.mark.exhaustive

SENTENCES = [
    (["Ada", "Lovelace", "met", "Charles", "."], ["B-PER", "I-PER", "O", "B-PER", "O"]),
    (["London", "is", "(", "still", ")", "a", "town"], ["B-LOC", "O", "O", "O", "O", "O", "O"]),
    (["", "Grace", "Hopper's", "\u200b", "London"], ["O", "B-PER", "I-PER", "O", "B-LOC"]),
    (["Charles"], ["B-PER"]),
] * 8
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 40}


def trained(model, pre_tokenizer, trainer, **settings):
    """A tokenizer learnt from the sentences, with [CLS] and [SEP] around a text."""
    tokenizer = tk.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator([" ".join(words) for words, _ in SENTENCES], trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    single = "$A [SEP] [CLS]" if settings.get("padding_side") == "left" else "[CLS] $A [SEP]"  # XLNet's come last
    tokenizer.post_processor = tk.processors.TemplateProcessing(single=single, special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=36, **names, **settings)


def word_pieces():
    return trained(
        tk.models.WordPiece(unk_token="[UNK]"),
        tk.pre_tokenizers.BertPreTokenizer(),
        tk.trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL),
    )


def bytes_():
    alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
    trainer = tk.trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)
    return trained(tk.models.BPE(), tk.pre_tokenizers.ByteLevel(add_prefix_space=False), trainer)


def unigrams(**settings):
    trainer = tk.trainers.UnigramTrainer(vocab_size=80, special_tokens=SPECIAL, unk_token="[UNK]")
    return trained(tk.models.Unigram(), tk.pre_tokenizers.Metaspace(), trainer, **settings)


FAMILIES = {
    "bert": lambda: (word_pieces(), lambda size: t.BertModel(t.BertConfig(vocab_size=size, **SMALL))),
    "distilbert": lambda: (
        word_pieces(),
        lambda size: t.DistilBertModel(t.DistilBertConfig(vocab_size=size, dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
    ),
    "electra": lambda: (word_pieces(), lambda size: t.ElectraModel(t.ElectraConfig(vocab_size=size, embedding_size=16, **SMALL))),
    "roberta": lambda: (bytes_(), lambda size: t.RobertaModel(t.RobertaConfig(vocab_size=size, pad_token_id=0, **SMALL))),
    "modernbert": lambda: (bytes_(), lambda size: t.ModernBertModel(t.ModernBertConfig(vocab_size=size, pad_token_id=0, **SMALL))),
    "deberta": lambda: (unigrams(), lambda size: t.DebertaV2Model(t.DebertaV2Config(vocab_size=size, **SMALL))),
    "xlnet": lambda: (
        unigrams(padding_side="left"),
        lambda size: t.XLNetModel(t.XLNetConfig(vocab_size=size, d_model=32, n_layer=2, n_head=2, d_inner=64, pad_token_id=0)),
    ),
}


@pytest.fixture(params=FAMILIES)
def base(request, tmp_path):
    tokenizer, model = FAMILIES[request.param]()
    tokenizer.save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    model(len(tokenizer)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture(scope="module")
def rows():
    cells = [{"tokens": json.dumps(words), "tags": json.dumps(tags)} for words, tags in SENTENCES]
    return tasks.load("token_classification").read(pd.DataFrame(cells, dtype="str"))[0]


@pytest.mark.parametrize("head", ["linear", "crf"])
def test_family_trains_and_reloads(base, rows, tmp_path, head):
    kind = tasks.load("token_classification", {"head": head})
    tokenizer = kind.load_tokenizer(base)
    options = kind.options.model_dump()
    spec = ModelSpec(task="token_classification", labels=kind.labels_of(rows), max_length=32, unicode_form="NFC", options=options)
    learn = PreparedSplits(spec, Encoded(kind.encode(rows, tokenizer, spec)), Encoded(kind.encode(rows[:8], tokenizer, spec)))
    settings = QUICK.model_copy(update={"metric": "entity_f1", "epochs": 8, "batch_size": 8, "evaluations_per_epoch": 1})
    found = fit(kind, base, learn, settings, keep=keep_in(tmp_path / "kept"))  # returns the weights that had the best value
    found.model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    spec.write(tmp_path / "model")
    answered = kind.predictor(tmp_path / "model").answer(rows[["tokens"]])
    measured = kind.statistics(rows["label"].tolist(), answered.predicted)

    assert found.best_value > 0.5
    assert kind.longest_input(base, tokenizer) == 36
    assert [len(answer.split()) for answer in answered.predicted] == [len(words) for words, _ in SENTENCES]
    assert kind.test_metrics["entity_f1"].of(measured) == pytest.approx(found.best_value)
    alone = [kind.predictor(tmp_path / "model").answer(rows[["tokens"]].iloc[[place]]).predicted[0] for place in range(4)]
    assert alone == answered.predicted[:4]
