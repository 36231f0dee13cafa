"""Random two-layer models of the families of text classification, with the tokenizer templates of the family, in hub layout."""

from pathlib import Path
from typing import Any

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

# Of each family: the config class, its settings, the template of a text and of a pair, and the special tokens by purpose.
_BERT = (
    "[CLS] $A [SEP]",
    "[CLS] $A [SEP] $B:1 [SEP]:1",
    {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"},
)
_MARKS = {"pad_token": "<pad>", "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>"}
_BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any], str, str, dict[str, str]]] = {
    "bert": ("BertConfig", SMALL | QUIET, *_BERT),
    "roberta": ("RobertaConfig", SMALL | QUIET | {"type_vocab_size": 1}, "<s> $A </s>", "<s> $A </s> </s> $B </s>", _MARKS),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "dropout": 0.0, "attention_dropout": 0.0},
        *_BERT,
    ),
    "electra": ("ElectraConfig", SMALL | QUIET | {"embedding_size": 16}, *_BERT),
    "deberta": (
        "DebertaV2Config",
        SMALL | QUIET | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm"},
        *_BERT,
    ),
    "xlnet": (
        "XLNetConfig",
        {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64, "dropout": 0.0, "summary_last_dropout": 0.0},
        "$A:0 <sep>:0 <cls>:2",
        "$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        {"pad_token": "<pad>", "cls_token": "<cls>", "sep_token": "<sep>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "gpt2": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0},
        "",
        "",
        {"eos_token": "<|endoftext|>"},
    ),
    "llama": (
        "LlamaConfig",
        SMALL | {"num_key_value_heads": 1},
        "<s> $A",
        "<s> $A $B",
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "bart": (
        "BartConfig",
        _BART | {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64, "dropout": 0.0},
        "<s> $A </s>",
        "<s> $A </s> </s> $B </s>",
        _MARKS,
    ),
    "t5": (
        "T5Config",
        {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0, "decoder_start_token_id": 0},
        "$A </s>",
        "$A </s> $B </s>",
        {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
}


def make_family(folder: Path, family: str, words: list[str]) -> Path:
    """Write config, weights and tokenizer of `family` over `words` into `folder`, in the layout of the hub."""
    import torch
    import transformers

    config_class, settings, _, _, marks = FAMILIES[family]
    tokenizer = _tokenizer(family, words)
    tokenizer.save_pretrained(folder)
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(marks[name]) for name in ("pad_token", "bos_token", "eos_token") if name in marks}
    config = getattr(transformers, config_class)(vocab_size=len(tokenizer), **{"bos_token_id": None, "eos_token_id": None} | ids | settings)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 2 and "embed" not in name and "wte" not in name and "wpe" not in name:
                weights.mul_(4)  # larger weights: predictions depend on the words before any training
    model.save_pretrained(folder)
    return folder


def _tokenizer(family: str, words: list[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    _, _, one, two, marks = FAMILIES[family]
    special = sorted(set(marks.values()), key=list(marks.values()).index)
    vocab = {word: index for index, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=marks.get("unk_token", marks.get("eos_token"))))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if one:
        ids = [(mark, vocab[mark]) for mark in special]
        tokenizer.post_processor = processors.TemplateProcessing(single=one, pair=two, special_tokens=ids)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if family in ("bert", "electra", "deberta", "xlnet") else [])]
    left = {"padding_side": "left", "pad_token_type_id": 3} if family == "xlnet" else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, model_input_names=names, **marks, **left)
