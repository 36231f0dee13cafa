"""Causal language modelling: a model that writes on, fine-tuned on plain texts, on prompts with completions, or on conversations.

Reads a base model folder in hub layout (GPT-2, Llama …); one without a padding token is padded with its end.
Torch and transformers are imported inside the functions: asking a task for its columns must stay cheap.
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
from components.model.support import generation, pretrained
from components.model.support.control_tokens import log_typed_tokens
from components.model.support.metrics import Metric, ratio
from components.model.support.task_base import Base
from components.model.tasks.causal_lm import _template, _texts

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_COLUMNS = {"text": ("text",), "completion": ("prompt", "completion"), "chat": ("messages",)}
_EXAMPLES = {
    "text": {"text": "The beginning of a text"},
    "completion": {"prompt": "A prompt to be completed"},
    "chat": {"messages": '[{"role": "user", "content": "A question to be answered"}]'},
}
_LIKELY: Mapping[str, Metric] = {
    "log_likelihood": Metric(
        ("log_likelihood", "bytes"),
        ratio,
        "nats a UTF-8 byte of what is expected, its end included; whatever the tokenizer",
        (-math.inf, 0.0),
    ),
    "log_likelihood_per_token": Metric(
        ("log_likelihood", "tokens"), ratio, "nats a token; minus the logarithm of the perplexity; of one tokenizer only", (-math.inf, 0.0)
    ),
    "token_accuracy": Metric(("hits", "tokens"), ratio, "share of the expected tokens that are the likeliest after those before"),
}


class Options(generation.Scoring):
    """What the rows are, what is learnt of them, and how long an answer is."""

    data: Literal["text", "completion", "chat"] = Field(
        "text", description="text: a column text, all learnt; completion: prompt and completion; chat: messages, JSON of role and content"
    )
    packing: bool = Field(False, description="several texts a row of preprocess.max_length tokens, none of which sees another")
    separator: str = Field("\n", description="completion: what stands between prompt and completion")
    turns: Literal["all", "last"] = Field("all", description="chat: which of the assistant's turns are learnt")
    max_new_tokens: int = Field(32, ge=1, le=100_000, description="tokens that an answer has at most; the likeliest each time")

    @model_validator(mode="after")
    def _is_read(self) -> Self:
        for name, kind in (("separator", "completion"), ("turns", "chat")):
            if self.data != kind and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is read where data is {kind}, found data {self.data}")
        return self


class Task(Base):
    """A model that writes on."""

    Options = Options
    validation_metrics = ("log_likelihood", "token_accuracy")
    by_token = True
    baselines = ("unigram", "base")
    evaluation_batch = 8
    unsupported_settings: Mapping[str, str] = {
        "r_drop": "it compares passes over all tokens, padding too, so that a row's loss would hang on its company",
        "calibration": "answers are texts, which have no probabilities of classes",
        "contrastive_start": "texts have no label that others share",
        "augment_copies": "it would learn to write the noise",
    }

    def __init__(self, options: Any) -> None:
        """Take columns, signature and measures from `options.data`."""
        super().__init__(options)
        self.columns = _COLUMNS[options.data]
        self.example = _EXAMPLES[options.data]
        self.inputs = tuple(self.example)
        self.test_metrics: Mapping[str, Metric] = _LIKELY if options.data == "text" else {**_LIKELY, **generation.WRITTEN}

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with what is given as `text` and what is to be written as `label`; of plain texts both are the text."""
        if self.options.data == "text":
            return rows.assign(label=rows["text"]), {}
        if self.options.data == "completion":
            return rows.assign(text=rows["prompt"], label=rows["completion"]), {}
        texts, answers, faults = [], [], {}
        for place, cell in enumerate(rows["messages"]):
            try:
                *given, answer = _texts.conversation(cell, answered=True)
            except _texts.BadConversation as fault:
                faults[place] = str(fault)
                given, answer = [], {"content": ""}
            texts.append(_texts.plain(given))
            answers.append(answer["content"].strip())
        return rows.assign(text=texts, label=answers), faults

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer; one without padding pads with its end, one for chat without a template gets a plain one.

        A chat template that asks for the date gets the same one every day; see `_template.frozen`.

        Raises:
            BadModel: there is none, it needs its own code, it has no end, or its chat template draws at random.
        """
        tokenizer = pretrained.load_tokenizer(base, pad="eos")
        if tokenizer.eos_token is None:
            raise BadModel(f"the tokenizer in {base} has no end token, so a model could not learn where to end; choose another base.model")
        if self.options.data == "chat":
            own = tokenizer.chat_template or _template.PLAIN
            named = own if isinstance(own, dict) else {"": own}
            fixed = {name: _template.frozen(text) for name, text in named.items()}
            if fixed != named:
                _say_frozen(base)
            tokenizer.chat_template = fixed if isinstance(own, dict) else fixed[""]
        return tokenizer

    def reader(self, tokenizer: Any) -> _texts.Reader:
        """Return what turns rows into token ids."""
        return _texts.Reader(tokenizer, self.options.separator, self.options.turns)

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of each row in tokens, what is given and what is learnt; longer ones become several, none is lost."""
        return np.array([max(len(part.ids) for part in row) for row in self._learnt(rows, tokenizer)], dtype=np.int64)

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return `input_ids`, `labels` (-100 for what is only read), `length`, and with packing `position_ids`; see `_texts.windows`."""
        stop = self.reader(tokenizer).template.stop if self.options.data == "chat" else ""
        if stop and (cut := sum(stop in label for label in rows["label"])):
            log.warning(
                "%d of %d answers have %r in them, with which the chat template ends an answer: they end there", cut, len(rows), stop
            )
        typed = rows[list(self.columns)].astype(str).itertuples(index=False, name=None)
        log_typed_tokens(tokenizer, typed, "task_options.data: chat writes those of the chat template, and task_options.separator its own")
        learnt = [each for row in self._learnt(rows, tokenizer) for each in row]
        parts = [part for each in learnt for part in _texts.windows(each, spec.max_length)]
        table = _texts.table(parts, spec.max_length, self.options.packing)
        log.info("%d rows are %d parts in %d sequences of at most %d tokens", len(rows), len(parts), len(table), spec.max_length)
        return table

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the language model.

        Raises:
            BadModel: no safetensors weights, code of its own, not a model that writes from left to right, or packed texts see one another.
            BadParams: there is no room for an answer.
        """
        from components.model.tasks.causal_lm import _model

        return _model.build(base, self.load_tokenizer(base), self, spec)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return what pads a batch of encoded rows to its longest row."""
        from components.model.tasks.causal_lm import _model

        return _model.Collator(tokenizer.pad_token_id, self.options.packing)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return log-likelihood, number and hits of each row's learnt tokens: (rows, 3)."""
        return generation.teacher_forced(super().condense(logits, labels)[:, :-1], labels[:, 1:])

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return nats per learnt token, minus the logarithm of the perplexity, and the share that are the likeliest."""
        return generation.validation(outputs)

    def predictor(self, folder: Path) -> Any:
        """Load a saved model folder."""
        from components.model.tasks.causal_lm import _model

        return _model.Writer(folder, self, ModelSpec.read(folder))

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the counts behind ROUGE, BLEU, chrF and exact match, where there is something to compare."""
        return {"rows": np.ones(len(expected))} if self.options.data == "text" else generation.compare(expected, predicted, self.options)

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, ModelOutput]:
        """Return what the untouched base model writes, and the commonest answer of `train` with its tokens' frequencies as likelihoods."""
        from components.model.tasks.causal_lm import _model

        return {"unigram": self._unigram(train, test, self.load_tokenizer(base)), "base": _model.Writer(base, self, spec).answer(test)}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the bands of lengths of what is given and of what is expected, and the number of turns."""
        found = {"answer_length": generation.length_bands(rows["label"].tolist())}
        if self.options.data == "text":
            return {"length": found["answer_length"]}
        if self.options.data == "chat":
            turns = [len(_texts.conversation(cell, answered=True)) for cell in rows["messages"]]
            found["turns"] = [f"{count} messages" if count < 6 else "6 or more messages" for count in turns]
        return found | {"prompt_length": generation.length_bands(rows["text"].tolist())}

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return the perplexity, rows side by side, and the rows that are written worst, or of plain texts the least likely ones."""
        ids, read, expected, written = (list(map(str, each)) for each in (found.ids, rows["text"], found.expected, found.predicted))
        if self.options.data == "text":
            return _perplexity(found), _unlikely(ids, read, found), generation.side_by_side(ids, read, ["" for _ in ids], written)
        return (
            _perplexity(found),
            generation.side_by_side(ids, read, expected, written),
            generation.worst(ids, read, expected, written, self.options),
            generation.length_table(expected, written),
        )

    def asked(self, rows: pd.DataFrame, tokenizer: Any) -> list[list[int]]:
        """Return the token ids that a model is given of each row, which may lack the answer; BadData for a row that cannot be read."""
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
        """Return what is given of each row and, as learnt, what is expected: of a conversation the last turn."""
        return [row[-1] for row in self._learnt(rows, tokenizer, turns="last")]

    def measured(self, rows: pd.DataFrame, sums: Floats) -> dict[str, Floats]:
        """Return `ModelOutput.measured` of log-likelihood, tokens and hits (rows, 3) and the UTF-8 bytes of what is expected."""
        size = np.array([len(str(label).encode()) for label in rows["label"]], dtype=np.float64)
        return {"log_likelihood": sums[:, 0], "tokens": sums[:, 1], "hits": sums[:, 2], "bytes": size}

    def _learnt(self, rows: pd.DataFrame, tokenizer: Any, turns: str = "") -> list[list[_texts.Ids]]:
        reader = self.reader(tokenizer)
        if self.options.data == "text":
            return [[reader.text(text)] for text in rows["text"]]
        if self.options.data == "completion":
            return [[reader.completion(prompt, answer)] for prompt, answer in zip(rows["prompt"], rows["completion"], strict=True)]
        return [reader.chat(_texts.conversation(cell, answered=True), turns) for cell in rows["messages"]]

    def _unigram(self, train: pd.DataFrame, test: pd.DataFrame, tokenizer: Any) -> ModelOutput:
        """Answer with the commonest answer; a token is as likely as it is frequent, with one more of each."""
        known, wanted = (
            [[token for token, learnt in zip(row.ids, row.learnt, strict=True) if learnt] for row in self.expected(rows, tokenizer)]
            for rows in (train, test)
        )
        counts = Counter(token for row in known for token in row)
        total = math.log(counts.total() + len(tokenizer))
        commonest = max(counts, key=lambda token: (counts[token], -token))
        sums = [(sum(math.log(counts[token] + 1) - total for token in row), len(row), row.count(commonest)) for row in wanted]
        answers = Counter(train["label"])
        answer = "" if self.options.data == "text" else max(answers, key=lambda text: (answers[text], text))
        return ModelOutput.texts([answer] * len(test), self.measured(test, np.array(sums, dtype=np.float64).reshape(len(test), 3)))


