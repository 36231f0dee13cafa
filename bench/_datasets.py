"""Data sets from packages, split once for all sides of a benchmark.

The environment variable BENCH_DATA names the folder with the packages' archives; `missing()` says which are not there. Rows are cleaned and
split by the pipeline's own functions. The test rows of a data set never change; `seed` draws the training and validation rows.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bench import _archives
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.step import prepare
from components.model import tasks

FOLDER = "BENCH_DATA"
TEST_ROWS, SPARE_ROWS = 2_000, 1_000
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DatasetRecipe:
    """How a data set is made from the rows that `read` returns.

    `train` and `validation` limit the rows of a split, or the rows of each class with `by_class`. Recipes of one `source` share rows.
    """

    source: str
    read: Callable[[Path], pd.DataFrame]
    metric: str = "macro_f1"
    task: str = "text_classification"
    options: Mapping[str, Any] = field(default_factory=dict)
    max_length: int = 64
    train: int | None = None
    validation: int | None = None
    by_class: bool = False
    shares: tuple[float, float] = (0.3, 0.2)  # test and validation, before the limits


@dataclass(frozen=True)
class Dataset:
    """The rows of a data set (id, group, text, label, the task's columns) by split: train, validation, test, and spare.

    `spare` are validation rows beyond the limit, for a score with less noise that needs no test rows.
    """

    name: str
    recipe: DatasetRecipe
    splits: Mapping[str, pd.DataFrame]

    @property
    def rows(self) -> pd.DataFrame:
        """The rows that every side of a comparison gets, with their split."""
        return pd.concat([self.splits[split].assign(split=split) for split in SPLITS], ignore_index=True)


_ICD = partial(DatasetRecipe, "diagnosis", _archives.diagnoses, shares=(0.2, 0.1))
_ASPECTS = {"kind": "multi", "labels": ["approach", "challenge", "outcome"]}
_TAGS = partial(DatasetRecipe, task="token_classification", max_length=96)
RECIPES: dict[str, DatasetRecipe] = {
    "icd12": _ICD(train=12, validation=4, by_class=True),
    "icd50": _ICD(train=50, validation=10, by_class=True),
    "icd": _ICD(),
    "bbc": DatasetRecipe("bbc", _archives.bbc, max_length=128, train=1_000, validation=200),
    "tweets": DatasetRecipe("tweets", _archives.tweets, train=5_600, validation=800),
    "tweets_small": DatasetRecipe("tweets", _archives.tweets, train=670, validation=104),
    "spam": DatasetRecipe("spam", _archives.spam, max_length=128, train=1_000, validation=200),
    "chinese": DatasetRecipe("chinese", _archives.chinese, train=2_000, validation=300),
    "papers": DatasetRecipe("papers", _archives.papers, options=_ASPECTS),
    "lexicon": DatasetRecipe("lexicon", _archives.lexicon, metric="r2", options={"kind": "regression"}, max_length=16),
    "entities_ja": _TAGS("entities", _archives.entities, metric="entity_f1", max_length=128, shares=(0.25, 0.15)),
    "names_noisy": _TAGS("brown", partial(_archives.names, forgotten=0.15), metric="entity_f1", train=1_600, validation=200),
    "pos": _TAGS("brown", _archives.parts_of_speech, metric="token_accuracy", options={"scheme": "plain"}, train=1_500, validation=250),
    "synonyms": DatasetRecipe(
        "synonyms",
        _archives.synonyms,
        "mrr",
        "contrastive",
        {"pooling": "mean"},
        max_length=48,
        train=6_000,
        validation=600,
        shares=(0.2, 0.1),
    ),
}


def folder() -> Path:
    """Return the folder of the archives: that of BENCH_DATA, else bench/data, which may be missing."""
    return Path(os.environ.get(FOLDER) or Path(__file__).parent / "data")


def missing() -> dict[str, str]:
    """Return the archive that each unavailable data set needs."""
    need = {name: recipe.source for name, recipe in RECIPES.items() if recipe.source in _archives.ARCHIVES}
    return {name: _archives.ARCHIVES[source] for name, source in need.items() if _archives.archive(folder(), source) is None}


def available(only: list[str] | None = None) -> list[str]:
    """Return the names of the data sets whose packages are there, and print which are missing and how to get them."""
    if only and (unknown := sorted(set(only) - set(RECIPES))):
        raise SystemExit(f"no data set {', '.join(unknown)}; available: {', '.join(RECIPES)}")
    wanted = only or list(RECIPES)
    if absent := {name: archive for name, archive in missing().items() if name in wanted}:
        print(f"left out, because {folder()} (set {FOLDER}) lacks: {', '.join(f'{name} ({file})' for name, file in absent.items())}")
        print(f"these commands fetch all packages:\n{_archives.COMMANDS}")
    return [name for name in wanted if name not in absent]


def load(name: str, seed: int = 0) -> Dataset:
    """Return a data set; another seed draws other training and validation rows, and the same test rows."""
    recipe = RECIPES[name]
    return split(name, recipe, recipe.read(folder()), seed)


def split(name: str, recipe: DatasetRecipe, raw: pd.DataFrame, seed: int) -> Dataset:
    """Return the data set of the rows `raw`: cleaned, split by hash of their group or text, and limited."""
    task = tasks.load(recipe.task, recipe.options)
    groups = "group" in raw
    rows, faults = task.read(raw if groups else raw.assign(group=raw["id"]))
    rows = rows.drop(index=rows.index[list(faults)]).reset_index(drop=True)
    rows = rows[rows["text"].str.len() > 0]
    test_share, validation_share = recipe.shares
    params = PreprocessParams(test_share=test_share, validation_share=validation_share, max_length=recipe.max_length)
    kept, _ = prepare(rows, params, task, groups)
    parts = {part: kept[kept["split"] == part].drop(columns="split").reset_index(drop=True) for part in SPLITS}
    train = drawn(parts["train"], recipe.train or round(0.95 * len(parts["train"])), seed, recipe.by_class)
    validation = drawn(parts["validation"], recipe.validation or len(parts["validation"]), seed, recipe.by_class)
    rest = parts["validation"][~parts["validation"]["id"].isin(validation["id"])]
    test = drawn(parts["test"], TEST_ROWS, 0)
    splits = {"train": train, "validation": validation, "test": test, "spare": drawn(rest, SPARE_ROWS, seed)}
    return Dataset(name, recipe, splits)


def drawn(rows: pd.DataFrame, count: int, seed: int, by_class: bool = False) -> pd.DataFrame:
    """Return at most `count` rows, or of each class with `by_class`, drawn by a hash of seed and id; ordered by id."""
    lottery = rows.assign(_draw=[_archives.draw(f"{seed} {name}") for name in rows["id"]]).sort_values("_draw")
    chosen = lottery.groupby("label").head(count) if by_class else lottery.head(count)
    return chosen.drop(columns="_draw").sort_values("id", ignore_index=True)
