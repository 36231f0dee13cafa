"""Noisy copies of training rows: inserted, swapped, substituted and deleted characters, at a rate that textnoisr controls.

They are made of rows that have their split, after every other row is settled, and are marked: `augmented` is the id of the row that a
copy was made of.
"""

import hashlib
import logging
import warnings

import pandas as pd

from components.artifacts.rows import AUGMENTED
from components.core.errors import BadData, BadParams
from components.core.similarity import closest
from components.core.text import normalise
from components.data.preprocess.settings import PreprocessParams
from components.model import tasks

log = logging.getLogger(__name__)


def with_copies(train: pd.DataFrame, unseen: pd.DataFrame, params: PreprocessParams, kind: tasks.Task) -> pd.DataFrame:
    """Return the rows of `train` and their copies, ordered by id; `unseen` are the rows that no copy may come near.

    A copy's noise hangs on its row, the seed and the letters of the training texts. One that ends as it began, as another row, or near one
    of `unseen` is left out.

    Raises:
        BadParams: the package that makes noise is not installed.
        BadData: the rows have a column that marks copies, or a row has the id of a copy.
    """
    if AUGMENTED in train:
        raise BadData(f"the data has a column {AUGMENTED!r}, which marks noisy copies; give it another name in snapshot.columns")
    texts = [text for column in kind.augmentable_columns for text in train[column]]
    letters = tuple(sorted({letter for text in texts for letter in text if letter.isalpha()} or {*"".join(texts)}))
    copied = [_noisy(train, number, letters, params, kind) for number in range(1, params.augment_copies + 1)]
    found = pd.concat(copied, ignore_index=True).drop_duplicates(["text", "label"], ignore_index=True)
    found = found[~found["text"].isin({*train["text"], *unseen["text"]})].reset_index(drop=True)
    near = closest(found["text"].tolist(), unseen["text"].tolist(), params.near_duplicate) if params.near_duplicate < 1 else {}
    found = found.drop(index=list(near))
    if taken := sorted({*found["id"]} & {*train["id"], *unseen["id"]}):
        raise BadData(f"the id {taken[0]!r} is that of a row and would be that of a noisy copy; give the row another id")
    log.info("made %d noisy copies of %d training rows", len(found), len(train))
    return pd.concat([train.assign(**{AUGMENTED: None}), found], ignore_index=True).sort_values("id", ignore_index=True)


def _noisy(train: pd.DataFrame, number: int, letters: tuple[str, ...], params: PreprocessParams, kind: tasks.Task) -> pd.DataFrame:
    """Return a copy of each row, read anew by the task; without those that it finds fault with, or that have no text any more."""
    columns = {
        name: [
            _noise(text, f"{params.augment_seed}:{number}:{name}:{row}", letters, params.augment_noise)
            for row, text in zip(train["id"], train[name], strict=True)
        ]
        for name in kind.augmentable_columns
    }
    copies = train.assign(**columns, id=[f"{row}~{number}" for row in train["id"]], **{AUGMENTED: train["id"]})
    copies, faults = kind.read(copies)
    if kind.normalised:
        copies = copies.assign(text=[normalise(text, params.unicode_form) for text in copies["text"]])
    blank = {place for name in (*kind.augmentable_columns, "text") for place, text in enumerate(copies[name]) if not text.strip()}
    return copies.drop(index=[*{*faults, *blank}]).reset_index(drop=True)


def _noise(text: str, key: str, letters: tuple[str, ...], share: float) -> str:
    try:
        from textnoisr.noise import CharNoiseAugmenter
    except ImportError:
        raise BadParams(
            "params.yaml: preprocess.augment_copies needs the package textnoisr: python -m pip install 'retune[augment]'"
        ) from None
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # in a text of one or two characters no share of swaps gives the rate asked for
        return str(CharNoiseAugmenter(share, character_set=letters, seed=seed).add_noise(text))
