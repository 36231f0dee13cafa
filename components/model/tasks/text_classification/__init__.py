"""Text classification: predicts one of k labels, several labels, an ordinal level, or a number for a text or a pair of texts.

The option `kind` selects the label type; each kind is a module of that name (`kinds.Kind`).
The base model is a folder in hub layout (safetensors, no custom code) or a model folder written by training.
Torch and transformers are imported inside the functions, so that loading a task stays fast.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.model import tasks
from components.model.support import output_heads, pretrained
from components.model.tasks.text_classification import baselines, encoding, ordinal
from components.model.tasks.text_classification import options as settings
from components.model.tasks.text_classification.kinds import Loss, kind_of
from components.model.tasks.text_classification.predictor import TextClassifier

_HEAD_DROPPED = "task_options.head_dropout already sets the dropout of the head; remove one of the two"


class Task(tasks.Task):
    """Predict the label of a text or of a pair of texts."""

    Options = settings.Options
    normalised = True

    def __init__(self, options: settings.Options) -> None:
        """Set columns, metrics and baselines from the options.

        With `pair` the columns are text_a and text_b, and `text` joins both to compare rows. If a text occurs in several pairs, a column
        `group` should keep them in one split.
        """
        super().__init__(options)
        self._kind = kind = kind_of(options)
        self.inputs = encoding.PAIR if options.pair else ("text",)
        self.columns = (*self.inputs, "label")
        self.augmentable_columns = self.inputs
        self.example = {name: "An example of a text to be answered." for name in self.inputs}
        self.validation_metrics, self.test_metrics, self.baselines = kind.validation_metrics, kind.test_metrics, kind.baselines
        self.label_column = None if options.kind == "regression" else "label"
        self.classes, self.one_answer, self.scored = kind.classes, kind.one_answer, kind.scored
        self.unsupported_settings = {**kind.unsupported_settings, **({} if options.head_dropout is None else {"dropout": _HEAD_DROPPED})}

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Apply `rename` to the label or labels of a cell."""
        return self._kind.rename_labels(cell, rename)

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with `text` and the labels in answer format, and the errors by row index."""
        labels, faults = rows["label"].tolist(), dict[int, str]()
        for index, cell in enumerate(labels):
            try:
                labels[index] = self._kind.label_of(cell)
            except ValueError as error:
                faults[index] = str(error)
        texts = {"text": encoding.joined(rows)} if self.options.pair else {}
        return rows.assign(**texts, label=pd.Series(labels, index=rows.index, dtype=rows["label"].dtype)), faults

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the labels of `rows` in the order of the model outputs; empty for regression."""
        return self._kind.labels_of(rows["label"].tolist())

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return the number of rows with each label."""
        return self._kind.label_counts(rows["label"].tolist())

    def fit_options(self, train: pd.DataFrame) -> Mapping[str, Any]:
        """Compute balanced class weights, and the scale for regression."""
        return self._kind.fit_options(train["label"].tolist())

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer; without a padding token it pads with its end token. Raise BadModel if that fails."""
        return pretrained.load_tokenizer(base, pad="eos")

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each row in tokens, special tokens included, before truncation."""
        return np.array(encoding.lengths(tokenizer, self._texts(rows, "NFC")), dtype=np.int64)

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the model inputs without padding, `labels` (the training targets) and `length` in tokens.

        Raises:
            BadData: a label is not in the label map.
        """
        labels = self._kind.targets(rows["label"].tolist(), spec)
        texts = self._texts(rows, spec.unicode_form)
        inputs = encoding.tokenize(
            tokenizer, texts, truncation=True, max_length=spec.max_length, padding=False, return_attention_mask=False
        )
        columns = {name: pa.array(inputs[name], pa.list_(pa.int32())) for name in sorted(inputs.keys())}
        columns["labels"] = labels
        columns["length"] = pa.array([len(ids) for ids in inputs["input_ids"]], pa.int32())
        return pa.table(columns)

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model with a classification head in float32; head rows are reused for labels that the base knows.

        Raises:
            BadModel: the folder has no safetensors weights, has custom code, or cannot be read by transformers.
            BadParams: the architecture does not support the requested head.
        """
        names = dict(self._kind.outputs(spec))
        outputs = {"num_labels": len(names["id2label"]), **names}
        if self.options.own_head:
            from components.model.tasks.text_classification.model import build

            return _padded(build(base, self.options, outputs, ordered=self._kind.ordered), self.load_tokenizer(base))
        head_config = {"retune_head": None} if "retune_head" in pretrained.config(base) else {}
        # A fine-tuned base may have a head of another size.
        settings = {**outputs, **head_config, "ignore_mismatched_sizes": True}
        model = pretrained.load_model("AutoModelForSequenceClassification", base, **settings)
        output_heads.take_rows(model, base, list(outputs["id2label"].values()), "ForSequenceClassification", ordered=self._kind.ordered)
        return _padded(model, self.load_tokenizer(base))

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator that pads a batch to its longest row."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return the loss of the kind; None: the loss of the model."""
        return self._kind.loss(spec, smoothing)

    def items(self, spec: ModelSpec) -> Callable[[Any], float] | None:
        """Return the count of thresholds in CORN's loss for ordinal labels; else None."""
        return ordinal.threshold_counter(spec) if self.options.kind == "ordinal" else None

    def vectors(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Return the pooled token vectors that the classification head reads."""
        from components.model.tasks.text_classification.model import token_vectors

        return token_vectors(model, inputs, self.options.pooling)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute the validation metrics of logits (rows, outputs)."""
        return self._kind.validate(outputs, expected, spec)

    def calibrate(self, folder: Path, validation: pd.DataFrame) -> Mapping[str, Any]:
        """Fit the thresholds of multi-label classification on the validation rows."""
        if self.options.kind != "multi":
            return {}
        predictor = self.predictor(folder)
        return self._kind.calibrate(predictor.scores(validation), validation["label"].tolist(), predictor.spec)

    def predictor(self, folder: Path) -> TextClassifier:
        """Load a saved model folder."""
        return TextClassifier(folder)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, npt.NDArray[np.float64]]:
        """Return the row statistics of the test metrics."""
        return self._kind.statistics(expected, predicted)

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, ModelOutput]:
        """Return the predictions of the baselines fitted on `train`: a constant, and TF-IDF with linear models."""
        return self._kind.predict_baselines(train, spec, len(test), baselines.features(train, test, self.options.pair))

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return slices by expected label."""
        return self._kind.slices(rows["label"].tolist())

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return scores by label, or by the range of the expected number."""
        return self._kind.tables(rows, predictions)

    def _texts(self, rows: pd.DataFrame, form: str) -> encoding.Texts:
        """Return the texts to encode: preprocessing has normalised `text`, but not the texts of a pair."""
        return encoding.texts_of(rows, True, form) if self.options.pair else (rows["text"].tolist(),)


def _padded(model: Any, tokenizer: Any) -> Any:
    """Set the padding token in the config unless the model derives positions from its own."""
    config = model.config
    if config.pad_token_id != tokenizer.pad_token_id and config.model_type not in pretrained.OFFSET_POSITIONS:
        config.pad_token_id = tokenizer.pad_token_id
    return model
