"""Sentence embeddings for retrieval, trained on pairs, triplets, scored pairs or single texts.

The saved folder loads as a plain encoder and in sentence-transformers.
"""

from collections.abc import Mapping, Sequence
from functools import partial
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
from components.core.section import Section
from components.core.text import normalise, split_words
from components.model import tasks
from components.model.support import pretrained
from components.model.support.metrics import Floats, Metric, correlation, mean
from components.model.support.sentence_config import read_sentence_config
from components.model.support.words import length_band
from components.model.tasks.contrastive import retrieval, search
from components.model.tasks.contrastive import rows as parsing

_TABLE_ROWS = 15
_SIZES = (2, 5, 10, 30)  # words


PORTFOLIO: tuple[Mapping[str, Any], ...] = (
    {"method": "full", "learning_rate": 1e-4, "epochs": 3, "batch_size": 64},
    {"method": "full", "learning_rate": 3e-5, "epochs": 3, "batch_size": 64},
    {"method": "full", "learning_rate": 1e-4, "epochs": 1, "batch_size": 64},
    {"method": "full", "learning_rate": 2e-4, "epochs": 3, "batch_size": 128},
    {"method": "full", "learning_rate": 1e-4, "epochs": 3, "batch_size": 64, "task_options.temperature": 0.1},
    {"method": "lora", "learning_rate": 1e-3, "epochs": 3, "batch_size": 64, "lora_targets": "all-linear"},
)
"""Without a linear probe: the model has no output layer."""


class Options(Section):
    """The data format, the pooling and the loss temperature."""

    data: Literal["pairs", "triplets", "scored", "texts"] = Field(
        "pairs", description="columns: anchor, positive | also negative | text_a, text_b, score | text, trained with dropout (SimCSE)"
    )
    pooling: Literal["folder", "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] = Field(
        "folder", description="pooling of the token vectors; folder: that of a sentence-transformers base, and mean for other bases"
    )
    temperature: float = Field(0.05, gt=0, le=1, description="divides cosines in the loss; small values emphasise hard negatives")
    lowest: float = Field(0.0, description="scored: minimum valid score")
    highest: float = Field(1.0, description="scored: maximum valid score")

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest ({self.lowest:g}) must be below highest ({self.highest:g})")
        return self


_RETRIEVAL: Mapping[str, Metric] = {
    "mrr": mean("reciprocal_rank", "mean of 1 / rank of the correct text among all expected texts of the test rows"),
    **{f"recall_at_{cut}": mean(f"recall_at_{cut}", f"share of the correct texts among the first {cut} results") for cut in retrieval.CUTS},
    "ndcg_at_10": mean("ndcg_at_10", "discounted gain of the correct texts among the first 10 results, relative to the ideal order"),
}
_CORRELATION: Mapping[str, Metric] = {
    "spearman": Metric(
        ("similarity_rank", "score_rank", "similarity_square", "score_square", "rank_product", "rows"),
        correlation,
        "rank correlation of cosine and score; ranks are over all test rows, also for subsets",
        (-1.0, 1.0),
    )
}


