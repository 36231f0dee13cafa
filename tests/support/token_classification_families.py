"""Random two-layer encoders of each family that tags words, with tokenizers trained on the texts, in hub layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers as tk
import torch
import transformers as t

from tests.support.tiny import SPECIAL

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 40}


def _trained(texts: Sequence[str], model: Any, pre_tokenizer: Any, trainer: Any, **settings: Any) -> t.PreTrainedTokenizerFast:
    """Return a tokenizer trained on the texts, with [CLS] and [SEP] around a text."""
    tokenizer = tk.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    single = "$A [SEP] [CLS]" if settings.get("padding_side") == "left" else "[CLS] $A [SEP]"  # XLNet's come last
    tokenizer.post_processor = tk.processors.TemplateProcessing(single=single, special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=36, **names, **settings)


def _word_pieces(texts: Sequence[str]) -> t.PreTrainedTokenizerFast:
    return _trained(
        texts,
        tk.models.WordPiece(unk_token="[UNK]"),
        tk.pre_tokenizers.BertPreTokenizer(),
        tk.trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL),
    )


def _bytes(texts: Sequence[str]) -> t.PreTrainedTokenizerFast:
    alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
    trainer = tk.trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)
    return _trained(texts, tk.models.BPE(), tk.pre_tokenizers.ByteLevel(add_prefix_space=False), trainer)


def _unigrams(texts: Sequence[str], **settings: Any) -> t.PreTrainedTokenizerFast:
    trainer = tk.trainers.UnigramTrainer(vocab_size=80, special_tokens=SPECIAL, unk_token="[UNK]")
    return _trained(texts, tk.models.Unigram(), tk.pre_tokenizers.Metaspace(), trainer, **settings)


FAMILIES = {
    "bert": lambda texts: (_word_pieces(texts), lambda size: t.BertModel(t.BertConfig(vocab_size=size, **_SMALL))),
    "distilbert": lambda texts: (
        _word_pieces(texts),
        lambda size: t.DistilBertModel(t.DistilBertConfig(vocab_size=size, dim=32, n_layers=2, n_heads=2, hidden_dim=64)),
    ),
    "electra": lambda texts: (
        _word_pieces(texts),
        lambda size: t.ElectraModel(t.ElectraConfig(vocab_size=size, embedding_size=16, **_SMALL)),
    ),
    "roberta": lambda texts: (_bytes(texts), lambda size: t.RobertaModel(t.RobertaConfig(vocab_size=size, pad_token_id=0, **_SMALL))),
    "modernbert": lambda texts: (
        _bytes(texts),
        lambda size: t.ModernBertModel(t.ModernBertConfig(vocab_size=size, pad_token_id=0, **_SMALL)),
    ),
    "deberta": lambda texts: (_unigrams(texts), lambda size: t.DebertaV2Model(t.DebertaV2Config(vocab_size=size, **_SMALL))),
    "xlnet": lambda texts: (
        _unigrams(texts, padding_side="left"),
        lambda size: t.XLNetModel(t.XLNetConfig(vocab_size=size, d_model=32, n_layer=2, n_head=2, d_inner=64, pad_token_id=0)),
    ),
}


def make_family(folder: Path, family: str, texts: Sequence[str]) -> Path:
    """Write config, weights and tokenizer of `family` over `texts` into `folder`."""
    tokenizer, model = FAMILIES[family](texts)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model(len(tokenizer)).save_pretrained(folder)
    return folder
