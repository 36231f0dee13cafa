"""Shared code of the tasks that generate texts: metrics and report tables.

ROUGE is rouge_score's, BLEU and chrF are sacrebleu's: their counts per row, summed and put into their own formulas, give their value for
the whole corpus. Both libraries are imported inside the functions, because a packaged model does not need them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.core.section import Section
from components.core.text import split_words
from components.model.support.metrics import Floats, Metric, mean, ratio

_BLEU = ("bleu_written", "bleu_expected", *(f"bleu_{count}_{n}" for count in ("hits", "grams") for n in range(1, 5)))
_CHRF = tuple(f"chrf_{count}_{n}" for n in range(1, 7) for count in ("written", "expected", "hits"))
_TOKENS = (
    "bos_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
    "sequence_bias",
    "suppress_tokens",
    "begin_suppress_tokens",
)
_SHOWN = 30  # rows of a table
_WIDTH = 400  # characters of a text in a table


class TextScoring(Section):
    """How texts are split into words before they are compared."""

    bleu_words: Literal["13a", "intl", "zh", "char", "none"] = Field(
        "13a", description="sacrebleu's tokenizer: zh for Chinese, none for tokens"
    )
    rouge_words: Literal["ascii", "unicode", "characters"] = Field(
        "ascii",
        description="ascii: rouge_score's default, a-z and 0-9 only; unicode: words of any script; characters: without spaces",
    )


def bleu(*sums: Any) -> Floats:
    """Return corpus BLEU (0 to 100, four-grams, exponential smoothing) from sums of `_BLEU`, with sacrebleu's formula."""
    from sacrebleu.metrics.bleu import BLEU

    def score(written: float, expected: float, *counts: float) -> float:
        result = BLEU.compute_bleu(list(counts[:4]), list(counts[4:]), int(written), int(expected), smooth_method="exp")  # type: ignore[arg-type]
        return float(result.score)

    return np.asarray(np.vectorize(score, otypes=[float])(*sums), dtype=np.float64)


def chrf(*sums: Any) -> Floats:
    """Return corpus chrF (0 to 100, characters up to six-grams, beta 2) from sums of `_CHRF`, with sacrebleu's formula."""
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF()
    return np.asarray(np.vectorize(lambda *counts: float(scorer._compute_f_score(list(counts))), otypes=[float])(*sums), dtype=np.float64)


def length_ratio(first: Floats, second: Floats) -> Floats:
    """Return the smaller divided by the greater, 0 where either is 0."""
    return ratio(np.minimum(first, second), np.maximum(first, second))


WRITTEN: Mapping[str, Metric] = {
    "rougeL": mean("rougeL", "F of the longest common subsequence of words, mean over rows"),
    "rouge1": mean("rouge1", "F of common words, mean over rows"),
    "rouge2": mean("rouge2", "F of common pairs of words, mean over rows"),
    "chrf": Metric(_CHRF, chrf, "F2 of common character n-grams up to six over all rows, 0 to 100", (0.0, 100.0)),
    "bleu": Metric(_BLEU, bleu, "precision of word n-grams up to four over all rows, with a penalty for brevity, 0 to 100", (0.0, 100.0)),
    "exact_match": mean("exact", "share of the rows that equal the expected text except for white space"),
    "length_ratio": Metric(
        ("bleu_written", "bleu_expected"), length_ratio, "generated and expected words, the smaller number divided by the greater"
    ),
}


def compare(expected: Sequence[str], generated: Sequence[str], options: TextScoring) -> dict[str, Floats]:
    """Return the row statistics of the metrics `WRITTEN` by name, each (rows,)."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    texts, references = list(generated), [list(expected)]
    statistics = {"rows": np.ones(len(texts)), **_rouge(expected, generated, options.rouge_words)}
    statistics["exact"] = np.array([a.split() == b.split() for a, b in zip(expected, generated, strict=True)], dtype=np.float64)
    for names, scorer in ((_BLEU, BLEU(tokenize=options.bleu_words, force=True)), (_CHRF, CHRF())):
        counts = scorer._extract_corpus_statistics(texts, references) if texts else []
        statistics |= dict(zip(names, np.array(counts, dtype=np.float64).reshape(len(texts), len(names)).T, strict=True))
    return statistics


def _rouge(expected: Sequence[str], generated: Sequence[str], words: str) -> dict[str, Floats]:
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, tokenizer=None if words == "ascii" else _Words(words))
    scores = [scorer.score(*texts) for texts in zip(expected, generated, strict=True)]
    return {name: np.array([score[name].fmeasure for score in scores], dtype=np.float64) for name in names}


class _Words:
    """A tokenizer for rouge_score, for texts that are not English."""

    def __init__(self, words: str) -> None:
        self._pattern = re.compile(r"\w+" if words == "unicode" else r"\S")

    def tokenize(self, text: str) -> list[str]:
        return self._pattern.findall(text.casefold())


def length_bands(texts: Sequence[str]) -> list[str]:
    """Return each text's length band: 1-4, 5-8, 9-16, … words; the bands do not depend on the test set."""
    tops = [max(4, 1 << (len(split_words(text)) - 1).bit_length()) if text.strip() else 4 for text in texts]
    return [f"{1 if top == 4 else top // 2 + 1}-{top} words" for top in tops]


