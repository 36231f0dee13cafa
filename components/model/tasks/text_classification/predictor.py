"""A trained model that answers raw texts, or pairs of them."""

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
    """A trained model; the same code serves evaluation, the registry's model and `retune predict`."""

    def __init__(self, folder: Path) -> None:
        """Load model, tokenizer and retune.json from `folder`.

        Raises:
            NotThere: the folder or its retune.json is missing.
            BadModel: the folder holds no model that may be loaded.
        """
        self.spec = ModelSpec.read(folder)
        self._options = Options.parse(self.spec.options, "task_options")
        self._kind = kind_of(self._options)
        self._tokenizer = pretrained.load_tokenizer(folder, pad="eos")
        self._model = _load(folder).eval()
        found, wanted = self._model.config.num_labels, len(self._kind.outputs(self.spec)["id2label"])
        if found != wanted:
            raise BadModel(f"{folder}: the model has {found} outputs, retune.json names {len(self.labels)} labels and needs {wanted}")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the columns of `probabilities`; none where a number is answered."""
        return self.spec.labels

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Answer the texts of `rows`, with the probabilities of all labels where there are any."""
        return self._kind.answers(self.scores(rows, batch_size), self.spec)

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> Floats:
        """Return the probability of each label for each raw text, shape (texts, labels), at the temperature of retune.json."""
        return self.scores(pd.DataFrame({"text": pd.Series(list(texts), dtype="object")}), batch_size)

    def scores(self, rows: pd.DataFrame, batch_size: int = 64) -> Floats:
        """Return what answers are made of, a row a row: the probability of each label, or the number.

        Texts are normalised as in training and batched by length, so that little is padding; neither the order nor the
        company of a text changes its answer by more than float32 rounding.
        """
        texts = texts_of(rows, self._options.pair, self.spec.unicode_form)
        whole = [tuple(parts) for parts in zip(*texts, strict=True)]
        order = sorted(range(len(whole)), key=lambda place: (sum(map(len, whole[place])), whole[place]))
        answers = np.zeros((len(whole), max(1, len(self.labels))), dtype=np.float64)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            answers[places] = self._answer(tuple([each[place] for place in places] for each in texts))
        return answers

    def _answer(self, texts: Texts) -> Floats:
        import torch

        inputs = tokenize(self._tokenizer, texts, truncation=True, max_length=self.spec.max_length, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        return np.asarray(self._kind.scores(logits.double(), self.spec).numpy())


def _load(folder: Path) -> Any:
    if pretrained.config(folder).get("retune_head"):
        from components.model.tasks.text_classification.model import restored

        return restored(folder)
    return pretrained.load_model("AutoModelForSequenceClassification", folder, head=False)
