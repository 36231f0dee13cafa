"""Masked language modelling: adapts an encoder to the texts of a domain or task.

The saved folder can be the base model of every other task: Gururangan et al., "Don't Stop Pretraining" (2020).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel
from components.core.section import Section
from components.model import tasks
from components.model.support import pretrained
from components.model.support.metrics import Floats, Metric, ratio
from components.model.support.words import length_band
from components.model.tasks.masked_lm import tokens, words

_TABLE_ROWS = 20
_SIZES = (4, 16, 64)  # words
_MASKS = ("[MASK]", "<mask>")


PORTFOLIO: tuple[Mapping[str, Any], ...] = (
    {"method": "full", "learning_rate": 1e-4, "epochs": 3, "batch_size": 32},
    {"method": "full", "learning_rate": 3e-4, "epochs": 3, "batch_size": 32},
    {"method": "full", "learning_rate": 5e-5, "epochs": 3, "batch_size": 16},
    {"method": "lora", "learning_rate": 1e-3, "epochs": 3, "batch_size": 32, "lora_targets": "all-linear"},
)
"""Without a linear probe: the output layer predicts tokens, and is pretrained."""


class Options(Section):
    """Masking and sequence settings for training; the masked words of a test depend only on the text."""

    mask_probability: float = Field(
        0.15, gt=0, le=0.9, description="share of the tokens or words that are masked, drawn again in each epoch"
    )
    whole_word: bool = Field(False, description="mask all pieces of a word, or none; words are separated by spaces")
    line_by_line: bool = Field(
        True, description="true: a row is a sequence, truncated to preprocess.max_length; false: rows are joined and split into blocks"
    )


class Task(tasks.Task):
    """Fill in the masked words of a text; in a text without masks, words chosen by its hash."""

    Options = Options
    portfolio = PORTFOLIO
    columns = ("text",)
    inputs = ("text",)
    example: Mapping[str, str] = {"text": "Fracture of the left [MASK] with routine healing"}
    validation_metrics = ("log_likelihood", "masked_accuracy")
    by_token = True
    test_metrics: Mapping[str, Metric] = {
        "log_likelihood": Metric(
            ("log_likelihood", "words"),
            ratio,
            "mean log-likelihood in nats per masked word; perplexity is exp(-this). All pieces of a word are masked, their number is known",
            (-math.inf, 0.0),
        ),
        "accuracy": Metric(("right", "words"), ratio, "share of the masked words that are filled in correctly"),
    }
    baselines = ("unigram", "base")
    unsupported_settings: Mapping[str, str] = {
        "calibration": "its answers are words, not classes",
        "class_biases": "its answers are words, not classes",
        "contrastive_start": "texts do not share labels",
        "head_start": "the output layer predicts masked tokens, and is pretrained",
        "augment_copies": "the model would learn to fill in the noise",
    }

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with the masked words as `label`; texts with a mask token are invalid."""
        texts = rows["text"].tolist()
        faults = {index: f"text contains {mask}" for mask in _MASKS for index, text in enumerate(texts) if mask in text}
        return rows.assign(label=pd.Series([words.expected(text) for text in texts], index=rows.index, dtype="str")), faults

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer; raise BadModel if it is missing, has no mask token, or is not a fast tokenizer."""
        tokenizer = pretrained.load_tokenizer(base, fast="has no character offsets")
        if tokenizer.mask_token is None:
            raise BadModel(f"the tokenizer in {base} has no mask token: masked_lm needs an encoder such as BERT or RoBERTa")
        return tokenizer

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return `input_ids`, `units` (tokens with equal values are masked together; -1: never) and `length`."""
        whole_word, line_by_line = self.options.whole_word, self.options.line_by_line
        return tokens.sequences(rows, tokenizer, spec.max_length, whole_word=whole_word, line_by_line=line_by_line)

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model in float32; a missing head is drawn from torch's global generator and tied to the embeddings."""
        from components.model.tasks.masked_lm import model

        return model.load(base, head=True)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator that masks and pads a batch; evaluation masks are fixed, training masks change per epoch."""
        from components.model.tasks.masked_lm.masking import Masking

        return Masking(tokenizer, self.options.mask_probability)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return log-likelihood (nats), hits and number of masked tokens of each row: (rows, 3)."""
        from components.model.tasks.masked_lm import model

        return model.condense(super().condense(logits, labels), labels)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute the mean log-likelihood per masked token in nats, and their accuracy."""
        likelihood, hits, masked = np.asarray(outputs, dtype=np.float64).sum(axis=0)
        return {"log_likelihood": float(ratio(likelihood, masked)), "masked_accuracy": float(ratio(hits, masked))}

    def predictor(self, folder: Path) -> Any:
        """Load a saved model folder."""
        from components.model.tasks.masked_lm import model
        from components.model.tasks.masked_lm.predictor import Filler

        return Filler(model.load(folder), pretrained.load_tokenizer(folder), ModelSpec.read(folder))

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return `words`, the number of masked words, and `right`, the correct ones."""
        masked = [text.split() for text in expected]
        filled = [text.split() for text in predicted]
        right = [sum(map(str.__eq__, *pair)) for pair in zip(masked, filled, strict=True)]
        return {"right": np.array(right, dtype=np.float64), "words": np.array([len(row) for row in masked], dtype=np.float64)}

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, tasks.Baseline]:
        """Predict the most common word, and with the untouched base model; a missing head is random."""
        import torch

        from components.model.tasks.masked_lm.predictor import Filler

        tokenizer = self.load_tokenizer(base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            untouched = Filler(self.build_model(base, spec), tokenizer, spec)
        return {"unigram": unigram(train["text"].tolist(), tokenizer), "base": untouched.answer}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return slices by number of words."""
        return {"words": [length_band(len(words.spans(text)), _SIZES) for text in rows["text"]]}

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return perplexities, the most frequent masked words, and the least likely words."""
        return _perplexities(rows, predictions, self), _by_word(predictions), _least_likely(rows, predictions)


def unigram(train: Sequence[str], tokenizer: Any) -> tasks.Baseline:
    """Predict the most common word of `train`, with add-one smoothed piece frequencies as likelihoods.

    As for a model, the number of pieces is known, and a word without a separate piece counts as one piece at chance.
    """
    frequencies = Counter(text[start:stop] for text in train for start, stop in words.spans(text))
    common = min(frequencies, key=lambda word: (-frequencies[word], word), default=words.EMPTY)
    counts = Counter(token for body, _ in tokens.pieces(train, tokenizer) for token in body)
    total, chance = math.log(counts.total() + len(tokenizer)), math.log(len(tokenizer))

    def predict(rows: pd.DataFrame) -> ModelOutput:
        texts, likelihood = rows["text"].tolist(), []
        for text, (body, offsets) in zip(texts, tokens.pieces(texts, tokenizer), strict=True):
            slots = words.slots(text, offsets)
            missing = len(words.masked(text)) - len(set(slots[slots >= 0].tolist()))
            nats = sum(math.log(counts[token] + 1) - total for token, slot in zip(body, slots.tolist(), strict=True) if slot >= 0)
            likelihood.append(nats - chance * missing)
        filled = [" ".join([common] * len(words.masked(text))) for text in texts]
        return ModelOutput.texts(filled, {"log_likelihood": np.array(likelihood, dtype=np.float64)})

    return predict


def _perplexities(rows: pd.DataFrame, predictions: Predictions, task: Task) -> ReportTable:
    masked = task.statistics(predictions.expected.tolist(), predictions.predicted.tolist())["words"]
    sizes = np.array(task.slices(rows)["words"])
    lines: list[tuple[str, int, float]] = []
    for name, mask in (("all", np.ones(len(sizes), dtype=bool)), *((size, sizes == size) for size in sorted(set(sizes.tolist()), key=len))):
        mean = float(ratio(predictions.measured["log_likelihood"][mask].sum(), masked[mask].sum()))
        lines.append((str(name), int(masked[mask].sum()), round(math.exp(min(-mean, 700.0)), 2)))
    return ReportTable(title="Perplexity per masked word", columns=("texts of", "masked words", "perplexity"), rows=tuple(lines))


def _by_word(predictions: Predictions) -> ReportTable:
    """Count how often each word was masked and filled in correctly."""
    cells = zip(predictions.expected.tolist(), predictions.predicted.tolist(), strict=True)
    pairs = [pair for expected, predicted in cells for pair in zip(expected.split(), predicted.split(), strict=False)]
    masked, right = Counter(word for word, _ in pairs), Counter(word for word, answer in pairs if word == answer)
    lines = [(word, masked[word], right[word]) for word in sorted(masked, key=lambda word: (-masked[word], word))[: _TABLE_ROWS + 10]]
    return ReportTable(title="Most frequent masked words", columns=("word", "masked", "correct"), rows=tuple(lines))


def _least_likely(rows: pd.DataFrame, predictions: Predictions) -> ReportTable:
    """Return the texts with the least likely words, and the predicted words."""
    nats = predictions.measured["log_likelihood"] / np.maximum([len(words.masked(text)) for text in rows["text"]], 1)
    lines = []
    for row in np.argsort(nats, kind="stable")[:_TABLE_ROWS]:
        text = str(rows["text"].iloc[int(row)])
        lines.append((_with_blanks(text), str(predictions.expected[row]), str(predictions.predicted[row]), round(float(nats[row]), 2)))
    return ReportTable(title="Least likely words", columns=("text", "masked", "filled in", "nats per word"), rows=tuple(lines))


def _with_blanks(text: str) -> str:
    """Return `text` with a blank for each masked word."""
    for start, stop in reversed(words.masked(text)):
        text = text[:start] + "____" + text[stop:]
    return text