def tables(rows: pd.DataFrame, predictions: Predictions, options: TextScoring) -> tuple[ReportTable, ReportTable, ReportTable]:
    """Return the rows with the lowest chrF, rows spread over the test set, and the lengths of the texts in words."""
    columns = (predictions.ids, rows["text"], predictions.expected, predictions.predicted)
    ids, inputs, expected, generated = (list(map(str, column)) for column in columns)
    statistics = compare(expected, generated, options)
    scores = chrf(*(statistics[name] for name in _CHRF)) if len(ids) else np.zeros(0)
    order = np.argsort(scores, kind="stable")[:_SHOWN]
    worst = tuple((ids[i], short(inputs[i]), short(expected[i]), short(generated[i]), round(float(scores[i]), 1)) for i in order)
    return (
        ReportTable(title="Worst rows (by chrF)", columns=("id", "input", "expected", "generated", "chrF"), rows=worst),
        side_by_side(ids, inputs, expected, generated),
        _length_table(expected, generated),
    )


def side_by_side(ids: Sequence[str], inputs: Sequence[str], expected: Sequence[str], generated: Sequence[str]) -> ReportTable:
    """Return rows spread evenly over the test set, so that a reader sees typical rows, not the worst."""
    indices = np.unique(np.linspace(0, len(ids) - 1, min(_SHOWN // 2, len(ids))).astype(int)).tolist() if len(ids) else list[int]()
    rows = tuple((ids[i], short(inputs[i]), short(expected[i]), short(generated[i])) for i in indices)
    return ReportTable(title="Side by side", columns=("id", "input", "expected", "generated"), rows=rows)


def _length_table(expected: Sequence[str], generated: Sequence[str]) -> ReportTable:
    counts = [pd.Series([len(split_words(text)) for text in texts], dtype="float64") for texts in (expected, generated)]
    rows = [(name, *(round(float(part.quantile(share)), 1) for part in counts)) for name, share in (("median", 0.5), ("95 %", 0.95))]
    rows.append(("sum", *(float(part.sum()) for part in counts)))
    rows.append(("empty", *(float((part == 0).sum()) for part in counts)))
    return ReportTable(title="Length in words", columns=("", "expected", "generated"), rows=tuple(rows))


def short(text: str) -> str:
    """Return a text shortened for a table."""
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def teacher_forced(logits: Any, labels: Any) -> Any:
    """Return for each row the log-likelihood (nats) of its labels, their number, and how many are the most likely: (rows, 3).

    `logits` (rows, tokens, vocabulary) are at the positions where the label is predicted; labels of -100 are skipped.
    """
    import torch

    sums = torch.zeros((len(labels), 3), dtype=torch.float32, device=logits.device)
    for row, (scores, targets) in enumerate(zip(logits, labels, strict=True)):  # row by row: a copy of all logits would not fit
        counted = targets != -100
        scores, targets = scores[counted].float(), targets[counted]
        chosen = scores.gather(-1, targets[:, None])[:, 0]
        sums[row, 0] = (chosen - scores.logsumexp(-1)).sum()
        sums[row, 1] = counted.sum()
        sums[row, 2] = (scores.argmax(-1) == targets).sum()
    return sums


def validation(outputs: npt.NDArray[Any]) -> dict[str, float]:
    """Return nats per label and the share of labels that are the most likely, from the sums of `teacher_forced`."""
    likelihood, tokens, right = np.asarray(outputs, dtype=np.float64).sum(axis=0)
    return {"log_likelihood": float(ratio(likelihood, tokens)), "token_accuracy": float(ratio(right, tokens))}


def generation_config(model: Any, tokenizer: Any, **settings: Any) -> Any:
    """Return the generation settings of `model`: greedy or beam search, never sampling.

    Of the base's settings, only those that force or forbid tokens are kept.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    tokens = {name: getattr(own, name, None) for name in _TOKENS}
    start = getattr(model.config, "decoder_start_token_id", None)
    tokens |= {"decoder_start_token_id": start} if start is not None else {}
    end = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    return GenerationConfig(do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=end, **tokens, **settings)
