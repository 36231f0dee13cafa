"""Masked language modelling: plain text in, a model that fills in words out. It adapts an encoder to a domain or a task's texts.

What is saved is a folder in hub layout that every other task takes as its base: Gururangan et al., "Don't Stop Pretraining" (2020).
Torch and transformers are imported inside the functions: asking a task for its columns must stay cheap.
"""

import math
from collections import Counter
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
from components.core.errors import BadModel
from components.core.section import Section
from components.model.support.metrics import Metric, ratio
from components.model.support.task_base import Base
from components.model.tasks.masked_lm import tokens, words

if TYPE_CHECKING:
    from components.model.tasks.masked_lm.filling import Filler

Floats = npt.NDArray[np.float64]

_SHOWN = 20  # rows of a table
_SIZES = (4, 16, 64)  # words
_MASKS = ("[MASK]", "<mask>")


class Options(Section):
    """What is masked while training, and how texts become sequences; the words that a test asks for follow from the text alone."""

    mask_probability: float = Field(0.15, gt=0, le=0.9, description="share of the tokens or words that are masked, anew in each epoch")
    whole_word: bool = Field(False, description="mask all pieces of a word, or none; a word is what stands between spaces")
    line_by_line: bool = Field(
        True,
        description="true: a row is a sequence, cut at preprocess.max_length; false: rows are joined and cut into blocks of that length",
    )


