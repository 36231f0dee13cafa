"""An encoder that turns texts into unit vectors, and learns from pairs of them; saved as sentence-transformers saves one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from components.tasks import _pretrained
from components.tasks.contrastive import losses

_MODULES = ("Transformer", "Pooling", "Normalize")


class Embedder(torch.nn.Module):
    """A pretrained encoder, the mean of its last layer or the first token's, and a length of 1."""

    base_model_prefix = "encoder"

    def __init__(self, folder: Path, *, data: str, pooling: str, temperature: float, max_length: int) -> None:
        """Load the encoder in `folder`, without a pooler, which nothing here would use.

        Raises:
            BadModel: no safetensors weights, code of its own, or a folder that transformers cannot read.
        """
        super().__init__()
        self.encoder = _pretrained.load_model("AutoModel", folder)
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None
        self.data, self._pooling, self._temperature, self._max_length = data, pooling, temperature, max_length

    @property
    def config(self) -> Any:
        """The encoder's."""
        return self.encoder.config

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return the table of token embeddings."""
        found: torch.nn.Module = self.encoder.get_input_embeddings()
        return found

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (texts, width) in float32 of tokens (texts, longest)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0].float()
        if self._pooling == "cls":
            pooled = hidden[:, 0]
        else:
            seen = attention_mask[..., None].to(hidden.dtype)
            pooled = (hidden * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, dim=-1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: Any = None) -> SequenceClassifierOutput:
        """Embed the texts of each row, (rows, texts, longest); `logits` are their vectors side by side, (rows, texts x width).

        `labels` are the keys that `losses.in_batch` takes, or scores (rows, 1). Of single texts, training takes each whole and twice,
        which dropout makes differ, and an evaluation its halves.
        """
        if self.data == "texts":
            taken = [0, 0] if self.training else [1, 2]
            input_ids, attention_mask = input_ids[:, taken], attention_mask[:, taken]
        rows, texts, _ = input_ids.shape
        vectors = self.embed(input_ids.flatten(0, 1), attention_mask.flatten(0, 1)).view(rows, texts, -1)
        loss = None
        if labels is not None:
            one, *others = vectors.unbind(dim=1)
            if self.data == "scored":
                loss = losses.by_score(one, others[0], labels[:, 0], self._temperature)
            else:
                loss = losses.in_batch(one, others, labels, self._temperature)
        return SequenceClassifierOutput(loss=loss, logits=vectors.flatten(1))

    def save_pretrained(self, folder: Path) -> None:
        """Write the encoder into `folder`, and what sentence-transformers needs to make the same of it."""
        self.encoder.save_pretrained(folder)
        parts = {"": None, "1_Pooling": self._pooling_config(), "2_Normalize": {}}
        modules = [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(zip(parts, _MODULES, strict=True))
        ]
        _write(modules, folder / "modules.json")
        _write({"max_seq_length": self._max_length, "do_lower_case": False}, folder / "sentence_bert_config.json")
        for path, config in parts.items():
            if config is not None:
                (folder / path).mkdir(exist_ok=True)
                _write(config, folder / path / "config.json")

    def _pooling_config(self) -> dict[str, Any]:
        mean = self._pooling == "mean"
        return {"word_embedding_dimension": self.config.hidden_size, "pooling_mode_cls_token": not mean, "pooling_mode_mean_tokens": mean}


class Collator:
    """Pads a batch of rows, of which each has a list of texts, to the longest text of all."""

    def __init__(self, pad: int) -> None:
        """Fill up with the token `pad`."""
        self._pad = pad

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask` (rows, texts, longest) and `labels` (rows, their number)."""
        texts = [text for row in rows for text in row["input_ids"]]
        longest = max(map(len, texts))
        ids = np.full((len(texts), longest), self._pad, dtype=np.int64)
        attended = np.zeros((len(texts), longest), dtype=np.int64)
        for place, text in enumerate(texts):
            ids[place, : len(text)], attended[place, : len(text)] = text, 1
        shape = (len(rows), -1, longest)
        return {
            "input_ids": torch.from_numpy(ids).view(shape),
            "attention_mask": torch.from_numpy(attended).view(shape),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }


def _write(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
