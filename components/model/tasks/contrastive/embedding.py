"""The predictor of sentence embeddings."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.core.text import normalise
from components.model.support.metrics import Floats
from components.model.tasks.contrastive import search
from components.model.tasks.contrastive.encoder import ContrastiveCollator, Embedder
from components.model.tasks.contrastive.rows import sides

_DIGITS = 6  # of a component


class TextEmbedder:
    """A trained embedding model with its tokenizer."""

    def __init__(self, model: Embedder, tokenizer: Any, spec: ModelSpec) -> None:
        self.spec = spec
        self._model, self._tokenizer = model.eval(), tokenizer
        self._collate = ContrastiveCollator(tokenizer.pad_token_id)
        self._add_prompt = model.described.read

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Embed each `text` as a JSON list; for rows with an expected answer, `measured` has the retrieval statistics."""
        vectors = self.embed(rows["text"].tolist(), batch_size)
        predicted = [json.dumps(vector) for vector in np.round(vectors, _DIGITS).tolist()]
        if "label" not in rows:
            return ModelOutput.texts(predicted)

        data = self._model.data
        queries, _ = sides(rows, data)
        vector_of = dict(zip(queries, self.embed(queries, batch_size) if data == "texts" else vectors, strict=True))

        def index(corpus: Sequence[str]) -> Callable[[Sequence[str]], Floats]:
            indexed = self.embed(corpus, batch_size).T
            return lambda questions: np.stack([vector_of[query] for query in questions]) @ indexed

        return ModelOutput.texts(predicted, search.measure(rows, data, index))

    def embed(self, texts: Sequence[str], batch_size: int = 64) -> Floats:
        """Return the unit vectors of raw texts, (texts, width); equal texts are embedded once."""
        clean = [normalise(text, self.spec.unicode_form) for text in texts]
        distinct = sorted(set(clean), key=lambda text: (len(text), text))
        parts = [self._embed(distinct[start : start + batch_size]) for start in range(0, len(distinct), batch_size)]
        if not parts:
            return np.zeros((0, 0))
        index = {text: number for number, text in enumerate(distinct)}
        return np.concatenate(parts)[[index[text] for text in clean]]

    def _embed(self, texts: list[str]) -> Floats:
        import torch

        ids = self._tokenizer([self._add_prompt(text) for text in texts], truncation=True, max_length=self.spec.max_length)["input_ids"]
        batch = self._collate([{"input_ids": [text], "labels": 0} for text in ids])
        with torch.inference_mode():
            return np.asarray(self._model.embed(batch["input_ids"][:, 0], batch["attention_mask"][:, 0]).double().numpy())
