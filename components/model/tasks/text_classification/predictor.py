"""The predictor of text classification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel
from components.model import tasks
from components.model.support import pretrained
from components.model.support.batches import in_batches
from components.model.support.metrics import Floats
from components.model.tasks.text_classification.encoding import texts_of, tokenize


class TextClassifier:
    """A trained text classifier."""

    def __init__(self, folder: Path) -> None:
        """Load model, tokenizer and retune.json from `folder`; raise NotFound or BadModel."""
        self.spec = ModelSpec.read(folder)
        self._task = cast(Any, tasks.of(self.spec))
        self._tokenizer = pretrained.load_tokenizer(folder, pad="eos")
        self._model = _load(folder).eval()
        outputs, expected = self._model.config.num_labels, self._task.outputs(self.spec)["num_labels"]
        if outputs != expected:
            raise BadModel(
                f"{folder}: the model has {outputs} outputs, expected {expected} for the {len(self.labels)} labels in retune.json"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the columns of `probabilities`; empty for regression."""
        return self.spec.labels

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Predict `rows`, with label probabilities except for regression."""
        output: ModelOutput = self._task.answers(self.scores(rows, batch_size), self.spec)
        return output

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> Floats:
        """Return the label probabilities of raw texts, (texts, labels), at the temperature in retune.json."""
        return self.scores(pd.DataFrame({"text": pd.Series(list(texts), dtype="object")}), batch_size)

    def scores(self, rows: pd.DataFrame, batch_size: int = 64) -> Floats:
        """Return the label probabilities or the number of each row, (rows, scores).

        Texts are normalised as in training and batched by length to reduce padding.
        """
        rows_of_texts = list(zip(*texts_of(rows, self._task.options.pair, self.spec.unicode_form), strict=True))
        scores: list[Floats] = in_batches(rows_of_texts, batch_size, lambda texts: (sum(map(len, texts)), texts), self._scores)
        return np.array(scores, dtype=np.float64).reshape(len(rows), max(1, len(self.labels)))

    def _scores(self, rows: list[tuple[str, ...]]) -> list[Floats]:
        import torch

        texts = tuple(map(list, zip(*rows, strict=True)))
        inputs = tokenize(self._tokenizer, texts, truncation=True, max_length=self.spec.max_length, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        return list(self._task.scores(logits.double(), self.spec).numpy())


def _load(folder: Path) -> Any:
    if pretrained.config(folder).get("retune_head"):
        from components.model.tasks.text_classification.model import restore

        return restore(folder)
    return pretrained.load_model("AutoModelForSequenceClassification", folder, head=False)
