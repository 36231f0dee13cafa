"""Random two-layer encoders of several families with the tokenizer type of the family, in hub layout."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers as t
from tokenizers import ByteLevelBPETokenizer
from transformers import BertTokenizerFast, RobertaTokenizerFast

from tests.support.tiny import SPECIAL

FAMILIES = ("bert", "distilbert", "electra", "roberta", "mpnet")

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}


def make_encoder(folder: Path, family: str, texts: Sequence[str], *, dropout: float = 0.1) -> Path:
    """Write a `family` encoder for the words of `texts`; large weights make predictions depend on the words."""
    tokenizer = _byte_pairs(texts) if family == "roberta" else _word_pieces(texts)
    tokenizer.save_pretrained(folder)
    size, pad = len(tokenizer), tokenizer.pad_token_id
    drops = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    torch.manual_seed(0)
    model = {
        "bert": lambda: t.BertModel(t.BertConfig(vocab_size=size, **_SMALL, **drops)),
        "electra": lambda: t.ElectraModel(t.ElectraConfig(vocab_size=size, embedding_size=16, **_SMALL, **drops)),
        "roberta": lambda: t.RobertaModel(t.RobertaConfig(vocab_size=size, pad_token_id=pad, **_SMALL | {"max_position_embeddings": 68})),
        "mpnet": lambda: t.MPNetModel(t.MPNetConfig(vocab_size=size, pad_token_id=pad, **_SMALL | {"max_position_embeddings": 68})),
        "distilbert": lambda: t.DistilBertModel(
            t.DistilBertConfig(vocab_size=size, dim=32, hidden_dim=64, n_layers=2, n_heads=2, max_position_embeddings=64, dropout=dropout)
        ),
    }[family]()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 2:
                weights.mul_(10 if "embed" in name else 5)
    model.save_pretrained(folder)
    return folder


def _word_pieces(texts: Sequence[str]) -> BertTokenizerFast:
    words = sorted({word for text in texts for word in text.lower().split()})
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = dict.fromkeys([*SPECIAL, *words, *letters, *(f"##{letter}" for letter in letters)])
    return BertTokenizerFast(vocab={word: number for number, word in enumerate(vocabulary)}, model_max_length=64)


def _byte_pairs(texts: Sequence[str]) -> RobertaTokenizerFast:
    pairs = ByteLevelBPETokenizer()
    pairs.train_from_iterator(texts, vocab_size=400, min_frequency=1, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return RobertaTokenizerFast(tokenizer_object=pairs._tokenizer, model_max_length=64)
