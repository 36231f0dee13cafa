"""A random two-layer BERT with a WordPiece tokenizer, in hub layout: small enough to train within a test."""

from pathlib import Path

from components.artifacts.manifest import BaseManifest, FilePart
from components.core.hashing import digest_file, digest_value

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tiny_base(folder: Path, words: list[str]) -> Path:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words, *"abcdefghijklmnopqrstuvwxyz0123456789"]), encoding="utf-8")
    vocab = {word: index for index, word in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))}
    (folder / "vocab.txt").unlink()
    BertTokenizerFast(vocab=vocab, model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    parts = tuple(FilePart(name=path.name, sha256=digest_file(path), bytes=path.stat().st_size) for path in files)
    digest = digest_value([part.model_dump() for part in parts])
    BaseManifest(source="test", parts=parts, digest=digest, taken_at="2026-11-21T00:00:00+00:00").write(folder)
    return folder