class Task(tasks.Task):
    """Embed a text as a unit vector (a JSON list), evaluated by retrieval among the expected texts of the test rows."""

    Options = Options
    portfolio = PORTFOLIO
    inputs = ("text",)
    example: Mapping[str, str] = {"text": "chest pain when breathing"}
    baselines = ("tfidf", "bm25", "base")
    searchable_options = ("pooling", "temperature")
    compares_rows = True
    row_metrics = False
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": "the rows have no labels to smooth",
        "r_drop": "it compares label probabilities, which this task does not have; task_options.data: texts learns from dropout",
        "calibration": "answers are vectors, not classes",
        "class_biases": "answers are vectors, not classes",
        "contrastive_start": "the loss of the task is already contrastive",
        "head_start": "the model has no output layer over labels: its answers are vectors",
    }

    def __init__(self, options: Any) -> None:
        """Set columns and metrics from `options.data`."""
        super().__init__(options)
        self.columns = parsing.COLUMNS[options.data]
        if options.data == "scored":
            self.unsupported_settings = {**self.unsupported_settings, "augment_copies": "a changed text would have another score"}
        else:
            self.augmentable_columns = self.columns[:1]
        self.test_metrics = _CORRELATION if options.data == "scored" else _RETRIEVAL
        self.validation_metrics = tuple(self.test_metrics)

    def read(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[int, str]]:
        """Return `rows` with the first text as `text` and the other columns as `label`, and the errors by row index."""
        return parsing.read_rows(rows, self.options.data, self.options.lowest, self.options.highest)

    def lengths(self, rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
        """Return the length of the longest text of each row in tokens before truncation."""
        add_prompt = read_sentence_config(Path(tokenizer.name_or_path)).read
        lengths = [super(Task, self).lengths(pd.DataFrame({"text": rows[name].map(add_prompt)}), tokenizer) for name in self._texts()]
        return np.max(np.stack(lengths), axis=0) if len(rows) else np.zeros(0, dtype=np.int64)

    def encode(self, rows: pd.DataFrame, tokenizer: Any, spec: ModelSpec) -> pa.Table:
        """Return the tokens of each text of a row, `labels` (keys of group and texts, or the score) and the maximum `length`.

        A single text is followed by its two halves, for evaluation.
        """
        clean = {name: [normalise(text, spec.unicode_form) for text in rows[name]] for name in self._texts()}
        columns = list(clean.values())
        if self.options.data == "texts":
            halves = [parsing.halves(text) for text in clean["text"]]
            columns += [[half[side] for half in halves] for side in (0, 1)]
        add_prompt = read_sentence_config(Path(tokenizer.name_or_path)).read
        encoded = [
            tokenizer([add_prompt(text) for text in texts], truncation=True, max_length=spec.max_length)["input_ids"]
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

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model as a text encoder in float32, without a head; raise BadModel if that fails."""
        from components.model.tasks.contrastive.encoder import Embedder

        settings = self.options.model_dump(include={"data", "pooling", "temperature"})
        return Embedder(base, **settings, max_length=spec.max_length)

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator that pads a batch to its longest text."""
        from components.model.tasks.contrastive.encoder import ContrastiveCollator

        return ContrastiveCollator(tokenizer.pad_token_id)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute the test metrics from vectors (rows, texts x width) of the validation split."""
        vectors = np.asarray(outputs, dtype=np.float64)
        texts = 3 if self.options.data == "triplets" else 2
        anchors, positives = np.split(vectors, texts, axis=1)[:2]
        if self.options.data == "scored":
            statistics = retrieval.agreement((anchors * positives).sum(axis=1), np.asarray(expected, dtype=np.float64)[:, 0])
        else:
            _, first = retrieval.corpus(expected[:, 2])
            statistics = retrieval.measure(lambda start, stop: anchors[start:stop] @ positives[first].T, expected[:, 1], expected[:, 2])
        statistics["rows"] = np.ones(len(vectors))
        return {name: metric.of(statistics) for name, metric in self.test_metrics.items()}

    def predictor(self, folder: Path) -> Any:
        """Load a saved model folder."""
        from components.model.tasks.contrastive.embedding import TextEmbedder

        spec = ModelSpec.read(folder)
        return TextEmbedder(self.build_model(folder, spec), pretrained.load_tokenizer(folder), spec)

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return `rows`; all other statistics are computed from the vectors."""
        return {"rows": np.ones(len(expected))}

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, tasks.Baseline]:
        """Search with TF-IDF and BM25 among the expected texts of the rows, and embed with the untouched base model."""
        from components.model.tasks.contrastive.embedding import TextEmbedder

        limit = read_sentence_config(base).max_length or spec.max_length
        base_spec = spec.model_copy(update={"max_length": min(limit, spec.max_length)})

        def searched(index: search.Index, rows: pd.DataFrame) -> ModelOutput:
            measured = search.measure(rows, self.options.data, index)
            return ModelOutput.texts([next(iter(texts), "") for texts in search.top_results(rows, self.options.data, measured)], measured)

        embedder = TextEmbedder(self.build_model(base, base_spec), self.load_tokenizer(base), base_spec)
        return {"tfidf": partial(searched, search.tfidf), "bm25": partial(searched, search.bm25), "base": embedder.answer}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return slices by query length, and by word overlap of query and expected text."""
        queries, expected = parsing.sides(rows, self.options.data)
        sizes = [length_band(len(split_words(query)), _SIZES) for query in queries]
        if self.options.data == "texts":
            return {"query": sizes}
        shared = [bool(parsing.words(query) & parsing.words(text)) for query, text in zip(queries, expected, strict=True)]
        return {"query": sizes, "overlap": ["a word in common" if common else "no word in common" for common in shared]}

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return the worst misses and some hits, each with the query, the expected text and the first three results.

        For scored pairs, return those with the largest disagreement of cosine and score.
        """
        queries, expected = parsing.sides(rows, self.options.data)
        if self.options.data == "scored":
            return (_disagreements(queries, expected, rows["score"].tolist(), predictions.measured),)
        results = search.top_results(rows, self.options.data, predictions.measured)
        rank = 1 / predictions.measured["reciprocal_rank"]
        order = np.argsort(-rank, kind="stable")
        lines = [(queries[row], expected[row], round(float(rank[row])), "\n".join(results[row])) for row in order.tolist()]
        columns = ("query", "expected", "rank", "first results")
        misses = tuple(line for line in lines if line[2] > 1)[:_TABLE_ROWS]
        hits = tuple(line for line in lines if line[2] == 1)[:_TABLE_ROWS]
        return ReportTable(title="Worst misses", columns=columns, rows=misses), ReportTable(title="Hits", columns=columns, rows=hits)

    def _texts(self) -> tuple[str, ...]:
        """Return the embedded columns."""
        return tuple(name for name in self.columns if name != "score")

    def _labels(self, rows: pd.DataFrame) -> pa.Array:
        """Return for each row the score, or the keys of group and texts."""
        if self.options.data == "scored":
            return pa.array([[float(score)] for score in rows["score"]], pa.list_(pa.float32()))
        names = ("text", "text") if self.options.data == "texts" else self._texts()
        keys = [[parsing.key(f"group {group}") for group in rows["group"]], *([parsing.key(text) for text in rows[name]] for name in names)]
        return pa.array([list(row) for row in zip(*keys, strict=True)], pa.list_(pa.int64()))


def _disagreements(queries: Sequence[str], others: Sequence[str], scores: Sequence[str], measured: Mapping[str, Floats]) -> ReportTable:
    """Return the pairs with the largest rank difference between cosine and score; rank 1 is the most similar."""
    rows = len(queries)
    difference = measured["similarity_rank"] - measured["score_rank"]
    by_cosine, by_score = (np.round((0.5 - measured[name]) * rows + 0.5).astype(int) for name in ("similarity_rank", "score_rank"))
    lines = [
        (queries[row], others[row], scores[row], int(by_score[row]), int(by_cosine[row]))
        for row in np.argsort(-np.abs(difference), kind="stable")[: 2 * _TABLE_ROWS].tolist()
    ]
    columns = ("text", "other text", "score", "rank by score", "rank by cosine")
    return ReportTable(title="Pairs with the largest disagreement of cosine and score", columns=columns, rows=tuple(lines))
