"""Extractive question answering: a question and a context in, the stretch of the context that answers it out, or no answer.

`answers` is JSON as in SQuAD (Rajpurkar et al. 2016, 2018): {"text": [...], "answer_start": [...]}; other forms stand in `answers.py`.
Long contexts are read in pieces that overlap, so nothing is cut but a question longer than half a piece. Data without groups are
grouped by context: questions about one text are near copies of each other, and must meet in one split.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.section import Section
from components.core.text import grouped
from components.model.support import pretrained
from components.model.support.metrics import Metric, mean, ratio
from components.model.support.task_base import Base
from components.model.tasks.question_answering import answers, baselines, pages, scores
from components.model.tasks.question_answering.contexts import group_of
from components.model.tasks.question_answering.features import Feature, features
from components.model.tasks.question_answering.loading import load_tokenizer

if TYPE_CHECKING:
    from components.model.tasks.question_answering.predictor import QuestionAnswerer

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_ANSWERABLE: Mapping[str, Metric] = {
    "f1": mean("f1", "mean over questions of the best F1 of words with an accepted answer, as SQuAD counts it"),
    "exact_match": mean("exact", "share of the questions answered word for word, but for case, punctuation and articles"),
}
_UNANSWERABLE: Mapping[str, Metric] = {
    "has_answer_f1": Metric(("has_answer_f1", "has_answer"), ratio, "F1 of the questions that have an answer"),
    "has_answer_exact": Metric(("has_answer_exact", "has_answer"), ratio, "exact match of the questions that have an answer"),
    "no_answer_accuracy": Metric(("no_answer_right", "no_answer"), ratio, "share of the questions without an answer left unanswered"),
}


class Options(Section):
    """How contexts are read, and what an answer may be."""

    stride: int = Field(128, ge=0, description="tokens that neighbouring pieces of a long context share; a third of a piece at most")
    max_answer_tokens: int = Field(30, ge=1, le=10_000, description="a longer span is never answered; also the most that a search looks at")
    unanswerable: bool = Field(False, description="whether a question may have no answer in its context, as in SQuAD 2.0")
    no_answer_threshold: float | None = Field(
        None, description="unanswerable: no answer where its score is above the best span's by more; null: tuned on the validation rows"
    )


class Task(Base):
    """A question and a context in, a stretch of the context out."""

    Options = Options
    columns = ("question", "context", "answers")
    inputs = ("question", "context")
    splits_long_rows = True
    example: Mapping[str, str] = {"question": "Who wrote the letter?", "context": "The letter was written by Ada Lovelace in 1843."}
    validation_metrics = ("span_f1", "span_accuracy")
    by_token = True
    baselines = baselines.NAMES
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": "its loss is that of two positions, which Trainer's smoothing does not reach",
        "r_drop": "it compares the logits of classes, and there are two positions here",
        "calibration": "a temperature needs probabilities of classes; the threshold for no answer is task_options.no_answer_threshold",
        "contrastive_start": "questions have no label that others share",
        "augment_copies": "answers are places in the context, which move with its characters",
    }

    def __init__(self, options: Any) -> None:
        """Hold the settings; where all questions have an answer there is nothing to measure of the others."""
        super().__init__(options)
        self.test_metrics: Mapping[str, Metric] = {**_ANSWERABLE, **_UNANSWERABLE} if options.unanswerable else _ANSWERABLE

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return the rows with `text` (question, line end, context) and `label` (a JSON list of the accepted texts), and the bad ones.

        A `group` that only repeats the id is replaced by one for each context. A column `is_impossible` is heeded.
        """
        labels: list[str] = []
        faults: dict[int, str] = {}
        flags = rows["is_impossible"] if "is_impossible" in rows else [None] * len(rows)
        for place, (question, context, cell, flag) in enumerate(
            zip(rows["question"], rows["context"], rows["answers"], flags, strict=True)
        ):
            label, fault = self._read(question, context, cell, answers.is_true(flag))
            labels.append(label)
            if fault:
                faults[place] = fault
        texts = [f"{question}\n{context}" for question, context in zip(rows["question"], rows["context"], strict=True)]
        made = {"text": texts, "label": labels}
        if len(rows) and not grouped(rows["id"].tolist(), rows["group"].tolist()):
            made["group"] = [group_of(context) for context in rows["context"]]
        return rows.assign(**made), faults

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer of a model folder; BadModel also where it has no offsets to characters."""
        return load_tokenizer(base)

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the tokens of question and context of each row, special ones included; more than fit a piece are read in several."""
        pairs = (list(rows["question"]), list(rows["context"]))
        inputs = tokenizer(*pairs, truncation=False, padding=False, return_attention_mask=False, verbose=False)
        return np.array([len(ids) for ids in inputs["input_ids"]], dtype=np.int64)

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return a row for each piece: the model's inputs without padding, `start_positions` and `end_positions`, `length` in tokens.

        What is learnt is the first annotator's answer; a piece that does not hold the whole of it points at the token for no answer.

        Raises:
            BadParams: `max_length` leaves no room for question and context.
        """
        pieces = features(rows["question"].tolist(), rows["context"].tolist(), tokenizer, spec.max_length, self.options.stride)
        cells = zip(rows["answers"], rows["context"], rows["label"], strict=True)
        wanted = [answers.spans(cell, context)[:1] if label != "[]" else () for cell, context, label in cells]
        places = [piece.locate(wanted[piece.row][0]) if wanted[piece.row] else None for piece in pieces]
        self._report(pieces, places, sum(map(bool, wanted)))
        names = sorted(pieces[0].inputs) if pieces else ["input_ids"]
        columns = {name: pa.array([piece.inputs[name] for piece in pieces], pa.list_(pa.int32())) for name in names}
        ends = [place or (piece.nothing, piece.nothing) for piece, place in zip(pieces, places, strict=True)]
        columns["start_positions"] = pa.array([first for first, _ in ends], pa.int64())
        columns["end_positions"] = pa.array([last for _, last in ends], pa.int64())
        columns["length"] = pa.array([len(piece) for piece in pieces], pa.int32())
        return pa.table(columns)

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model with a head for the two ends of an answer, in float32, drawn where the base has none; BadModel.

        XLNet and XLM get the simple head, not the one with a beam search.
        """
        # A base that was fine-tuned as another task names labels of its own, and any number of them.
        named: dict[str, Any] = {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
        return pretrained.load_model("AutoModelForQuestionAnswering", base, ignore_mismatched_sizes=True, **named)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return what pads a batch of pieces, on the right, to its longest."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return the first and last token of the best span of each piece, (pieces, 2); the token for no answer is a span of its own."""
        import torch

        start, end = logits[0].float(), logits[1].float()
        tokens = start.shape[1]
        allowed = torch.ones(tokens, tokens, dtype=torch.bool, device=start.device).triu().tril(self.options.max_answer_tokens - 1)
        sums = (start[:, :, None] + end[:, None, :]).masked_fill(~allowed, float("-inf"))
        best = sums.flatten(1).argmax(dim=1)
        return torch.stack([best // tokens, best % tokens], dim=1)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return of the pieces the share whose span is right in both ends, and the mean F1 of the tokens of span and answer."""
        found, right = np.asarray(outputs), np.asarray(expected)
        shared = np.minimum(found[:, 1], right[:, 1]) - np.maximum(found[:, 0], right[:, 0]) + 1
        tokens = found[:, 1] - found[:, 0] + right[:, 1] - right[:, 0] + 2
        return {
            "span_f1": float(np.mean(2 * np.maximum(shared, 0) / tokens)),
            "span_accuracy": float(np.mean((found == right).all(axis=1))),
        }

    def calibrate(self, folder: Path, validation: pd.DataFrame) -> Mapping[str, Any]:
        """Return the threshold for no answer that gives the best F1 of the validation rows; nothing where it is set, or of no use."""
        if not self.options.unanswerable or self.options.no_answer_threshold is not None:
            return {}
        found = self.predictor(folder).spans(validation)
        margins = np.array([one.margin for one in found], dtype=np.float64)
        expected = [answers.texts_of(label) for label in validation["label"]]
        answered = np.array([scores.f1(one.text, texts) for one, texts in zip(found, expected, strict=True)], dtype=np.float64)
        unanswered = np.array([scores.f1("", texts) for texts in expected], dtype=np.float64)
        threshold = scores.best_threshold(margins, answered, unanswered)
        at = {value: float(np.where(margins > value, unanswered, answered).mean()) if found else 0.0 for value in (0.0, threshold)}
        log.info("no-answer threshold %.4f: F1 of the validation rows %.4f, was %.4f at 0", threshold, at[threshold], at[0.0])
        return {"no_answer_threshold": threshold}

    def predictor(self, folder: Path) -> "QuestionAnswerer":
        """Load a saved model folder; a threshold that nothing has tuned yet is 0."""
        from components.model.tasks.question_answering.predictor import QuestionAnswerer

        own = Options.parse(ModelSpec.read(folder).options, "task_options")
        threshold = (own.no_answer_threshold or 0.0) if own.unanswerable else None
        return QuestionAnswerer(folder, stride=own.stride, longest=own.max_answer_tokens, threshold=threshold)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return `f1`, `exact` and `rows`, and the same of the rows with an answer and of those without."""
        accepted, given = [answers.texts_of(label) for label in expected], ["".join(answers.texts_of(text)[:1]) for text in predicted]
        pairs = list(zip(given, accepted, strict=True))
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

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, ModelOutput]:
        """Return a context's first sentence, the sentence most like the question, and what is new in that one."""
        return baselines.predict(train, test, self.options.unanswerable)

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return whether there is an answer, its length in words, the question word, and the context's length in words."""
        return pages.slices(rows)

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return the worst answers beside what was expected and, where questions may have none, how often one was given."""
        return pages.tables(rows, found, self.options.unanswerable)

    def _read(self, question: str, context: str, cell: str, impossible: bool) -> tuple[str, str]:
        """Return the label of a row, or "[]" and what is wrong with it."""
        for name, text in (("question", question), ("context", context)):
            if not text.strip():
                return "[]", f"{name} is empty"
        try:
            found = answers.spans(cell, context)
        except answers.BadAnswers as error:
            return "[]", str(error)
        if impossible and found:
            return "[]", answers.BOTH
        if not found and not self.options.unanswerable:
            return "[]", answers.NONE
        return answers.canonical([span.text for span in found]), ""

    def _report(self, pieces: Sequence[Feature], places: Sequence[tuple[int, int] | None], wanted: int) -> None:
        """Log what learning misses: answers that are in no piece as a whole, and those too long to be answered."""
        held = {piece.row: place for piece, place in zip(pieces, places, strict=True) if place is not None}
        long = sum(last - first >= self.options.max_answer_tokens for first, last in held.values())
        log.info("%d questions, %d of them with an answer, in %d pieces", len({piece.row for piece in pieces}), wanted, len(pieces))
        if lost := wanted - len(held):
            log.warning("%d of %d answers are in no piece as a whole: raise task_options.stride or preprocess.max_length", lost, wanted)
        if long:
            log.warning("%d of %d answers have more than task_options.max_answer_tokens tokens and cannot be answered", long, wanted)
