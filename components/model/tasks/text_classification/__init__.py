"""Text classification: predicts one of k labels, several labels, an ordinal level, or a number for a text or a pair of texts.

The option `kind` selects the label type; each kind is a subclass of `Task` in the module of that name.
The base model is a folder in hub layout (safetensors, no custom code) or a model folder written by training.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from components.artifacts.predictions import PROBABILITY, ModelOutput
from components.artifacts.training import ModelSpec
from components.core.errors import BadData, BadParams
from components.core.section import Section
from components.core.text import UnicodeForm, canonical_label
from components.model import tasks
from components.model.support import linear_probe, output_heads, pretrained, probe_baseline
from components.model.support.batches import token_lengths, token_table
from components.model.support.frozen_features import FrozenFeatures
from components.model.support.metrics import Floats
from components.model.tasks.text_classification import encoding
from components.model.tasks.text_classification.portfolio import PORTFOLIO
from components.model.tasks.text_classification.predictor import TextClassifier

Loss = Callable[[Any, Any], Any]
"""Maps logits and labels of a batch to a scalar tensor, the mean over the batch."""

_HEAD_DROPPED = "task_options.head_dropout already sets the dropout of the head; remove one of the two"
_USED_BY = {
    "labels": ("multi",),
    "separator": ("multi",),
    "thresholds": ("multi",),
    "levels": ("ordinal",),
    "centre": ("regression",),
    "spread": ("regression",),
    "class_weights": ("single", "multi", "ordinal"),
}


class Options(Section):
    """The label type, input columns and head; a field that the `kind` does not use is an error."""

    kind: Literal["single", "multi", "ordinal", "regression"] = Field(
        "single", description="label type: one of k labels, any number of k labels, one of k ordered levels, or a number"
    )
    pair: bool = Field(False, description="read two texts per row, from the columns text_a and text_b, instead of text")
    labels: tuple[str, ...] = Field(
        (), description="multi: the allowed labels; macro-F1 is then a test metric; empty: all labels in the data"
    )
    separator: str = Field(";", min_length=1, description="multi: separator of labels in a cell that is not a JSON list")
    thresholds: dict[str, float] = Field(
        {}, description="multi: minimum probability per label; missing ones are fitted on the validation split after training"
    )
    levels: tuple[str, ...] = Field((), description="ordinal: levels from lowest to highest; empty: the labels are numbers")
    centre: float | None = Field(
        None, description="regression: the target is (label - centre) / spread; null: the mean of the training labels"
    )
    spread: float | None = Field(None, gt=0, description="regression: see centre; null: the standard deviation of the training labels")
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        "none", description="class weights in the loss: none; balanced (inverse to the frequency in the training rows); or label: weight"
    )
    pooling: Literal["default", "cls", "mean", "max", "last_four"] = Field(
        "default",
        description="pooling of the token vectors before the head; default: that of the architecture; last_four: the mean over tokens of "
        "the average of the last four layers",
    )
    head_hidden: int = Field(0, ge=0, le=65_536, description="width of a hidden layer in the head; 0: the head of the architecture")
    head_dropout: float | None = Field(None, ge=0, lt=1, description="dropout of the head; null: that of the architecture")

    @field_validator("labels", "levels")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(canonical_label, names))
        if len(names) == 1 or len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise ValueError("expected no names, or at least two different non-empty names")
        return names

    @field_validator("thresholds")
    @classmethod
    def _are_probabilities(cls, thresholds: dict[str, float]) -> dict[str, float]:
        if invalid := [name for name, value in thresholds.items() if not 0 < value <= 1]:
            raise ValueError(f"expected probabilities above 0 and up to 1 for {', '.join(map(repr, invalid))}")
        return {canonical_label(name): value for name, value in thresholds.items()}

    @field_validator("class_weights")
    @classmethod
    def _are_weights(cls, weights: Any) -> Any:
        if isinstance(weights, dict) and (invalid := [name for name, value in weights.items() if value <= 0]):
            raise ValueError(f"expected weights above 0 for {', '.join(map(repr, invalid))}")
        return {canonical_label(name): value for name, value in weights.items()} if isinstance(weights, dict) else weights

    @model_validator(mode="after")
    def _are_used(self) -> Self:
        for name, kinds in _USED_BY.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is used only with kind {' or '.join(kinds)}, not {self.kind}")
        return self


class Task(tasks.Task):
    """Predict the label of a text or of a pair of texts; `scores` (rows, m) are the values that answers are made from."""

    Options = Options
    portfolio = PORTFOLIO
    normalised = True
    searchable_options = ("pooling", "head_hidden", "head_dropout", "class_weights")
    label_column: str | None = "label"
    ordered = False
    """Whether the meaning of an output depends on the outputs before it."""

    def __new__(cls, options: Any) -> Self:
        """Return an instance of the subclass for `options.kind`."""
        kind: type[Self] = import_module(f"{__name__}.{options.kind}").Kind
        return super().__new__(kind if issubclass(kind, cls) else cls)

    def __getnewargs__(self) -> tuple[Any]:
        """Return the arguments of `__new__` for copies."""
        return (self.options,)

    def __init__(self, options: Any) -> None:
        """Set the columns from the options.

        With `pair` the columns are text_a and text_b, and `text` joins both to compare rows. If a text occurs in several pairs, a column
        `group` should keep them in one split.
        """
        super().__init__(options)
        self.inputs = encoding.PAIR if options.pair else ("text",)
        self.columns = (*self.inputs, "label")
        self.augmentable_columns = self.inputs
        self.example = {name: "An example of a text to be answered." for name in self.inputs}
        if options.head_dropout is not None:
            self.unsupported_settings = {**self.unsupported_settings, "dropout": _HEAD_DROPPED}

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Apply `rename` to the label of a cell; a number is returned unchanged."""
        return rename(cell) if self.label_column else cell

    def label_of(self, cell: str) -> str:
        """Return the label of a cell in answer format; raise ValueError with the reason if it is invalid."""
        return canonical_label(cell)

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return the training targets for the encoded column `labels`; raise BadData for an unknown label."""
        return pa.array(label_indexes(labels, spec.labels), pa.int64())

    @abstractmethod
    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the config settings of the model: num_labels, id2label, label2id and problem_type."""

    @abstractmethod
    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Convert logits, a float64 tensor (rows, outputs), to scores."""

    @abstractmethod
    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Convert scores to predictions."""

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with `text` and the labels in answer format, and the errors by row index."""
        labels, faults = rows["label"].tolist(), dict[int, str]()
        for index, cell in enumerate(labels):
            try:
                labels[index] = self.label_of(cell)
            except ValueError as error:
                faults[index] = str(error)
        pairs = zip(rows["text_a"], rows["text_b"], strict=True) if self.options.pair else ()
        texts = {"text": [f"{a}{encoding.BETWEEN}{b}" for a, b in pairs]} if self.options.pair else {}
        return rows.assign(**texts, label=pd.Series(labels, index=rows.index, dtype=rows["label"].dtype)), faults

    def fit_options(self, train: pd.DataFrame) -> Mapping[str, Any]:
        """Compute the class weights if they are `balanced`; else check the labels of given weights."""
        counts, weights = self.label_counts(train), self.options.class_weights
        if weights == "balanced":
            return {"class_weights": {label: round(value, 6) for label, value in self.balanced(counts, len(train)).items()}}
        if isinstance(weights, dict) and (unknown := sorted(weights.keys() - counts.keys())):
            names, known = ", ".join(map(repr, unknown)), ", ".join(sorted(counts))
            raise BadParams(f"params.yaml: task_options.class_weights has unknown labels {names}; the training rows have: {known}")
        return {}

    def balanced(self, counts: Mapping[str, int], rows: int) -> Mapping[str, float]:
        """Return rows / (k * count) per label, with mean 1 over the rows (King & Zeng, 2001; same as scikit-learn)."""
        return {label: rows / (len(counts) * count) for label, count in sorted(counts.items())}

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer; without a padding token it pads with its end token. Raise BadModel if that fails."""
        return pretrained.load_tokenizer(base, pad="eos")

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each row in tokens, special tokens included, before truncation."""
        return token_lengths(partial(encoding.tokenize, tokenizer), self._texts(rows, "NFC"))

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the model inputs without padding, `labels` (the training targets) and `length` in tokens.

        Raise BadData if a label is not in the label map.
        """
        texts = self._texts(rows, spec.unicode_form)
        inputs = encoding.tokenize(
            tokenizer, texts, truncation=True, max_length=spec.max_length, padding=False, return_attention_mask=False
        )
        return token_table(inputs, labels=self.targets(rows["label"].tolist(), spec))

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model with a classification head in float32; head rows are reused for labels that the base knows.

        Raises:
            BadModel: the folder has no safetensors weights, has custom code, or cannot be read by transformers.
            BadParams: the architecture does not support the requested head.
        """
        outputs = dict(self.outputs(spec))
        if (self.options.pooling, self.options.head_hidden, self.options.head_dropout) != ("default", 0, None):
            from components.model.tasks.text_classification.model import build

            return _padded(build(base, self.options, outputs, ordered=self.ordered), self.load_tokenizer(base))
        head_config = {"retune_head": None} if "retune_head" in pretrained.config(base) else {}
        # A fine-tuned base may have a head of another size.
        settings = {**outputs, **head_config, "ignore_mismatched_sizes": True}
        model = pretrained.load_model("AutoModelForSequenceClassification", base, **settings)
        output_heads.take_rows(model, base, list(outputs["id2label"].values()), "ForSequenceClassification", ordered=self.ordered)
        return _padded(model, self.load_tokenizer(base))

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator that pads a batch to its longest row."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def fitted(
        self, features: FrozenFeatures, spec: ModelSpec, metric: str, solver: linear_probe.Solver, *weightings: str, stratify: bool = False
    ) -> linear_probe.LinearHead:
        """Return the head of `solver` with the best out-of-fold `metric`."""

        def evaluate(held: FrozenFeatures, logits: Floats) -> tuple[npt.NDArray[Any], npt.NDArray[Any], float]:
            return logits, held.targets, self.validate(logits, held.targets, spec)[metric]

        return linear_probe.fit_head(features, solver, weightings or ("none",), evaluate, features.targets if stratify else None)

    def probe(
        self, train: pd.DataFrame, spec: ModelSpec, base: Path, otherwise: tasks.Baseline, **further: probe_baseline.Options
    ) -> tasks.Baseline:
        """Return the baseline `probe`, with the better class weights instead of those of the candidate."""
        plain = spec.model_copy(update={"options": {**spec.options, "class_weights": "none"}, "temperature": 1.0})
        return probe_baseline.fit(self, train, plain, base, otherwise, **further)

    def vectors(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """Return the pooled token vectors that the classification head reads."""
        from components.model.tasks.text_classification.model import token_vectors

        return token_vectors(model, inputs, self.options.pooling)

    def predictor(self, folder: Path) -> TextClassifier:
        """Load a saved model folder."""
        return TextClassifier(folder)

    def _texts(self, rows: pd.DataFrame, form: UnicodeForm) -> encoding.Texts:
        """Return the texts to encode: preprocessing has normalised `text`, but not the texts of a pair."""
        return encoding.texts_of(rows, True, form) if self.options.pair else (rows["text"].tolist(),)


def _padded(model: Any, tokenizer: Any) -> Any:
    """Set the padding token in the config unless the model derives positions from its own."""
    config = model.config
    if config.pad_token_id != tokenizer.pad_token_id and config.model_type not in pretrained.OFFSET_POSITIONS:
        config.pad_token_id = tokenizer.pad_token_id
    return model


def label_indexes(labels: Sequence[str], label_map: Sequence[str]) -> list[int]:
    """Return the index of each label in `label_map`; raise BadData if labels are not in the map."""
    indexes = {label: index for index, label in enumerate(label_map)}
    if unknown := sorted(set(labels) - set(indexes)):
        raise BadData(f"labels {', '.join(map(repr, unknown))} are not in the label map ({', '.join(label_map)})")
    return [indexes[label] for label in labels]


def weights_in_order(spec: ModelSpec) -> list[float] | None:
    """Return the weight of each label, 1 if it is not listed; None if there are no weights."""
    weights = spec.options.get("class_weights")
    return [float(weights.get(label, 1.0)) for label in spec.labels] if isinstance(weights, Mapping) else None


def scored(predicted: Sequence[str], scores: Floats, labels: Sequence[str]) -> ModelOutput:
    """Return predictions with the label probabilities `scores` (rows, labels)."""
    return ModelOutput.texts(predicted, {f"{PROBABILITY}{label}": scores[:, index] for index, label in enumerate(labels)})
