"""Sentence embeddings for retrieval: pairs, triplets, scored pairs or single texts in, an encoder that finds by meaning out.

What is saved loads as a plain encoder, and in sentence-transformers. Torch and transformers are imported inside the functions: asking a
task for its columns must stay cheap.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pydantic import Field, model_validator

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.section import Section
from components.core.text import UnicodeForm, normalise
from components.model.support import pretrained, sentence_config
from components.model.support.metrics import Metric, mean
from components.model.support.task_base import Base
from components.model.tasks.contrastive import finding, reading, retrieval

if TYPE_CHECKING:
    from components.model.tasks.contrastive.embedding import TextEmbedder
    from components.model.tasks.contrastive.encoder import Embedder

_SHOWN = 15  # rows of a table
_SIZES = (2, 5, 10, 30)  # words


class Options(Section):
    """What the data are, and how texts become vectors that are compared by cosine."""

    data: Literal["pairs", "triplets", "scored", "texts"] = Field(
        "pairs", description="columns: anchor, positive | and negative | text_a, text_b, score | text alone, by dropout (SimCSE)"
    )
    pooling: Literal["folder", "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] = Field(
        "folder", description="of the tokens' vectors; folder: as a sentence-transformers base says itself, and the mean for any other base"
    )
    temperature: float = Field(0.05, gt=0, le=1, description="cosines are divided by this in the loss; small: the hardest negatives count")
    lowest: float = Field(0.0, description="scored: a score below is a bad row")
    highest: float = Field(1.0, description="scored: a score above is a bad row")

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest ({self.lowest:g}) must be below highest ({self.highest:g})")
        return self


_FOUND: Mapping[str, Metric] = {
    "mrr": mean("reciprocal_rank", "mean of 1 / rank of the right text among all that the test rows want found"),
    **{f"recall_at_{cut}": mean(f"recall_at_{cut}", f"share of the right texts among the first {cut} found") for cut in retrieval.CUTS},
    "ndcg_at_10": mean("ndcg_at_10", "gain of right texts, less the later they are found among the first 10, over the best there is"),
}
_AGREED: Mapping[str, Metric] = {
    "spearman": Metric(
        ("similarity_rank", "score_rank", "rank_product", "similarity_square", "score_square", "rows"),
        retrieval.correlation,
        "rank correlation of cosine and score; ranks are over all test rows, also where some are left out",
        (-1.0, 1.0),
    )
}


class Task(Base):
    """A text in, its unit vector out as a JSON list; measured by what is found with it among all texts that the test rows want found."""

    Options = Options
    inputs = ("text",)
    example: Mapping[str, str] = {"text": "chest pain when breathing"}
    baselines = ("tfidf", "bm25", "base")
    compares_rows = True
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": "the rows have no labels to smooth",
        "r_drop": "it compares probabilities of labels, which the rows have not; task_options.data: texts learns from dropout",
        "calibration": "its answers are vectors, not classes",
        "contrastive_start": "its own loss is contrastive from the first step",
    }

    def __init__(self, options: Any) -> None:
        """Hold the settings; columns and measures follow from the kind of data."""
        super().__init__(options)
        self.columns = reading.COLUMNS[options.data]
        if options.data == "scored":
            self.unsupported_settings = {**self.unsupported_settings, "augment_copies": "a text with another wording has another score"}
        else:
            self.augmentable_columns = self.columns[:1]
        self.test_metrics = _AGREED if options.data == "scored" else _FOUND
        self.validation_metrics = tuple(self.test_metrics)

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with the first of their texts as `text`, and all else that tells them apart as `label`."""
        return reading.read(rows, self.options.data, self.options.lowest, self.options.highest)

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of the longest text of each row in tokens, before truncation."""
        read = _reader(tokenizer)
        each = [super(Task, self).lengths(pd.DataFrame({"text": rows[name].map(read)}), tokenizer) for name in self._texts()]
        return np.max(np.stack(each), axis=0) if len(rows) else np.zeros(0, dtype=np.int64)

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the tokens of each text of a row, `labels` (keys of group and texts, or the score) and the `length` of the longest.

        A single text comes with its two halves, by which an evaluation asks for it.
        """
        clean = {name: [normalise(text, _form(spec)) for text in rows[name]] for name in self._texts()}
        columns = list(clean.values())
        if self.options.data == "texts":
            halves = [reading.halves(text) for text in clean["text"]]
            columns += [[half[side] for half in halves] for side in (0, 1)]
        read = _reader(tokenizer)
        encoded = [
            tokenizer([read(text) for text in texts], truncation=True, max_length=spec.max_length)["input_ids"]
            for texts in columns
            if texts
        ]
        tokens = [list(texts) for texts in zip(*encoded, strict=True)]
        return pa.table(
            {
                "input_ids": pa.array(tokens, pa.list_(pa.list_(pa.int32()))),
                "labels": self._labels(rows),
                "length": pa.array([max(map(len, texts)) for texts in tokens], pa.int32()),
            }
        )

    def build_model(self, base: Path, spec: ModelSpec) -> "Embedder":
        """Load the base model as an encoder of texts, in float32; it has no head, so nothing is drawn.

        Raises:
            BadModel: no safetensors weights, code of its own, or a folder that transformers cannot read.
        """
        from components.model.tasks.contrastive.encoder import Embedder

        settings = self.options.model_dump(include={"data", "pooling", "temperature"})
        return Embedder(base, **settings, max_length=spec.max_length)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return what pads a batch of encoded rows to its longest text."""
        from components.model.tasks.contrastive.encoder import Collator

        return Collator(tokenizer.pad_token_id)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return the measures of vectors (rows, texts x width) on the validation split, searched as the test split is."""
        vectors = np.asarray(outputs, dtype=np.float64)
        texts = 3 if self.options.data == "triplets" else 2
        one, other = np.split(vectors, texts, axis=1)[:2]
        if self.options.data == "scored":
            found = retrieval.agreement((one * other).sum(axis=1), np.asarray(expected, dtype=np.float64)[:, 0])
        else:
            _, first = retrieval.corpus(expected[:, 2])
            found = retrieval.measure(lambda start, stop: one[start:stop] @ other[first].T, expected[:, 1], expected[:, 2])
        found["rows"] = np.ones(len(vectors))
        return {name: measure.of(found) for name, measure in self.test_metrics.items()}

    def predictor(self, folder: Path) -> "TextEmbedder":
        """Load a saved model folder."""
        from components.model.tasks.contrastive.embedding import TextEmbedder

        spec = ModelSpec.read(folder)
        return TextEmbedder(self.build_model(folder, spec), pretrained.load_tokenizer(folder), spec)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, npt.NDArray[np.float64]]:
        """Return `rows`; all else is measured where the vectors are."""
        return {"rows": np.ones(len(expected))}

    def predict_baselines(self, train: pd.DataFrame, test: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, ModelOutput]:
        """Return what TF-IDF and BM25 find first, each over the texts that `test` wants found, and the vectors of the untouched base."""
        from components.model.tasks.contrastive import baselines
        from components.model.tasks.contrastive.embedding import TextEmbedder

        limit = (sentence_config.read_description(base) or sentence_config.Described()).max_length or spec.max_length
        own = spec.model_copy(update={"max_length": min(limit, spec.max_length)})
        untouched = TextEmbedder(self.build_model(base, own), self.load_tokenizer(base), own)
        indexes: Mapping[str, finding.Index] = {"tfidf": baselines.tfidf, "bm25": baselines.bm25}
        found = {name: finding.measured(test, self.options.data, index) for name, index in indexes.items()}
        first = {name: [next(iter(texts), "") for texts in self._found_first(test, each)] for name, each in found.items()}
        return {**{name: ModelOutput.texts(first[name], each) for name, each in found.items()}, "base": untouched.answer(test)}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the number of words of what is searched by, and whether it shares one with what is to be found."""
        queries, wanted = reading.sides(rows, self.options.data)
        sizes = [_size(len(query.split())) for query in queries]
        if self.options.data == "texts":
            return {"query": sizes}
        shared = [bool(reading.words(one) & reading.words(other)) for one, other in zip(queries, wanted, strict=True)]
        return {"query": sizes, "overlap": ["a word in common" if common else "no word in common" for common in shared]}

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return what was searched by, what should be found, and the three texts found first: of misses, the worst first, and of hits.

        Of scored pairs, those whose cosine and score disagree most.
        """
        queries, wanted = reading.sides(rows, self.options.data)
        if self.options.data == "scored":
            return (_disagreements(queries, wanted, rows["score"].tolist(), found.measured),)
        shown = self._found_first(rows, found.measured)
        rank = 1 / found.measured["reciprocal_rank"]
        order = np.argsort(-rank, kind="stable")
        lines = [(queries[place], wanted[place], round(float(rank[place])), "\n".join(shown[place])) for place in order.tolist()]
        columns = ("searched by", "expected", "rank", "found first")
        misses = tuple(line for line in lines if line[2] > 1)[:_SHOWN]
        hits = tuple(line for line in lines if line[2] == 1)[:_SHOWN]
        return ReportTable(title="Worst misses", columns=columns, rows=misses), ReportTable(title="Hits", columns=columns, rows=hits)

    def _texts(self) -> tuple[str, ...]:
        """Return the columns that are embedded."""
        return tuple(name for name in self.columns if name != "score")

    def _labels(self, rows: pd.DataFrame) -> pa.Array:
        """Return what the loss and `validate` need beside the texts, a list a row."""
        if self.options.data == "scored":
            return pa.array([[float(score)] for score in rows["score"]], pa.list_(pa.float32()))
        named = ("text", "text") if self.options.data == "texts" else self._texts()
        keys = [[reading.key(f"group {group}") for group in rows["group"]], *([reading.key(text) for text in rows[name]] for name in named)]
        return pa.array([list(row) for row in zip(*keys, strict=True)], pa.list_(pa.int64()))

    def _found_first(self, rows: pd.DataFrame, measured: Mapping[str, npt.NDArray[np.float64]]) -> list[list[str]]:
        return finding.found_first(rows, self.options.data, measured)


