"""Text classification: one text in, or a pair of them, and out one of k labels, any number of them, a level in order, or a number.

What a label is says the option `kind`; each kind is a file here of that name (`kinds.Kind`). Beside them: `encoding` (what is read),
`model` (a head of our own), `predictor`, `baselines`, `thresholds`, `weights`, `numbers` and `tables`.
Reads a base model folder in hub layout (safetensors only, no code of its own) or a model folder that training wrote.
Torch and transformers are imported inside the functions: asking a task for its columns must stay cheap.
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
from components.model.support import output_heads, pretrained
from components.model.support.task_base import Base
from components.model.tasks.text_classification import baselines, encoding, ordinal
from components.model.tasks.text_classification import options as settings
from components.model.tasks.text_classification.kinds import Loss, kind_of
from components.model.tasks.text_classification.predictor import TextClassifier

_HEAD_DROPPED = "task_options.head_dropout is what the head drops, and train.dropout would set it again; leave one of them out"


class Task(Base):
    """One text in, or two, and one label out."""

    Options = settings.Options
    normalised = True

    def __init__(self, options: settings.Options) -> None:
        """Be what the options say.

        With `pair` the columns are text_a and text_b, and `text` is both as one, by which rows are compared. Where one text stands in
        several pairs, a column `group` should keep these together.
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
        """Return a label, or several, with the names that `rename` gives."""
        return self._kind.rename_labels(cell, rename)

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with `text` and each label in the form of an answer."""
        labels, faults = rows["label"].tolist(), dict[int, str]()
        for place, cell in enumerate(labels):
            try:
                labels[place] = self._kind.label_of(cell)
            except ValueError as error:
                faults[place] = str(error)
        texts = {"text": encoding.joined(rows)} if self.options.pair else {}
        return rows.assign(**texts, label=pd.Series(labels, index=rows.index, dtype=rows["label"].dtype)), faults

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the labels of `rows`; a label's place is its number in the model. None where labels are numbers."""
        return self._kind.labels_of(rows["label"].tolist())

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return the number of rows that hold each label."""
        return self._kind.label_counts(rows["label"].tolist())

    def fit_options(self, train: pd.DataFrame) -> Mapping[str, Any]:
        """Return the weights of classes where they are balanced, and the scale of numbers."""
        return self._kind.fit_options(train["label"].tolist())

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer of a model folder; a language model's without a padding token pads with its end token; BadModel."""
        return pretrained.load_tokenizer(base, pad="eos")

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each row in tokens, special tokens included, before truncation."""
        return np.array(encoding.lengths(tokenizer, self._texts(rows, "NFC")), dtype=np.int64)

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the model's inputs without padding, `labels` (what the kind learns) and `length` in tokens, one row a row.

        Raises:
            BadData: a row has a label that is not in the label map.
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
        """Load the base model with a classification head, in float32; rows that the base has for no label of that name are drawn.

        Raises:
            BadModel: no safetensors weights, code of its own, or a folder that transformers cannot read.
            BadParams: the head asked for does not fit the architecture.
        """
        named = dict(self._kind.outputs(spec))
        outputs = {"num_labels": len(named["id2label"]), **named}
        if self.options.own_head:
            from components.model.tasks.text_classification.model import built

            return _padded(built(base, self.options, outputs, ordered=self._kind.ordered), self.load_tokenizer(base))
        plain = {"retune_head": None} if "retune_head" in pretrained.config(base) else {}
        # A base that was fine-tuned before may have a head of another size.
        settings = {**outputs, **plain, "ignore_mismatched_sizes": True}
        model = pretrained.load_model("AutoModelForSequenceClassification", base, **settings)
        output_heads.take_rows(model, base, list(outputs["id2label"].values()), "ForSequenceClassification", ordered=self._kind.ordered)
        return _padded(model, self.load_tokenizer(base))

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return what pads a batch of encoded rows to its longest row."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return the kind's loss, or None for the model's own."""
        return self._kind.loss(spec, smoothing)

    def items(self, spec: ModelSpec) -> Callable[[Any], float] | None:
        """Return what counts the thresholds that CORN asks of a batch; else None."""
        return ordinal.asked(spec) if self.options.kind == "ordinal" else None

    def vectors(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Return what the head reads of each row's tokens: by the pooling of the options, or the architecture's own."""
        from components.model.tasks.text_classification.model import token_vectors

        return token_vectors(model, inputs, self.options.pooling)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return the metrics of logits (rows, outputs)."""
        return self._kind.validate(outputs, expected, spec)

    def calibrate(self, folder: Path, validation: pd.DataFrame) -> Mapping[str, Any]:
        """Return thresholds of several labels, fitted on the validation rows."""
        if self.options.kind != "multi":
            return {}
        predictor = self.predictor(folder)
        return self._kind.calibrate(predictor.scores(validation), validation["label"].tolist(), predictor.spec)

    def predictor(self, folder: Path) -> TextClassifier:
        """Load a saved model folder."""
        return TextClassifier(folder)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, npt.NDArray[np.float64]]:
        """Return what the kind's measures sum up."""
        return self._kind.statistics(expected, predicted)

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, ModelOutput]:
        """Return what the baselines, fitted on `train`, answer: what is commonest or in the middle, and TF-IDF with linear models."""
        return self._kind.predict_baselines(train, spec, len(test), baselines.features(train, test, self.options.pair))

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return parts by the expected label."""
        return self._kind.slices(rows["label"].tolist())

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return scores by label, or by the size of the number."""
        return self._kind.tables(rows, found)

    def _texts(self, rows: pd.DataFrame, form: str) -> encoding.Texts:
        """Return what is encoded of prepared rows: preprocessing has normalised `text`, but not the texts of a pair."""
        return encoding.texts_of(rows, True, form) if self.options.pair else (rows["text"].tolist(),)


def _padded(model: Any, tokenizer: Any) -> Any:
    """Tell a model that looks for the last token before the padding what the padding is; where it counts positions by it, it knows."""
    config = model.config
    if config.pad_token_id != tokenizer.pad_token_id and config.model_type not in pretrained.OFFSET_POSITIONS:
        config.pad_token_id = tokenizer.pad_token_id
    return model
