"""Sequence to sequence: generates a target text from a source text, e.g. translation and summarisation.

The base model is an encoder-decoder (T5, BART, Marian), or an encoder that is used as both encoder and decoder.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field, model_validator

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.text import first_words, normalise, split_words
from components.model import tasks
from components.model.support import generation
from components.model.support.batches import token_table
from components.model.support.control_tokens import controls, log_typed_tokens, plain
from components.model.support.metrics import Floats, Metric

log = logging.getLogger(__name__)


PORTFOLIO: tuple[Mapping[str, Any], ...] = (
    {"method": "full", "learning_rate": 5e-4, "epochs": 4, "batch_size": 16},
    {"method": "full", "learning_rate": 2e-4, "epochs": 4, "batch_size": 16},
    {"method": "lora", "learning_rate": 1e-3, "epochs": 4, "batch_size": 16, "lora_targets": "all-linear"},
    {"method": "full", "learning_rate": 1e-4, "epochs": 8, "batch_size": 8},
)
"""Without a linear probe: an answer is a text."""


class Options(generation.TextScoring):
    """Input prefix, target lengths and generation settings."""

    prefix: str = Field("", description='text before each source, e.g. "summarize: " for T5')
    max_target_length: int = Field(64, ge=2, le=100_000, description="maximum tokens of a training target, including special tokens")
    max_new_tokens: int = Field(64, ge=1, le=100_000, description="maximum tokens of an answer")
    num_beams: int = Field(1, ge=1, le=64, description="number of beams; 1: greedy decoding")
    length_penalty: float = Field(
        1.0, ge=-10, le=10, description="beams: exponent of the length that scores are divided by; above 1 favours long answers"
    )
    no_repeat_ngram_size: int = Field(0, ge=0, le=100, description="n-grams of this size are not repeated; 0: off")
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="above 1: tokens generated before become less likely")

    @model_validator(mode="after")
    def _beams_are_used(self) -> Self:
        if self.num_beams == 1 and self.length_penalty != 1.0:
            raise ValueError(f"length_penalty {self.length_penalty:g} is used only with num_beams above 1")
        return self

    def search(self) -> dict[str, Any]:
        """Return the settings for transformers' GenerationConfig, which rejects length_penalty without beams."""
        names = ("max_new_tokens", "num_beams", "no_repeat_ngram_size", "repetition_penalty")
        beams = {"length_penalty": self.length_penalty} if self.num_beams > 1 else {}
        return {name: getattr(self, name) for name in names} | beams


def source_tokenizer(tokenizer: Any, prefix: str) -> Any:
    """Return the tokenizer for prefixed sources: only control tokens in `prefix` are special, others are text."""
    return plain(tokenizer, keep=[token for token in controls(tokenizer) if token in prefix])


class Task(tasks.Task):
    """Generate a target text from a source text."""

    Options = Options
    portfolio = PORTFOLIO
    columns = ("source", "target")
    inputs = ("source",)
    example: Mapping[str, str] = {"source": "A text to be summarised or translated."}
    validation_metrics = ("log_likelihood", "token_accuracy")
    by_token = True
    test_metrics: Mapping[str, Metric] = generation.WRITTEN
    baselines = ("copy", "lead")
    normalised = True
    evaluation_batch = 8
    unsupported_settings: Mapping[str, str] = {
        "r_drop": "it compares passes over all tokens including padding, so a row's loss would depend on its batch",
        "neftune": "it changes one embedding module, and most encoder-decoders read two others that share its weights",
        "calibration": "answers are texts without class probabilities",
        "class_biases": "answers are texts, not classes",
        "contrastive_start": "texts do not share labels",
        "head_start": "the output layer predicts the next token, and is pretrained",
        "augment_copies": "names and numbers of a source occur in its target, and a changed one would not",
    }

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with source and target as `text` and `label`; both need a visible character."""
        texts, labels = rows["source"].tolist(), [str(target).strip() for target in rows["target"]]
        faults = {}
        for index, pair in enumerate(zip(texts, labels, strict=True)):
            if empty := [name for name, text in zip(self.columns, pair, strict=True) if not normalise(str(text), "NFC")]:
                faults[index] = f"{' and '.join(empty)} without a visible character"
        return rows.assign(text=texts, label=labels), faults

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each prefixed source in tokens before truncation, including special tokens."""
        return super().lengths(rows.assign(text=self.options.prefix + rows["text"]), source_tokenizer(tokenizer, self.options.prefix))

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the model inputs without padding, `labels` (target token ids) and `length` of the source in tokens."""
        from components.model.tasks.sequence_to_sequence import _model

        log_typed_tokens(tokenizer, zip(rows["text"], rows["label"], strict=True), "only task_options.prefix may contain control tokens")
        sources = [self.options.prefix + text for text in rows["text"]]
        encode = source_tokenizer(tokenizer, self.options.prefix)
        inputs = encode(sources, truncation=True, max_length=spec.max_length, padding=False, return_attention_mask=False)
        labels = _model.target_ids(list(rows["label"]), tokenizer)
        if cut := sum(len(ids) > self.options.max_target_length for ids in labels):
            log.warning(
                "%d of %d targets are truncated to task_options.max_target_length %d", cut, len(labels), self.options.max_target_length
            )
        return token_table(inputs, labels=pa.array([ids[: self.options.max_target_length] for ids in labels], pa.list_(pa.int32())))

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the encoder-decoder, or build one from an encoder with new cross-attention from torch's global generator.

        Raises:
            BadModel: the folder has no safetensors weights, has custom code, or the architecture is not supported.
            BadParams: targets or answers may be longer than the decoder's positions.
        """
        from components.model.tasks.sequence_to_sequence import _model

        return _model.build(base, self.load_tokenizer(base), self.options)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator that pads sources and targets and adds the decoder inputs."""
        from components.model.tasks.sequence_to_sequence import _model

        return _model.Seq2SeqCollator(tokenizer)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return log-likelihood, count and hits of the target tokens of each row: (rows, 3)."""
        return generation.teacher_forced(super().condense(logits, labels), labels)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute nats per target token, and the share of target tokens that are the most likely (teacher forcing)."""
        return generation.validation(outputs)

    def predictor(self, folder: Path) -> Any:
        """Load a saved model folder."""
        from components.model.tasks.sequence_to_sequence import _model

        return _model.Seq2SeqGenerator(folder, self.options, self.load_tokenizer(folder))

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the row statistics of ROUGE, BLEU, chrF and exact match."""
        return generation.compare(expected, predicted, self.options)

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, tasks.Baseline]:
        """Predict the source, and its first words, as many as the median target of `train`."""
        words = round(float(np.median([len(split_words(target)) for target in train["label"]])))
        log.info("baseline lead: the first %d words", words)
        return {
            "copy": lambda rows: ModelOutput.texts(rows["text"].tolist()),
            "lead": lambda rows: ModelOutput.texts([first_words(source, words) for source in rows["text"]]),
        }

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return slices by length of source and target."""
        return {
            "source_length": generation.length_bands(rows["text"].tolist()),
            "target_length": generation.length_bands(rows["label"].tolist()),
        }

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return the worst rows, sample rows, and lengths."""
        return generation.tables(rows, predictions, self.options)