def _reader(tokenizer: Any) -> Callable[[str], str]:
    """Return what makes of a text what the encoder reads: the folder of the tokenizer may put a prompt before it."""
    return (sentence_config.read_description(Path(tokenizer.name_or_path)) or sentence_config.Described()).read


def _form(spec: ModelSpec) -> UnicodeForm:
    return "NFKC" if spec.unicode_form == "NFKC" else "NFC"


def _size(count: int) -> str:
    lowest = [1, *(upto + 1 for upto in _SIZES)]
    return next((f"{low}–{upto} words" for low, upto in zip(lowest, _SIZES, strict=False) if count <= upto), f"{lowest[-1]} words or more")


def _disagreements(
    queries: Sequence[str], wanted: Sequence[str], scores: Sequence[str], measured: Mapping[str, npt.NDArray[np.float64]]
) -> ReportTable:
    """Show the pairs whose ranks by cosine and by score are furthest apart; a rank of 1 is the most alike."""
    rows = len(queries)
    apart = measured["similarity_rank"] - measured["score_rank"]
    by_cosine, by_score = (np.round((0.5 - measured[name]) * rows + 0.5).astype(int) for name in ("similarity_rank", "score_rank"))
    lines = [
        (queries[place], wanted[place], scores[place], int(by_score[place]), int(by_cosine[place]))
        for place in np.argsort(-np.abs(apart), kind="stable")[: 2 * _SHOWN].tolist()
    ]
    columns = ("text", "other text", "score", "rank by score", "rank by cosine")
    return ReportTable(title="Pairs that are judged otherwise than scored", columns=columns, rows=tuple(lines))
