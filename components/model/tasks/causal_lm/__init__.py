"""Causal language modelling: fine-tunes on texts, on prompts with completions, or on conversations.

The base model is a decoder (GPT-2, Llama …); without a padding token it is padded with the end token.
"""

import functools
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field, model_validator

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.errors import BadData, BadModel
from components.model import tasks
from components.model.support import generation, pretrained
from components.model.support.control_tokens import log_typed_tokens
from components.model.support.metrics import Floats, Metric, ratio
from components.model.tasks.causal_lm import _template, _texts

log = logging.getLogger(__name__)

_COLUMNS = {"text": ("text",), "completion": ("prompt", "completion"), "chat": ("messages",)}
_EXAMPLES = {
    "text": {"text": "The beginning of a text"},
    "completion": {"prompt": "A prompt to be completed"},
    "chat": {"messages": '[{"role": "user", "content": "A question to be answered"}]'},
}
_LIKELIHOOD: Mapping[str, Metric] = {
    "log_likelihood": Metric(
        ("log_likelihood", "bytes"),
        ratio,
        "log-likelihood in nats per UTF-8 byte of the expected text, including its end; comparable between tokenizers",
        (-math.inf, 0.0),
    ),
    "log_likelihood_per_token": Metric(
        ("log_likelihood", "tokens"),
        ratio,
        "log-likelihood in nats per token (minus log perplexity); comparable for one tokenizer",
        (-math.inf, 0.0),
    ),
    "token_accuracy": Metric(("hits", "tokens"), ratio, "share of the expected tokens that are the most likely next token"),
}


PORTFOLIO: tuple[Mapping[str, Any], ...] = (
    {"method": "lora", "learning_rate": 5e-4, "epochs": 1, "batch_size": 16, "lora_targets": "all-linear"},
    {"method": "lora", "learning_rate": 2e-4, "epochs": 2, "batch_size": 16, "lora_targets": "all-linear"},
    {"method": "full", "learning_rate": 5e-5, "epochs": 1, "batch_size": 16},
    {"method": "lora", "learning_rate": 1e-3, "epochs": 1, "batch_size": 8, "lora_targets": "all-linear", "lora_rank": 16},
)
"""Without a linear probe: the output layer predicts the next token, and is pretrained."""


class Options(generation.TextScoring):
    """The data format, the learnt parts, and the answer length."""

    data: Literal["text", "completion", "chat"] = Field(
        "text", description="text: column text, all learnt; completion: prompt and completion; chat: messages, JSON with role and content"
    )
    packing: bool = Field(False, description="pack texts into sequences of preprocess.max_length tokens, without attention between them")
    separator: str = Field("\n", description="completion: text between prompt and completion")
    turns: Literal["all", "last"] = Field("all", description="chat: which assistant turns are learnt")
    max_new_tokens: int = Field(32, ge=1, le=100_000, description="maximum tokens of an answer (greedy decoding)")

    @model_validator(mode="after")
    def _are_used(self) -> Self:
        for name, data in (("separator", "completion"), ("turns", "chat")):
            if self.data != data and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is used only with data {data}, not {self.data}")
        return self


