"""A trained model that embeds texts; asked with what is to be found, it tells how well it finds it."""

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.core.text import UnicodeForm, normalise
from components.model.tasks.contrastive import finding
from components.model.tasks.contrastive.encoder import Collator, Embedder
from components.model.tasks.contrastive.reading import sides
from components.model.tasks.contrastive.retrieval import Floats

_DIGITS = 6  # of a component


class TextEmbedder:
    """A model, its tokenizer and its contract."""

    def __init__(self, model: Embedder, tokenizer: Any, spec: ModelSpec) -> None:
        """Ask `model`, which reads what `tokenizer` makes of a text, as `spec` says."""
        self.spec = spec
        self._model, self._tokenizer = model.eval(), tokenizer
        self._collate = Collator(tokenizer.pad_token_id)
        self._read = model.described.read

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Answer each `text` with its unit vector, a JSON list; of rows with an expected answer, `measured` is what `finding` says."""
        vectors = self.embed(rows["text"].tolist(), batch_size)
        predicted = [json.dumps(vector) for vector in np.round(vectors, _DIGITS).tolist()]
        if "label" not in rows:
            return ModelOutput.texts(predicted)

        data = self._model.data
        queries, _ = sides(rows, data)
        known = (
            dict(zip(queries, self.embed(queries, batch_size), strict=True))
            if data == "texts"
            else dict(zip(queries, vectors, strict=True))
        )

        def index(corpus: Sequence[str]) -> Callable[[Sequence[str]], Floats]:
            indexed = self.embed(corpus, batch_size).T
            return lambda asked: np.stack([known[query] for query in asked]) @ indexed

        return ModelOutput.texts(predicted, finding.measured(rows, data, index))

    def embed(self, texts: Sequence[str], batch_size: int = 64) -> Floats:
        """Return the unit vectors of raw texts, (texts, width); equal texts are embedded once."""
        clean = [normalise(text, cast(UnicodeForm, self.spec.unicode_form)) for text in texts]
        distinct = sorted(set(clean), key=lambda text: (len(text), text))
        parts = [self._embed(distinct[start : start + batch_size]) for start in range(0, len(distinct), batch_size)]
        if not parts:
            return np.zeros((0, 0))
        place = {text: number for number, text in enumerate(distinct)}
        return np.concatenate(parts)[[place[text] for text in clean]]

    def _embed(self, texts: list[str]) -> Floats:
        import torch

        ids = self._tokenizer([self._read(text) for text in texts], truncation=True, max_length=self.spec.max_length)["input_ids"]
        batch = self._collate([{"input_ids": [text], "labels": 0} for text in ids])
        with torch.inference_mode():
            return np.asarray(self._model.embed(batch["input_ids"][:, 0], batch["attention_mask"][:, 0]).double().numpy())