@functools.cache
def _say_frozen(base: Path) -> None:
    log.info(
        "the chat template in %s asks for the date: here, and in the saved model, it is always %s", base, f"{_template.TODAY:%Y-%m-%d}"
    )


def _perplexity(found: Predictions) -> ReportTable:
    likelihood, tokens, size = (float(found.measured[name].sum()) for name in ("log_likelihood", "tokens", "bytes"))
    rows = (
        ("perplexity of a token", round(math.exp(-likelihood / max(tokens, 1)), 3)),
        ("perplexity of a byte", round(math.exp(-likelihood / max(size, 1)), 4)),
        ("bits a byte", round(-likelihood / max(size, 1) / math.log(2), 4)),
        ("tokens", tokens),
        ("bytes", size),
    )
    return ReportTable(title="Perplexity of what is expected", columns=("", "value"), rows=rows)


def _unlikely(ids: Sequence[str], read: Sequence[str], found: Predictions) -> ReportTable:
    nats = ratio(found.measured["log_likelihood"], found.measured["bytes"])
    order = np.argsort(nats, kind="stable")[:30]
    rows = tuple((ids[at], generation.short(read[at]), round(float(nats[at]), 3)) for at in order)
    return ReportTable(title="Least likely texts", columns=("id", "text", "nats a byte"), rows=rows)
