"""Text classification: one text in, one of k labels out.

Reads a base model folder in hub layout (safetensors only, no code of its own) or a model folder that training wrote.
Torch and transformers are imported inside the functions: asking a task for its columns must stay cheap.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import Answers
from components.artifacts.training import ModelSpec
from components.errors import BadData, BadModel
from components.measures import Measure, mean
from components.params import Section
from components.tasks import _pretrained
from components.tasks._base import Base
from components.text import UnicodeForm, normalise

log = logging.getLogger(__name__)


class Options(Section):
    """Text classification has no settings of its own."""


class Task(Base):
    """One text in, one label out."""

    Options = Options
    metrics = ("macro_f1", "accuracy")
    measures: Mapping[str, Measure] = {"accuracy": mean("right", "share of the rows that are right")}
    baselines = ("majority", "tfidf")
    classes = True
    normalised = True
    one_answer = True

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the labels of `rows`, sorted; a label's place is its number in the model."""
        return tuple(sorted(set(rows["label"])))

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return the number of rows of each label."""
        return {str(label): int(count) for label, count in rows["label"].value_counts().items()}

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the model's inputs without padding, `labels` (a label's number) and `length` in tokens, one row a row.

        Raises:
            BadData: a row has a label that is not in the label map.
        """
        number = {label: place for place, label in enumerate(spec.labels)}
        if strange := sorted(set(rows["label"]) - set(number)):
            raise BadData(f"labels {', '.join(map(repr, strange))} are not in the label map ({', '.join(spec.labels)})")
        inputs = tokenizer(list(rows["text"]), truncation=True, max_length=spec.max_length, padding=False, return_attention_mask=False)
        columns = {name: pa.array(inputs[name], pa.list_(pa.int32())) for name in sorted(inputs.keys())}
        columns["labels"] = pa.array([number[label] for label in rows["label"]], pa.int64())
        columns["length"] = pa.array([len(ids) for ids in inputs["input_ids"]], pa.int32())
        return pa.table(columns)

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model with a classification head for the labels, in float32; the head is drawn from torch's global generator.

        Raises:
            BadModel: no safetensors weights, code of its own, or a folder that transformers cannot read.
        """
        return _pretrained.load_model(
            "AutoModelForSequenceClassification",
            base,
            num_labels=len(spec.labels),
            id2label=dict(enumerate(spec.labels)),
            label2id={label: place for place, label in enumerate(spec.labels)},
            ignore_mismatched_sizes=True,  # a base that was fine-tuned before has a head of another size
        )

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return what pads a batch of encoded rows to its longest row."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return macro-F1 and accuracy of logits (rows, labels); macro-F1 runs over all labels, a class without rows counts 0.

        The list is fixed so that the same number means the same from one evaluation to the next.
        """
        from sklearn.metrics import f1_score

        predicted = np.asarray(outputs).argmax(axis=-1)
        macro = f1_score(expected, predicted, labels=list(range(len(spec.labels))), average="macro", zero_division=0.0)
        return {"macro_f1": float(macro), "accuracy": float(np.mean(predicted == expected))}

    def predictor(self, folder: Path) -> "TextClassifier":
        """Load a saved model folder."""
        return TextClassifier(folder)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, npt.NDArray[np.float64]]:
        """Return `right`, 1 for a row with the expected label, and `rows`."""
        right = np.array([one == other for one, other in zip(expected, predicted, strict=True)], dtype=np.float64)
        return {"right": right, "rows": np.ones(len(right))}

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, Answers]:
        """Return what the baselines, fitted on `train`, answer: the commonest label, and TF-IDF with a linear model."""
        shares = train["label"].value_counts(normalize=True).reindex(list(spec.labels), fill_value=0.0).to_numpy(dtype=np.float64)
        majority = np.tile(shares, (len(test), 1)).astype(np.float64)
        tfidf = _tfidf(train, test, spec.labels)
        if tfidf is None:
            log.warning("the training texts have no words, or one label only: TF-IDF answers as the majority does")
            tfidf = majority
        return {"majority": Answers.classes(majority, spec.labels), "tfidf": Answers.classes(tfidf, spec.labels)}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the expected label of each row."""
        return {"label": rows["label"].tolist()}


class TextClassifier:
    """A trained model that answers raw texts; the same code serves evaluation, the registry's model and `retune predict`."""

    def __init__(self, folder: Path) -> None:
        """Load model, tokenizer and retune.json from `folder`.

        Raises:
            NotThere: the folder or its retune.json is missing.
            BadModel: the folder holds no model that may be loaded.
        """
        self.spec = ModelSpec.read(folder)
        self._tokenizer = _pretrained.load_tokenizer(folder)
        self._model = _pretrained.load_model("AutoModelForSequenceClassification", folder).eval()
        if self._model.config.num_labels != len(self.labels):
            raise BadModel(f"{folder}: the model has {self._model.config.num_labels} outputs, retune.json names {len(self.labels)} labels")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the columns of `probabilities`."""
        return self.spec.labels

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> Answers:
        """Answer the column `text` of `rows` with a label and the probabilities of all."""
        return Answers.classes(self.probabilities(rows["text"].tolist(), batch_size), self.labels)

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> npt.NDArray[np.float64]:
        """Return the probability of each label for each raw text, shape (texts, labels), at the temperature of retune.json.

        Texts are normalised as in training and batched by length, so that little is padding; neither the order nor the
        company of a text changes its answer by more than float32 rounding.
        """
        clean = [normalise(text, cast(UnicodeForm, self.spec.unicode_form)) for text in texts]
        answers = np.zeros((len(clean), len(self.labels)), dtype=np.float64)
        order = sorted(range(len(clean)), key=lambda place: (len(clean[place]), clean[place]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            answers[places] = self._answer([clean[place] for place in places])
        return answers

    def _answer(self, texts: list[str]) -> npt.NDArray[np.float64]:
        import torch

        inputs = self._tokenizer(texts, truncation=True, max_length=self.spec.max_length, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        return np.asarray(torch.softmax(logits.double() / self.spec.temperature, dim=-1).numpy())


def _tfidf(train: pd.DataFrame, test: pd.DataFrame, labels: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """Return the probabilities of TF-IDF over words and pairs of words with logistic regression; None where it cannot be fitted."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    if train["label"].nunique() < 2 or not any(map(vectorizer.build_analyzer(), train["text"])):
        return None
    # lbfgs starts at zero and draws nothing; on the shipped example it needs about 100 iterations.
    classifier = LogisticRegression(C=10, max_iter=10_000)
    # One thread: another count gives other last digits, and on two busy cores it took four times as long.
    with threadpool_limits(1):
        classifier.fit(vectorizer.fit_transform(train["text"]), train["label"].to_numpy(dtype=object))
        known = classifier.predict_proba(vectorizer.transform(test["text"]))
    log.info("TF-IDF baseline: %d terms, %d iterations", len(vectorizer.vocabulary_), int(classifier.n_iter_.max()))
    answers = np.zeros((len(test), len(labels)))
    answers[:, [labels.index(label) for label in classifier.classes_]] = known
    return answers
