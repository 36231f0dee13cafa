"""The predictor of text classification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel
from components.model.support import pretrained
from components.model.tasks.text_classification.encoding import Texts, texts_of, tokenize
from components.model.tasks.text_classification.kinds import kind_of
from components.model.tasks.text_classification.options import Options

Floats = npt.NDArray[np.float64]


class TextClassifier:
    """A trained text classifier."""

    def __init__(self, folder: Path) -> None:
        """Load model, tokenizer and retune.json from `folder`.

        Raises:
            NotFound: the folder or its retune.json is missing.
            BadModel: the model cannot be loaded.
        """
        self.spec = ModelSpec.read(folder)
        self._options = Options.parse(self.spec.options, "task_options")
        self._kind = kind_of(self._options)
        self._tokenizer = pretrained.load_tokenizer(folder, pad="eos")
        self._model = _load(folder).eval()
        outputs, expected = self._model.config.num_labels, len(self._kind.outputs(self.spec)["id2label"])
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
        return self._kind.answers(self.scores(rows, batch_size), self.spec)

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> Floats:
        """Return the label probabilities of raw texts, (texts, labels), at the temperature in retune.json."""
        return self.scores(pd.DataFrame({"text": pd.Series(list(texts), dtype="object")}), batch_size)

    def scores(self, rows: pd.DataFrame, batch_size: int = 64) -> Floats:
        """Return the label probabilities or the number of each row, (rows, scores).

        Texts are normalised as in training and batched by length to reduce padding.
        """
        texts = texts_of(rows, self._options.pair, self.spec.unicode_form)
        inputs = [tuple(parts) for parts in zip(*texts, strict=True)]
        order = sorted(range(len(inputs)), key=lambda index: (sum(map(len, inputs[index])), inputs[index]))
        answers = np.zeros((len(inputs), max(1, len(self.labels))), dtype=np.float64)
        for start in range(0, len(order), batch_size):
            indexes = order[start : start + batch_size]
            answers[indexes] = self._answer(tuple([column[index] for index in indexes] for column in texts))
        return answers

    def _answer(self, texts: Texts) -> Floats:
        import torch

        inputs = tokenize(self._tokenizer, texts, truncation=True, max_length=self.spec.max_length, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        return np.asarray(self._kind.scores(logits.double(), self.spec).numpy())


def _load(folder: Path) -> Any:
    if pretrained.config(folder).get("retune_head"):
        from components.model.tasks.text_classification.model import restore

        return restore(folder)
    return pretrained.load_model("AutoModelForSequenceClassification", folder, head=False)
