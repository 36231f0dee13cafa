"""Random two-layer generative models in hub layout, with tokenizers trained on the given texts."""

import json
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.tiny import make_tiny_base

END = "<|end|>"


def _trained(kind: str, texts: Iterable[str], special: list[str]) -> Any:
    """Train a tokenizer: `bytes` is byte-level BPE as in GPT-2, `pieces` is BPE with ▁ as in Llama, `unigram` is that of T5."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer: Any = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if kind == "pieces" else None))
        byte = kind == "bytes"
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if byte else pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.ByteLevel() if byte else decoders.Metaspace()
        alphabet = pre_tokenizers.ByteLevel.alphabet() if byte else []
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(list(texts), trainer)
    return tokenizer


def _parts(tokenizer: Any) -> dict[str, Any]:
    model = json.loads(tokenizer.to_str())["model"]
    return (
        {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]} if "merges" in model else {"vocab": model["vocab"]}
    )


def _save(folder: Path, tokenizer: Any, model: Any) -> Path:
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 2 and "embed" not in name and "shared" not in name and "wte" not in name:
                weights.mul_(4)  # large weights: the answer depends on the words
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def make_t5(folder: Path, texts: Iterable[str]) -> Path:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    trained = _trained("unigram", texts, ["<pad>", "</s>", "<unk>"])
    tokenizer = T5Tokenizer(vocab=[tuple(each) for each in _parts(trained)["vocab"]], extra_ids=0, model_max_length=64)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
    return _save(folder, tokenizer, T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)))


def _halves() -> dict[str, Any]:
    sizes = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}
    return {f"{half}_{name}": size for half in ("encoder", "decoder") for name, size in sizes.items()} | {
        "d_model": 32,
        "dropout": 0.0,
        "max_position_embeddings": 64,
    }


def make_bart(folder: Path, texts: Iterable[str]) -> Path:
    import torch
    from transformers import BartConfig, BartForConditionalGeneration, BartTokenizer

    trained = _trained("bytes", texts, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer = BartTokenizer(**_parts(trained), model_max_length=64)
    torch.manual_seed(0)
    return _save(folder, tokenizer, BartForConditionalGeneration(BartConfig(vocab_size=len(tokenizer), **_halves())))


def make_marian(folder: Path, texts: Iterable[str]) -> Path:
    """A Marian model with its tokenizer in tokenizer.json."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

    trained = _trained("pieces", texts, ["</s>", "<unk>", "<pad>"])
    trained.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", model_max_length=64
    )
    torch.manual_seed(0)
    tokens = {"pad_token_id": 2, "decoder_start_token_id": 2, "eos_token_id": 0, "forced_eos_token_id": 0, "bos_token_id": None}
    return _save(folder, tokenizer, MarianMTModel(MarianConfig(vocab_size=len(tokenizer), **_halves(), **tokens)))


def make_opus(folder: Path, texts: Iterable[str]) -> Path:
    """A Marian model in the layout of the released translators: source.spm, target.spm and vocab.json."""
    import sentencepiece
    import torch
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(set(texts))),
        model_prefix=str(folder / "source"),
        vocab_size=90,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    (folder / "source.vocab").unlink()
    (folder / "source.model").rename(folder / "source.spm")
    shutil.copy(folder / "source.spm", folder / "target.spm")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    known = [piece for piece in map(pieces.id_to_piece, range(len(pieces))) if piece not in ("<s>", "</s>", "<unk>")]
    vocabulary = {piece: index for index, piece in enumerate(["</s>", "<unk>", *known, "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer = MarianTokenizer(
        source_spm=str(folder / "source.spm"), target_spm=str(folder / "target.spm"), vocab=str(folder / "vocab.json"), model_max_length=64
    )
    torch.manual_seed(0)
    pad = vocabulary["<pad>"]
    tokens = {"pad_token_id": pad, "decoder_start_token_id": pad, "eos_token_id": 0, "forced_eos_token_id": 0, "bos_token_id": None}
    return _save(folder, tokenizer, MarianMTModel(MarianConfig(vocab_size=len(vocabulary), **_halves(), **tokens)))


def make_gpt2(folder: Path, texts: Iterable[str]) -> Path:
    """A GPT-2 whose tokenizer has no padding token, as the released one."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    tokenizer = GPT2Tokenizer(**_parts(_trained("bytes", texts, [END])), bos_token=END, eos_token=END, unk_token=END, model_max_length=64)
    torch.manual_seed(0)
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    config = GPT2Config(**sizes, **dropout, bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id)
    return _save(folder, tokenizer, GPT2LMHeadModel(config))


def make_llama(folder: Path, texts: Iterable[str], tied: bool = False, **settings: Any) -> Path:
    """A Llama whose tokenizer begins texts with <s> and has no padding token; `settings` go to the tokenizer."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    trained = _trained("pieces", texts, ["<unk>", "<s>", "</s>"])
    trained.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, model_max_length=64, **tokens, **settings)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    return _save(folder, tokenizer, LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=tied, **sizes)))


def make_encoder_pair(folder: Path, texts: Iterable[str]) -> Path:
    """Write an encoder, which the task combines with a decoder."""
    return make_tiny_base(folder, sorted({word for text in texts for word in text.split()}))


CAUSAL_FAMILIES: dict[str, Callable[[Path, Iterable[str]], Path]] = {
    "gpt2": make_gpt2,
    "llama": make_llama,
    "tied llama": partial(make_llama, tied=True),
}
SEQUENCE_FAMILIES: dict[str, Callable[[Path, Iterable[str]], Path]] = {
    "t5": make_t5,
    "bart": make_bart,
    "marian": make_marian,
    "opus": make_opus,
    "pair": make_encoder_pair,
}
