"""Extractive question answering: predicts the span of a context that answers a question, or no answer.

`answers` is JSON as in SQuAD (Rajpurkar et al. 2016, 2018): {"text": [...], "answer_start": [...]}; see `answers.py` for other formats.
Long contexts are split into overlapping pieces; only a question longer than half a piece is truncated. Data without groups are grouped by
context, because questions about one context are near duplicates and must be in one split.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field

from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.section import Section
from components.core.text import grouped
from components.model import tasks
from components.model.support import pretrained
from components.model.support.batches import token_lengths, token_table
from components.model.support.metrics import Floats, Metric, mean, ratio
from components.model.tasks.question_answering import answers, baselines, scores, tables
from components.model.tasks.question_answering.features import Feature, features, load_tokenizer

log = logging.getLogger(__name__)

_ANSWERABLE: Mapping[str, Metric] = {
    "f1": mean("f1", "mean over questions of the best word F1 with an accepted answer (SQuAD)"),
    "exact_match": mean("exact", "share of the questions with an exact answer, ignoring case, punctuation and articles"),
}
_UNANSWERABLE: Mapping[str, Metric] = {
    "has_answer_f1": Metric(("has_answer_f1", "has_answer"), ratio, "F1 of the questions that have an answer"),
    "has_answer_exact": Metric(("has_answer_exact", "has_answer"), ratio, "exact match of the questions that have an answer"),
    "no_answer_accuracy": Metric(("no_answer_right", "no_answer"), ratio, "share of the questions without an answer left unanswered"),
}


PORTFOLIO: tuple[Mapping[str, Any], ...] = (
    {"method": "full", "learning_rate": 2e-4, "epochs": 2, "batch_size": 8},
    {"method": "full", "learning_rate": 1e-4, "epochs": 3, "batch_size": 16},
    {"method": "full", "learning_rate": 5e-5, "epochs": 3, "batch_size": 8},
    {"method": "lora", "learning_rate": 1e-3, "epochs": 3, "batch_size": 8, "lora_targets": "all-linear"},
)
"""Without a linear probe: the output layer scores positions of a context, which are not classes."""


class Options(Section):
    """How contexts are split, and which answers are allowed."""

    stride: int = Field(128, ge=0, description="overlap in tokens of neighbouring pieces of a long context; at most a third of a piece")
    max_answer_tokens: int = Field(30, ge=1, le=10_000, description="maximum length of an answer in tokens")
    unanswerable: bool = Field(False, description="allow questions without an answer in the context, as in SQuAD 2.0")
    no_answer_threshold: float | None = Field(
        None, description="unanswerable: no answer if its score exceeds the best span by more; null: fitted on the validation rows"
    )


class Task(tasks.Task):
    """Predict the span of a context that answers a question."""

    Options = Options
    portfolio = PORTFOLIO
    columns = ("question", "context", "answers")
    inputs = ("question", "context")
    splits_long_rows = True
    example: Mapping[str, str] = {"question": "Who wrote the letter?", "context": "The letter was written by Ada Lovelace in 1843."}
    validation_metrics = ("span_f1", "span_accuracy")
    by_token = True
    baselines = baselines.NAMES
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": "its loss is over two positions, which Trainer's smoothing does not support",
        "r_drop": "it compares class logits, and this task predicts two positions",
        "calibration": "a temperature needs class probabilities; the threshold for no answer is task_options.no_answer_threshold",
        "class_biases": "an answer is a span of the text, not a class",
        "contrastive_start": "questions do not share labels",
        "head_start": "the output layer scores positions of a context, which are not classes",
        "augment_copies": "answers are positions in the context, which change with its characters",
    }

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.test_metrics: Mapping[str, Metric] = {**_ANSWERABLE, **_UNANSWERABLE} if options.unanswerable else _ANSWERABLE

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return the rows with `text` and `label` (a JSON list of accepted answers), and the errors by row index.

        A `group` that repeats the id is replaced by one per context. The optional column `is_impossible` is read.
        """
        labels: list[str] = []
        faults: dict[int, str] = {}
        flags = rows["is_impossible"] if "is_impossible" in rows else [None] * len(rows)
        for index, (question, context, cell, flag) in enumerate(
            zip(rows["question"], rows["context"], rows["answers"], flags, strict=True)
        ):
            label, fault = self._read(question, context, cell, answers.is_true(flag))
            labels.append(label)
            if fault:
                faults[index] = fault
        texts = [f"{question}\n{context}" for question, context in zip(rows["question"], rows["context"], strict=True)]
        made = {"text": texts, "label": labels}
        if len(rows) and not grouped(rows["id"].tolist(), rows["group"].tolist()):
            made["group"] = [answers.group_of(context) for context in rows["context"]]
        return rows.assign(**made), faults

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer; raise BadModel if it is missing or has no character offsets."""
        return load_tokenizer(base)

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the tokens of question and context of each row, including special tokens."""
        return token_lengths(tokenizer, list(rows["question"]), list(rows["context"]))

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return one row per piece: the model inputs without padding, `start_positions`, `end_positions` and `length` in tokens.

        The target is the first annotator's answer; a piece that does not contain all of it points to the no-answer token.
        Raise BadParams if `max_length` is too small for question and context.
        """
        pieces = features(rows["question"].tolist(), rows["context"].tolist(), tokenizer, spec.max_length, self.options.stride)
        cells = zip(rows["answers"], rows["context"], rows["label"], strict=True)
        targets = [answers.spans(cell, context)[:1] if label != "[]" else () for cell, context, label in cells]
        locations = [piece.locate(targets[piece.row][0]) if targets[piece.row] else None for piece in pieces]
        self._report(pieces, locations, sum(map(bool, targets)))
        names = pieces[0].inputs if pieces else ["input_ids"]
        ends = [location or (piece.no_answer, piece.no_answer) for piece, location in zip(pieces, locations, strict=True)]
        starts, stops = (pa.array([span[side] for span in ends], pa.int64()) for side in (0, 1))
        return token_table({name: [piece.inputs[name] for piece in pieces] for name in names}, start_positions=starts, end_positions=stops)

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model with a head for start and end in float32, new if the base has none; raise BadModel.

        XLNet and XLM get the simple head, not the one with a beam search.
        """
        # A base that was fine-tuned for another task may have other labels.
        names = pretrained.label_settings(["LABEL_0", "LABEL_1"])
        return pretrained.load_model("AutoModelForQuestionAnswering", base, ignore_mismatched_sizes=True, **names)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator that pads pieces on the right to the longest of a batch."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return the first and last token of the best span of each piece, (pieces, 2); the no-answer token is also a span."""
        import torch

        start, end = logits[0].float(), logits[1].float()
        tokens = start.shape[1]
        allowed = torch.ones(tokens, tokens, dtype=torch.bool, device=start.device).triu().tril(self.options.max_answer_tokens - 1)
        sums = (start[:, :, None] + end[:, None, :]).masked_fill(~allowed, float("-inf"))
        best = sums.flatten(1).argmax(dim=1)
        return torch.stack([best // tokens, best % tokens], dim=1)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return the share of pieces with an exact span, and the mean token F1 of spans."""
        predicted, targets = np.asarray(outputs), np.asarray(expected)
        shared = np.minimum(predicted[:, 1], targets[:, 1]) - np.maximum(predicted[:, 0], targets[:, 0]) + 1
        tokens = predicted[:, 1] - predicted[:, 0] + targets[:, 1] - targets[:, 0] + 2
        return {
            "span_f1": float(np.mean(2 * np.maximum(shared, 0) / tokens)),
            "span_accuracy": float(np.mean((predicted == targets).all(axis=1))),
        }

    def calibrate(self, folder: Path, validation: pd.DataFrame) -> Mapping[str, Any]:
        """Fit the no-answer threshold with the best F1 on the validation rows unless it is set or not needed."""
        if not self.options.unanswerable or self.options.no_answer_threshold is not None:
            return {}
        spans = self.predictor(folder).spans(validation)
        margins = np.array([span.margin for span in spans], dtype=np.float64)
        expected = [answers.texts_of(label) for label in validation["label"]]
        answered = np.array([scores.f1(span.text, texts) for span, texts in zip(spans, expected, strict=True)], dtype=np.float64)
        unanswered = np.array([scores.f1("", texts) for texts in expected], dtype=np.float64)
        threshold = scores.best_threshold(margins, answered, unanswered)
        f1 = {value: float(np.where(margins > value, unanswered, answered).mean()) if spans else 0.0 for value in (0.0, threshold)}
        log.info("no-answer threshold %.4f: validation F1 %.4f (%.4f at threshold 0)", threshold, f1[threshold], f1[0.0])
        return {"no_answer_threshold": threshold}

    def predictor(self, folder: Path) -> Any:
        """Load a saved model folder."""
        from components.model.tasks.question_answering.predictor import QuestionAnswerer

        return QuestionAnswerer(folder)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return `f1`, `exact` and `rows`, also for rows with and without an answer."""
        accepted, predictions = [answers.texts_of(label) for label in expected], ["".join(answers.texts_of(text)[:1]) for text in predicted]
        pairs = list(zip(predictions, accepted, strict=True))
        f1 = np.array([scores.f1(text, texts) for text, texts in pairs], dtype=np.float64)
        exact = np.array([scores.exact(text, texts) for text, texts in pairs], dtype=np.float64)
        has = np.array([bool(texts) for texts in accepted], dtype=np.float64)
        return {
            "f1": f1,
            "exact": exact,
            "rows": np.ones(len(has)),
            "has_answer": has,
            "has_answer_f1": f1 * has,
            "has_answer_exact": exact * has,
            "no_answer": 1 - has,
            "no_answer_right": exact * (1 - has),
        }

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, tasks.Baseline]:
        """Predict the first sentence, the sentence most similar to the question, and its words that are not in the question."""
        return baselines.fit(train, self.options.unanswerable)

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return slices by answerability, answer length, question word and context length."""
        return tables.slices(rows)

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return the worst answers with the expected ones, and the counts of answered questions if unanswerable."""
        return tables.tables(rows, predictions, self.options.unanswerable)

    def _read(self, question: str, context: str, cell: str, impossible: bool) -> tuple[str, str]:
        """Return the label of a row and "", or "[]" and the error."""
        for name, text in (("question", question), ("context", context)):
            if not text.strip():
                return "[]", f"{name} is empty"
        try:
            spans = answers.spans(cell, context)
        except answers.BadAnswers as error:
            return "[]", str(error)
        if impossible and spans:
            return "[]", answers.BOTH
        if not spans and not self.options.unanswerable:
            return "[]", answers.NONE
        return answers.canonical([span.text for span in spans]), ""

    def _report(self, pieces: Sequence[Feature], locations: Sequence[tuple[int, int] | None], answered: int) -> None:
        """Log the answers that no piece contains completely, and those that are too long."""
        located = {piece.row: location for piece, location in zip(pieces, locations, strict=True) if location is not None}
        too_long = sum(last - first >= self.options.max_answer_tokens for first, last in located.values())
        log.info("%d questions, %d with an answer, in %d pieces", len({piece.row for piece in pieces}), answered, len(pieces))
        if split := answered - len(located):
            log.warning(
                "no piece contains %d of %d answers completely: raise task_options.stride or preprocess.max_length", split, answered
            )
        if too_long:
            log.warning("%d of %d answers are longer than task_options.max_answer_tokens and cannot be predicted", too_long, answered)