class Task(Base):
    """A text in; the words that it hides out, which for a text that hides none are words drawn by a hash of it."""

    Options = Options
    columns = ("text",)
    inputs = ("text",)
    example: Mapping[str, str] = {"text": "Fracture of the left [MASK] with routine healing"}
    validation_metrics = ("log_likelihood", "masked_accuracy")
    by_token = True
    test_metrics: Mapping[str, Metric] = {
        "log_likelihood": Metric(
            ("log_likelihood", "words"),
            ratio,
            "mean nats a masked word; perplexity is exp(-this). All pieces of a word are masked, their number is told",
            (-math.inf, 0.0),
        ),
        "accuracy": Metric(("right", "words"), ratio, "share of the masked words that are filled in as they were written"),
    }
    baselines = ("unigram", "base")
    unsupported_settings: Mapping[str, str] = {
        "calibration": "its answers are words, not classes",
        "contrastive_start": "texts have no label that others share",
        "augment_copies": "it would learn to fill in the noise",
    }

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with the words that are asked for as `label`; a text that has a mask token is a question, and no text."""
        texts = rows["text"].tolist()
        faults = {place: f"text holds {mask}" for mask in _MASKS for place, text in enumerate(texts) if mask in text}
        return rows.assign(label=pd.Series([words.expected(text) for text in texts], index=rows.index, dtype="str")), faults

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer of a model folder; BadModel when there is none, it has no mask token, or cannot tell a token's place."""
        tokenizer = super().load_tokenizer(base)
        if tokenizer.mask_token is None:
            raise BadModel(f"the tokenizer in {base} has no mask token: masked_lm needs an encoder, as BERT or RoBERTa")
        if not tokenizer.is_fast:
            raise BadModel(f"the tokenizer in {base} does not tell where in a text a token stands; choose one with a tokenizer.json")
        return tokenizer

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return `input_ids`, `units` (tokens with one number are masked together; -1: never) and `length`."""
        whole_word, line_by_line = self.options.whole_word, self.options.line_by_line
        return tokens.sequences(rows, tokenizer, spec.max_length, whole_word=whole_word, line_by_line=line_by_line)

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model in float32; a head that it lacks is drawn from torch's global generator, its output tied to the embeddings.

        Raises:
            BadModel: no safetensors weights, code of its own, or an architecture that is no encoder.
        """
        from components.model.tasks.masked_lm import model

        return model.load(base, head=True)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return what masks a batch and pads it: each row of an evaluation always in the same places, of training anew in each epoch."""
        from components.model.tasks.masked_lm.masking import Masking

        return Masking(tokenizer, self.options.mask_probability)

    def condense(self, logits: Any, labels: Any) -> Any:
        """Return for each row the summed log-likelihood (nats), the hits and the number of its masked tokens."""
        from components.model.tasks.masked_lm import model

        return model.condense(super().condense(logits, labels), labels)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return the mean log-likelihood of a masked token, in nats, and the share of them that are right."""
        likelihood, hits, asked = np.asarray(outputs, dtype=np.float64).sum(axis=0)
        return {"log_likelihood": float(ratio(likelihood, asked)), "masked_accuracy": float(ratio(hits, asked))}

    def predictor(self, folder: Path) -> "Filler":
        """Load a saved model folder."""
        from components.model.tasks.masked_lm.filling import Filler

        return Filler.load(folder)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return `words`, the words asked for, and `right`, those that are filled in as written."""
        asked = [one.split() for one in expected]
        filled = [other.split() for other in predicted]
        right = [sum(map(str.__eq__, one, other)) for one, other in zip(asked, filled, strict=True)]
        return {"right": np.array(right, dtype=np.float64), "words": np.array([len(one) for one in asked], dtype=np.float64)}

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, ModelOutput]:
        """Return what the commonest word answers, and the untouched base; a base without a head has one drawn at random."""
        import torch

        from components.model.tasks.masked_lm.filling import Filler

        tokenizer = self.load_tokenizer(base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            untouched = Filler(self.build_model(base, spec), tokenizer, spec)
        return {"unigram": unigram(train["text"].tolist(), test["text"].tolist(), tokenizer), "base": untouched.answer(test)}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the number of words of each text, in four sizes."""
        return {"words": [_size(len(words.spans(text))) for text in rows["text"]]}

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return perplexities, the words that are filled in best and worst, and the fills that surprised most."""
        return _perplexities(rows, found, self), _by_word(found), _fills(rows, found)


def unigram(train: Sequence[str], test: Sequence[str], tokenizer: Any) -> ModelOutput:
    """Answer each masked word with the commonest of `train`; a word is as likely as its pieces are frequent, with one more of each.

    It is told the number of pieces, as a model is, and like there a word without a piece of its own counts as one at chance.
    """
    kinds = Counter(text[start:stop] for text in train for start, stop in words.spans(text))
    common = min(kinds, key=lambda word: (-kinds[word], word), default=words.EMPTY)
    counts = Counter(token for body, _ in tokens.pieces(train, tokenizer) for token in body)
    below, chance = math.log(counts.total() + len(tokenizer)), math.log(len(tokenizer))
    likelihood = []
    for text, (body, offsets) in zip(test, tokens.pieces(test, tokenizer), strict=True):
        own = words.slots(text, offsets)
        missing = len(words.asked(text)) - len(set(own[own >= 0].tolist()))
        told = sum(math.log(counts[token] + 1) - below for token, slot in zip(body, own.tolist(), strict=True) if slot >= 0)
        likelihood.append(told - chance * missing)
    filled = [" ".join([common] * len(words.asked(text))) for text in test]
    return ModelOutput.texts(filled, {"log_likelihood": np.array(likelihood, dtype=np.float64)})


def _size(count: int) -> str:
    lowest = [1, *(upto + 1 for upto in _SIZES)]
    return next((f"{low}–{upto} words" for low, upto in zip(lowest, _SIZES, strict=False) if count <= upto), f"{lowest[-1]} words or more")


def _perplexities(rows: pd.DataFrame, found: Predictions, task: Task) -> ReportTable:
    asked = task.statistics(found.expected.tolist(), found.predicted.tolist())["words"]
    sizes = np.array(task.slices(rows)["words"])
    lines: list[tuple[str, int, float]] = []
    for name, mask in (("all", np.ones(len(sizes), dtype=bool)), *((size, sizes == size) for size in sorted(set(sizes.tolist()), key=len))):
        mean = float(ratio(found.measured["log_likelihood"][mask].sum(), asked[mask].sum()))
        lines.append((str(name), int(asked[mask].sum()), round(math.exp(min(-mean, 700.0)), 2)))
    return ReportTable(title="Perplexity of a masked word", columns=("texts of", "masked words", "perplexity"), rows=tuple(lines))


def _by_word(found: Predictions) -> ReportTable:
    """Count for each word how often it was asked for and filled in."""
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for expected, predicted in zip(found.expected.tolist(), found.predicted.tolist(), strict=True):
        for one, other in zip(expected.split(), predicted.split(), strict=False):
            asked[one] += 1
            right[one] += one == other
    lines = [(word, asked[word], right[word]) for word in sorted(asked, key=lambda word: (-asked[word], word))[: _SHOWN + 10]]
    return ReportTable(title="The words asked for most", columns=("word", "asked", "filled in right"), rows=tuple(lines))


def _fills(rows: pd.DataFrame, found: Predictions) -> ReportTable:
    """Show the texts with the least likely words, a text each, with what the model filled in."""
    each = found.measured["log_likelihood"] / np.maximum([len(words.asked(text)) for text in rows["text"]], 1)
    lines = []
    for place in np.argsort(each, kind="stable")[:_SHOWN]:
        text = str(rows["text"].iloc[int(place)])
        lines.append((_hidden(text), str(found.expected[place]), str(found.predicted[place]), round(float(each[place]), 2)))
    return ReportTable(title="The least expected words", columns=("text", "hidden", "filled in", "nats a word"), rows=tuple(lines))


def _hidden(text: str) -> str:
    """Return `text` with a blank for each word that is asked for."""
    for start, stop in reversed(words.asked(text)):
        text = text[:start] + "____" + text[stop:]
    return text
