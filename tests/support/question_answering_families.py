"""Random two-layer encoders of each family that answers questions, with a tokenizer of the family over the words of the tickets."""

import json
from pathlib import Path

from tests.support.tickets import WORDS
from tests.support.tiny import make_tiny_base

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 80}


_BERT_LIKE = {"bert": "Bert", "distilbert": "DistilBert", "electra": "Electra"}


def _bert_like(folder: Path, family: str) -> None:
    """Write a WordPiece tokenizer with a model of `family`."""
    import transformers

    make_tiny_base(folder, WORDS)
    (folder / "model.safetensors").unlink()
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 80} if family == "distilbert" else _SMALL
    config = getattr(transformers, f"{_BERT_LIKE[family]}Config")(vocab_size=len(tokenizer), **sizes)
    getattr(transformers, f"{_BERT_LIKE[family]}Model")(config).save_pretrained(folder)


def _roberta(folder: Path, family: str) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(WORDS * 3, vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False)
    parts = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split()) for pair in parts["merges"]]
    RobertaTokenizerFast(vocab=parts["vocab"], merges=merges, model_max_length=64).save_pretrained(folder)
    RobertaModel(RobertaConfig(vocab_size=trained.get_vocab_size(), pad_token_id=1, **_SMALL)).save_pretrained(folder)


def _unigram(special: list[str]) -> list[tuple[str, float]]:
    """Return a vocabulary of special pieces, whole words and single characters."""
    letters = sorted({letter for word in WORDS for letter in word} | set("▁.?é"))
    return [*((name, 0.0) for name in special), *((f"▁{word}", -4.0) for word in WORDS), *((letter, -9.0) for letter in letters)]


def _xlnet(folder: Path, family: str) -> None:
    from transformers import XLNetConfig, XLNetModel, XLNetTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eop>", "<eod>"]
    tokenizer = XLNetTokenizerFast(vocab=_unigram(special), unk_id=0, model_max_length=64, truncation_side="left")
    assert tokenizer.padding_side == "left"
    tokenizer.save_pretrained(folder)
    config = XLNetConfig(vocab_size=len(tokenizer), d_model=32, n_layer=2, n_head=2, d_inner=64, pad_token_id=5)
    XLNetModel(config).save_pretrained(folder)


def _deberta(folder: Path, family: str) -> None:
    from transformers import DebertaV2Config, DebertaV2Model, DebertaV2TokenizerFast

    tokenizer = DebertaV2TokenizerFast(vocab=_unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]), unk_id=3, model_max_length=64)
    tokenizer.save_pretrained(folder)
    sizes = _SMALL | {"relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
    DebertaV2Model(DebertaV2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)


FAMILIES = {**dict.fromkeys(_BERT_LIKE, _bert_like), "roberta": _roberta, "xlnet": _xlnet, "deberta-v2": _deberta}


def make_family(folder: Path, family: str) -> Path:
    """Write config, weights and tokenizer of `family` into `folder`."""
    import torch

    torch.manual_seed(0)
    FAMILIES[family](folder, family)
    return folder
