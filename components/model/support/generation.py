"""What the tasks that write texts share: how a written text is measured against the expected one, and how a reader is shown both.

ROUGE is rouge_score's, BLEU and chrF are sacrebleu's: their counts for each row, summed and put into their own formulas, give what they
give for the whole. Both libraries are imported inside the functions: a packaged model answers without them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from components.artifacts.table import ReportTable
from components.core.section import Section
from components.model.support.metrics import Metric, mean, ratio

Floats = npt.NDArray[np.float64]

_BLEU = ("bleu_written", "bleu_expected", *(f"bleu_{kind}_{n}" for kind in ("hits", "grams") for n in range(1, 5)))
_CHRF = tuple(f"chrf_{kind}_{n}" for n in range(1, 7) for kind in ("written", "expected", "hits"))
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


class Scoring(Section):
    """How written texts are cut into words before they are compared."""

    bleu_words: Literal["13a", "intl", "zh", "char", "none"] = Field(
        "13a", description="sacrebleu's tokenizer: zh for Chinese, none for tokens"
    )
    rouge_words: Literal["ascii", "unicode", "characters"] = Field(
        "ascii",
        description="ascii: rouge_score's own, which sees a-z and 0-9 only; unicode: words of any script; characters: without spaces",
    )


def bleu(*sums: Any) -> Floats:
    """Return corpus BLEU (0 to 100, four-grams, exponential smoothing) of sums of `_BLEU`, by sacrebleu's formula."""
    from sacrebleu.metrics.bleu import BLEU

    def one(written: float, expected: float, *counts: float) -> float:
        found = BLEU.compute_bleu(list(counts[:4]), list(counts[4:]), int(written), int(expected), smooth_method="exp")  # type: ignore[arg-type]
        return float(found.score)

    return np.asarray(np.vectorize(one, otypes=[float])(*sums), dtype=np.float64)


def chrf(*sums: Any) -> Floats:
    """Return corpus chrF (0 to 100, characters up to six-grams, beta 2) of sums of `_CHRF`, by sacrebleu's formula."""
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF()
    return np.asarray(np.vectorize(lambda *counts: float(scorer._compute_f_score(list(counts))), otypes=[float])(*sums), dtype=np.float64)


def likeness(one: Floats, other: Floats) -> Floats:
    """Return the smaller over the greater, 0 where either is 0."""
    return ratio(np.minimum(one, other), np.maximum(one, other))


WRITTEN: Mapping[str, Metric] = {
    "rougeL": mean("rougeL", "F of the longest common subsequence of words, mean over rows"),
    "rouge1": mean("rouge1", "F of common words, mean over rows"),
    "rouge2": mean("rouge2", "F of common pairs of words, mean over rows"),
    "chrf": Metric(_CHRF, chrf, "F2 of common character n-grams up to six over all rows, 0 to 100", (0.0, 100.0)),
    "bleu": Metric(_BLEU, bleu, "precision of word n-grams up to four over all rows, with a penalty for brevity, 0 to 100", (0.0, 100.0)),
    "exact_match": mean("exact", "share of the rows written as expected but for white space"),
    "length_ratio": Metric(
        ("bleu_written", "bleu_expected"), likeness, "words written against words expected, the smaller over the greater"
    ),
}


def compare(expected: Sequence[str], written: Sequence[str], options: Scoring) -> dict[str, Floats]:
    """Return what the measures `WRITTEN` sum up, by name, each (rows,)."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    texts, references = list(written), [list(expected)]
    found = {"rows": np.ones(len(texts)), **_rouge(expected, written, options.rouge_words)}
    found["exact"] = np.array([one.split() == other.split() for one, other in zip(expected, written, strict=True)], dtype=np.float64)
    for names, scorer in ((_BLEU, BLEU(tokenize=options.bleu_words, force=True)), (_CHRF, CHRF())):
        counts = scorer._extract_corpus_statistics(texts, references) if texts else []
        found |= dict(zip(names, np.array(counts, dtype=np.float64).reshape(len(texts), len(names)).T, strict=True))
    return found


def _rouge(expected: Sequence[str], written: Sequence[str], words: str) -> dict[str, Floats]:
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(kinds, tokenizer=None if words == "ascii" else _Words(words))
    scores = [scorer.score(one, other) for one, other in zip(expected, written, strict=True)]
    return {kind: np.array([score[kind].fmeasure for score in scores], dtype=np.float64) for kind in kinds}


class _Words:
    """A tokenizer as rouge_score wants one, for texts that are not English."""

    def __init__(self, kind: str) -> None:
        self._pattern = re.compile(r"\w+" if kind == "unicode" else r"\S")

    def tokenize(self, text: str) -> list[str]:
        return self._pattern.findall(text.casefold())


def words_of(text: str) -> int:
    """Return the number of words between spaces."""
    return len(text.split())


def length_bands(texts: Sequence[str]) -> list[str]:
    """Return each text's band of lengths: 1-4, 5-8, 9-16, … words; the same for every test set."""
    tops = [max(4, 1 << (words_of(text) - 1).bit_length()) if text.strip() else 4 for text in texts]
    return [f"{1 if top == 4 else top // 2 + 1}-{top} words" for top in tops]