class Task(tasks.Task):
    """Continue a text, a prompt or a conversation."""

    Options = Options
    portfolio = PORTFOLIO
    validation_metrics = ("log_likelihood", "token_accuracy")
    by_token = True
    baselines = ("unigram", "base")
    evaluation_batch = 8
    unsupported_settings: Mapping[str, str] = {
        "r_drop": "it compares passes over all tokens including padding, so a row's loss would depend on its batch",
        "calibration": "answers are texts without class probabilities",
        "class_biases": "answers are texts, not classes",
        "contrastive_start": "texts do not share labels",
        "head_start": "the output layer predicts the next token, and is pretrained",
        "augment_copies": "the model would learn to generate the noise",
    }

    def __init__(self, options: Any) -> None:
        """Set columns, signature and test metrics from `options.data`."""
        super().__init__(options)
        self.columns = _COLUMNS[options.data]
        self.example = _EXAMPLES[options.data]
        self.inputs = tuple(self.example)
        self.test_metrics: Mapping[str, Metric] = _LIKELIHOOD if options.data == "text" else {**_LIKELIHOOD, **generation.WRITTEN}

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with the prompt as `text` and the expected answer as `label`; for data text both are the text."""
        if self.options.data == "text":
            return rows.assign(label=rows["text"]), {}
        if self.options.data == "completion":
            return rows.assign(text=rows["prompt"], label=rows["completion"]), {}
        texts, answers, faults = [], [], {}
        for index, cell in enumerate(rows["messages"]):
            try:
                *prompt, answer = _texts.conversation(cell, answered=True)
            except _texts.BadConversation as fault:
                faults[index] = str(fault)
                prompt, answer = [], {"content": ""}
            texts.append(_texts.plain(prompt))
            answers.append(answer["content"].strip())
        return rows.assign(text=texts, label=answers), faults

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer; it pads with its end token if needed, and chat data gets a default template if needed.

        The date in a chat template is fixed; see `_template.frozen`.
        Raise BadModel if the tokenizer is missing, needs custom code, has no end token, or its chat template is random.
        """
        tokenizer = pretrained.load_tokenizer(base, pad="eos")
        if tokenizer.eos_token is None:
            raise BadModel(f"the tokenizer in {base} has no end token, so the model cannot learn where to stop; choose another base.model")
        if self.options.data == "chat":
            template = tokenizer.chat_template or _template.PLAIN
            templates = template if isinstance(template, dict) else {"": template}
            fixed = {name: _template.frozen(text) for name, text in templates.items()}
            if fixed != templates:
                _log_fixed_date(base)
            tokenizer.chat_template = fixed if isinstance(template, dict) else fixed[""]
        return tokenizer

    def reader(self, tokenizer: Any) -> _texts.Reader:
        """Return the reader that converts rows to token ids."""
        return _texts.Reader(tokenizer, self.options.separator, self.options.turns)

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each row in tokens; longer rows are split, not truncated."""
        return np.array([max(len(part.ids) for part in row) for row in self._sequences(rows, tokenizer)], dtype=np.int64)

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return `input_ids`, `labels` (-100 for context), `length`, and with packing `position_ids`; see `_texts.windows`."""
        stop = self.reader(tokenizer).template.stop if self.options.data == "chat" else ""
        if stop and (cut := sum(stop in label for label in rows["label"])):
            log.warning("%d of %d answers contain %r, the end of an answer in the chat template: they end there", cut, len(rows), stop)
        typed = rows[list(self.columns)].astype(str).itertuples(index=False, name=None)
        log_typed_tokens(tokenizer, typed, "only the chat template and task_options.separator may contain control tokens")
        sequences = [sequence for row in self._sequences(rows, tokenizer) for sequence in row]
        parts = [part for sequence in sequences for part in _texts.windows(sequence, spec.max_length)]
        table = _texts.table(parts, spec.max_length, self.options.packing)
        log.info("encoded %d rows as %d parts in %d sequences of at most %d tokens", len(rows), len(parts), len(table), spec.max_length)
        return table

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the language model.

        Raises:
            BadModel: the model cannot be loaded, is not causal, or does not support packing.
            BadParams: `max_length` leaves no room for an answer.
        """
        from components.model.tasks.causal_lm import _model

        return _model.build(base, self.load_tokenizer(base), self, spec)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator that pads a batch to its longest row."""
        from components.model.tasks.causal_lm import _model

        return _model.CausalLMCollator(tokenizer.pad_token_id, self.options.packing)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return log-likelihood, count and hits of the learnt tokens of each row: (rows, 3)."""
        return generation.teacher_forced(super().condense(logits, labels)[:, :-1], labels[:, 1:])

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute nats per learnt token (minus log perplexity), and the share that are the most likely."""
        return generation.validation(outputs)

    def predictor(self, folder: Path) -> Any:
        """Load a saved model folder."""
        from components.model.tasks.causal_lm import _model

        return _model.CausalLMGenerator(folder, self, ModelSpec.read(folder))

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the row statistics of ROUGE, BLEU, chrF and exact match; only `rows` for data text."""
        return {"rows": np.ones(len(expected))} if self.options.data == "text" else generation.compare(expected, predicted, self.options)

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, tasks.Baseline]:
        """Predict with the untouched base model, and with the most common answer and the token frequencies of `train`."""
        from components.model.tasks.causal_lm import _model

        return {"unigram": self._unigram(train, self.load_tokenizer(base)), "base": _model.CausalLMGenerator(base, self, spec).answer}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return slices by length of prompt and answer, and by number of turns."""
        slices = {"answer_length": generation.length_bands(rows["label"].tolist())}
        if self.options.data == "text":
            return {"length": slices["answer_length"]}
        if self.options.data == "chat":
            turns = [len(_texts.conversation(cell, answered=True)) for cell in rows["messages"]]
            slices["turns"] = [f"{count} messages" if count < 6 else "6 or more messages" for count in turns]
        return slices | {"prompt_length": generation.length_bands(rows["text"].tolist())}

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return perplexities, sample rows, and the worst rows or the least likely texts."""
        if self.options.data != "text":
            worst, samples, lengths = generation.tables(rows, predictions, self.options)
            return _perplexity(predictions), samples, worst, lengths
        ids, texts, predicted = (list(map(str, column)) for column in (predictions.ids, rows["text"], predictions.predicted))
        samples = generation.side_by_side(ids, texts, [""] * len(ids), predicted)
        return _perplexity(predictions), _unlikely(ids, texts, predictions), samples

    def prompts(self, rows: pd.DataFrame, tokenizer: Any) -> list[list[int]]:
        """Return the prompt token ids of each row; the answer may be missing. Raise BadData for an invalid row."""
        reader = self.reader(tokenizer)
        if self.options.data == "text":
            return [reader.text(text, ended=False).ids for text in rows["text"]]
        if self.options.data == "completion":
            return [reader.completion(prompt, None).ids for prompt in rows["prompt"]]
        try:
            return [reader.question(_texts.conversation(cell, answered=False)).ids for cell in rows["messages"]]
        except _texts.BadConversation as fault:
            raise BadData(str(fault)) from None

    def expected(self, rows: pd.DataFrame, tokenizer: Any) -> list[_texts.Ids]:
        """Return the token ids of each row, with the expected answer (of a conversation the last turn) as learnt."""
        return [row[-1] for row in self._sequences(rows, tokenizer, turns="last")]

    def measured(self, rows: pd.DataFrame, sums: Floats) -> dict[str, Floats]:
        """Return `ModelOutput.measured` from log-likelihood, tokens and hits (rows, 3); adds the UTF-8 bytes of the answer."""
        size = np.array([len(str(label).encode()) for label in rows["label"]], dtype=np.float64)
        return {"log_likelihood": sums[:, 0], "tokens": sums[:, 1], "hits": sums[:, 2], "bytes": size}

    def _sequences(self, rows: pd.DataFrame, tokenizer: Any, turns: str = "") -> list[list[_texts.Ids]]:
        reader = self.reader(tokenizer)
        if self.options.data == "text":
            return [[reader.text(text)] for text in rows["text"]]
        if self.options.data == "completion":
            return [[reader.completion(prompt, answer)] for prompt, answer in zip(rows["prompt"], rows["completion"], strict=True)]
        return [reader.chat(_texts.conversation(cell, answered=True), turns) for cell in rows["messages"]]

    def _unigram(self, train: pd.DataFrame, tokenizer: Any) -> tasks.Baseline:
        """Predict the most common answer, with add-one smoothed token frequencies as likelihoods."""

        def learnt_tokens(rows: pd.DataFrame) -> list[list[int]]:
            return [[token for token, learnt in zip(row.ids, row.learnt, strict=True) if learnt] for row in self.expected(rows, tokenizer)]

        counts = Counter(token for row in learnt_tokens(train) for token in row)
        total = math.log(counts.total() + len(tokenizer))
        most_common = max(counts, key=lambda token: (counts[token], -token))
        answers = Counter(train["label"])
        answer = "" if self.options.data == "text" else max(answers, key=lambda text: (answers[text], text))

        def predict(rows: pd.DataFrame) -> ModelOutput:
            tokens = learnt_tokens(rows)
            sums = [(sum(math.log(counts[token] + 1) - total for token in row), len(row), row.count(most_common)) for row in tokens]
            return ModelOutput.texts([answer] * len(rows), self.measured(rows, np.array(sums, dtype=np.float64).reshape(len(rows), 3)))

        return predict


@functools.cache
def _log_fixed_date(base: Path) -> None:
    log.info(
        "the chat template in %s uses the current date; it is fixed to %s here and in the saved model", base, f"{_template.TODAY:%Y-%m-%d}"
    )


def _perplexity(predictions: Predictions) -> ReportTable:
    likelihood, tokens, size = (float(predictions.measured[name].sum()) for name in ("log_likelihood", "tokens", "bytes"))
    rows = (
        ("perplexity per token", round(math.exp(-likelihood / max(tokens, 1)), 3)),
        ("perplexity per byte", round(math.exp(-likelihood / max(size, 1)), 4)),
        ("bits per byte", round(-likelihood / max(size, 1) / math.log(2), 4)),
        ("tokens", tokens),
        ("bytes", size),
    )
    return ReportTable(title="Perplexity of the expected answers", columns=("", "value"), rows=rows)


def _unlikely(ids: Sequence[str], texts: Sequence[str], predictions: Predictions) -> ReportTable:
    nats = ratio(predictions.measured["log_likelihood"], predictions.measured["bytes"])
    order = np.argsort(nats, kind="stable")[:30]
    rows = tuple((ids[row], generation.short(texts[row]), round(float(nats[row]), 3)) for row in order)
    return ReportTable(title="Least likely texts", columns=("id", "text", "nats per byte"), rows=rows)
