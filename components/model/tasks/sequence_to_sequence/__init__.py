"""Sequence to sequence: one text in, another out, as in translation and summarisation.

Reads a base model folder in hub layout: an encoder-decoder (T5, BART, Marian), or an encoder, which then becomes both halves of one.
Torch and transformers are imported inside the functions: asking a task for its columns must stay cheap.
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
from components.core.text import normalise
from components.model.support import generation
from components.model.support.control_tokens import controls, log_typed_tokens, plain
from components.model.support.metrics import Metric
from components.model.support.task_base import Base

log = logging.getLogger(__name__)


class Options(generation.Scoring):
    """What is read before a text, how long its answer may be, and how it is searched for."""

    prefix: str = Field("", description='what the model reads before each source, as T5\'s "summarize: "')
    max_target_length: int = Field(64, ge=2, le=100_000, description="tokens of a target that are learnt, special ones included")
    max_new_tokens: int = Field(64, ge=1, le=100_000, description="tokens that an answer has at most")
    num_beams: int = Field(1, ge=1, le=64, description="answers that are followed at a time; 1: the likeliest token each time")
    length_penalty: float = Field(
        1.0, ge=-10, le=10, description="beams: exponent of the length that a score is divided by; above 1 favours long"
    )
    no_repeat_ngram_size: int = Field(0, ge=0, le=100, description="tokens in a row that are not written twice; 0: no such rule")
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="above 1: tokens written before become less likely")

    @model_validator(mode="after")
    def _beams_are_read(self) -> Self:
        if self.num_beams == 1 and self.length_penalty != 1.0:
            raise ValueError(f"length_penalty is read where num_beams is above 1, found {self.length_penalty:g} with num_beams 1")
        return self

    def search(self) -> dict[str, Any]:
        """Return what transformers' GenerationConfig takes; what only beams read is left out without them, for it would complain."""
        names = ("max_new_tokens", "num_beams", "no_repeat_ngram_size", "repetition_penalty")
        beams = {"length_penalty": self.length_penalty} if self.num_beams > 1 else {}
        return {name: getattr(self, name) for name in names} | beams


def reading(tokenizer: Any, prefix: str) -> Any:
    """Return what encodes prefixed sources: of control tokens, those in `prefix` count, and others are text."""
    return plain(tokenizer, keep=[token for token in controls(tokenizer) if token in prefix])


class Task(Base):
    """One text in, another out."""

    Options = Options
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
        "r_drop": "it compares passes over all tokens, padding too, so that a row's loss would hang on its company",
        "neftune": "it acts on one embedding, and most encoder-decoders enter by two others that share its weights",
        "calibration": "answers are texts, which have no probabilities of classes",
        "contrastive_start": "texts have no label that others share",
        "augment_copies": "names and numbers of a source stand in its target, and a changed one would not",
    }

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with source and target as `text` and `label`; a row with nothing visible in either is bad."""
        texts, labels = rows["source"].tolist(), [str(target).strip() for target in rows["target"]]
        faults = {}
        for place, pair in enumerate(zip(texts, labels, strict=True)):
            if empty := [name for name, text in zip(self.columns, pair, strict=True) if not normalise(str(text), "NFC")]:
                faults[place] = f"{' and '.join(empty)} without a visible character"
        return rows.assign(text=texts, label=labels), faults

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each prefixed source in tokens, special tokens included, before truncation."""
        return super().lengths(rows.assign(text=self.options.prefix + rows["text"]), reading(tokenizer, self.options.prefix))

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the model's inputs without padding, `labels` (the target's token ids) and `length` of the source in tokens."""
        from components.model.tasks.sequence_to_sequence import _model

        log_typed_tokens(tokenizer, zip(rows["text"], rows["label"], strict=True), "only task_options.prefix writes control tokens")
        sources = [self.options.prefix + text for text in rows["text"]]
        reads = reading(tokenizer, self.options.prefix)
        inputs = reads(sources, truncation=True, max_length=spec.max_length, padding=False, return_attention_mask=False)
        columns = {name: pa.array(inputs[name], pa.list_(pa.int32())) for name in sorted(inputs.keys())}
        labels = _model.target_ids(list(rows["label"]), tokenizer)
        if cut := sum(len(ids) > self.options.max_target_length for ids in labels):
            log.warning("%d of %d targets are cut at task_options.max_target_length %d", cut, len(labels), self.options.max_target_length)
        columns["labels"] = pa.array([ids[: self.options.max_target_length] for ids in labels], pa.list_(pa.int32()))
        columns["length"] = pa.array([len(ids) for ids in inputs["input_ids"]], pa.int32())
        return pa.table(columns)

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the encoder-decoder, or make one of an encoder: its joining attention is drawn from torch's global generator.

        Raises:
            BadModel: no safetensors weights, code of its own, or neither an encoder-decoder nor an encoder that can become one.
            BadParams: the decoder has fewer positions than targets or answers may have tokens.
        """
        from components.model.tasks.sequence_to_sequence import _model

        return _model.build(base, self.load_tokenizer(base), self.options)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return what pads sources, pads targets with -100, and shifts these into what the decoder reads."""
        from components.model.tasks.sequence_to_sequence import _model

        return _model.Collator(tokenizer)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return log-likelihood, number and hits of each row's target tokens: (rows, 3)."""
        return generation.teacher_forced(super().condense(logits, labels), labels)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return nats per target token and the share of target tokens that are the likeliest, both where the target so far is given."""
        return generation.validation(outputs)

    def predictor(self, folder: Path) -> Any:
        """Load a saved model folder."""
        from components.model.tasks.sequence_to_sequence import _model

        return _model.Writer(folder, self.options, self.load_tokenizer(folder))

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, npt.NDArray[np.float64]]:
        """Return the counts behind ROUGE, BLEU, chrF and exact match."""
        return generation.compare(expected, predicted, self.options)

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, ModelOutput]:
        """Return each source as it is, and its first words, as many as the median target of `train` has."""
        words = round(float(np.median([generation.words_of(target) for target in train["label"]])))
        log.info("baseline lead: the first %d words", words)
        sources = test["text"].tolist()
        return {"copy": ModelOutput.texts(sources), "lead": ModelOutput.texts([" ".join(source.split()[:words]) for source in sources])}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the bands of lengths of sources and targets."""
        return {
            "source_length": generation.length_bands(rows["text"].tolist()),
            "target_length": generation.length_bands(rows["label"].tolist()),
        }

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return the worst rows, some of the usual ones, and lengths."""
        ids, read, expected, written = (list(map(str, each)) for each in (found.ids, rows["text"], found.expected, found.predicted))
        return (
            generation.worst(ids, read, expected, written, self.options),
            generation.side_by_side(ids, read, expected, written),
            generation.length_table(expected, written),
        )