def worst(ids: Sequence[str], read: Sequence[str], expected: Sequence[str], written: Sequence[str], options: Scoring) -> ReportTable:
    """Return the rows that were written worst, by their own chrF, beside what was expected."""
    found = compare(expected, written, options)
    own = chrf(*(found[name] for name in _CHRF)) if len(ids) else np.zeros(0)
    order = np.argsort(own, kind="stable")[:_SHOWN]
    rows = tuple((ids[at], short(read[at]), short(expected[at]), short(written[at]), round(float(own[at]), 1)) for at in order)
    return ReportTable(title="Written worst (chrF of the row)", columns=("id", "read", "expected", "written", "chrF"), rows=rows)


def side_by_side(ids: Sequence[str], read: Sequence[str], expected: Sequence[str], written: Sequence[str]) -> ReportTable:
    """Return rows spread evenly over the test set, so that a reader sees the usual and not the worst."""
    places = np.unique(np.linspace(0, len(ids) - 1, min(_SHOWN // 2, len(ids))).astype(int)).tolist() if len(ids) else list[int]()
    rows = tuple((ids[at], short(read[at]), short(expected[at]), short(written[at])) for at in places)
    return ReportTable(title="Side by side", columns=("id", "read", "expected", "written"), rows=rows)


def length_table(expected: Sequence[str], written: Sequence[str]) -> ReportTable:
    """Return how long the written texts are against the expected ones, in words between spaces."""
    counts = [pd.Series([words_of(text) for text in texts], dtype="float64") for texts in (expected, written)]
    rows = [(name, *(round(float(part.quantile(share)), 1) for part in counts)) for name, share in (("median", 0.5), ("95 %", 0.95))]
    rows.append(("sum", *(float(part.sum()) for part in counts)))
    rows.append(("empty", *(float((part == 0).sum()) for part in counts)))
    return ReportTable(title="Length in words", columns=("", "expected", "written"), rows=tuple(rows))


def short(text: str) -> str:
    """Return the first characters of a text, so that a page stays readable."""
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def teacher_forced(logits: Any, labels: Any) -> Any:
    """Return, a row for each row of the batch, the log-likelihood (nats) of its labels, their number, and how many are the likeliest.

    `logits` (rows, tokens, vocabulary) stand where the label is predicted; a label of -100 counts nothing.
    """
    import torch

    sums = torch.zeros((len(labels), 3), dtype=torch.float32, device=logits.device)
    for row, (scores, wanted) in enumerate(zip(logits, labels, strict=True)):  # row by row: a copy of all logits would not fit
        counted = wanted != -100
        scores, wanted = scores[counted].float(), wanted[counted]
        chosen = scores.gather(-1, wanted[:, None])[:, 0]
        sums[row, 0] = (chosen - scores.logsumexp(-1)).sum()
        sums[row, 1] = counted.sum()
        sums[row, 2] = (scores.argmax(-1) == wanted).sum()
    return sums


def validation(outputs: npt.NDArray[Any]) -> dict[str, float]:
    """Return nats per label and the share of labels that are the likeliest, of sums as `teacher_forced` makes them."""
    likelihood, tokens, right = np.asarray(outputs, dtype=np.float64).sum(axis=0)
    return {"log_likelihood": float(ratio(likelihood, tokens)), "token_accuracy": float(ratio(right, tokens))}


def generation_config(model: Any, tokenizer: Any, **settings: Any) -> Any:
    """Return how `model` writes: greedily or by beams, never by chance.

    Of the base's own settings only those stay that say which tokens it must or must not write.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    tokens = {name: getattr(own, name, None) for name in _TOKENS}
    start = getattr(model.config, "decoder_start_token_id", None)
    tokens |= {"decoder_start_token_id": start} if start is not None else {}
    end = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    return GenerationConfig(do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=end, **tokens, **settings)
