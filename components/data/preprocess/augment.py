"""Add noisy copies of training rows: textnoisr inserts, swaps, substitutes and deletes characters at a given rate.

Copies are made after splitting and deduplication; their column `augmented` contains the id of the original row.
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


def add_noisy_copies(train: pd.DataFrame, unseen: pd.DataFrame, params: PreprocessParams, task: tasks.Task) -> pd.DataFrame:
    """Return the rows of `train` and their copies, ordered by id; copies similar to rows of `unseen` are dropped.

    The noise depends on the row, the seed and the letters of the training texts. Copies that equal a row are dropped too.

    Raises:
        BadParams: textnoisr is not installed.
        BadData: the data has a column `augmented`, or a row has the id of a copy.
    """
    if AUGMENTED in train:
        raise BadData(f"the data has a column {AUGMENTED!r}, which marks noisy copies; rename it in snapshot.columns")
    texts = [text for column in task.augmentable_columns for text in train[column]]
    letters = tuple(sorted({letter for text in texts for letter in text if letter.isalpha()} or {*"".join(texts)}))
    rounds = [_noisy_copies(train, number, letters, params, task) for number in range(1, params.augment_copies + 1)]
    copies = pd.concat(rounds, ignore_index=True).drop_duplicates(["text", "label"], ignore_index=True)
    copies = copies[~copies["text"].isin({*train["text"], *unseen["text"]})].reset_index(drop=True)
    near = closest(copies["text"].tolist(), unseen["text"].tolist(), params.near_duplicate) if params.near_duplicate < 1 else {}
    copies = copies.drop(index=list(near))
    if taken := sorted({*copies["id"]} & {*train["id"], *unseen["id"]}):
        raise BadData(f"the id {taken[0]!r} of a row is also the id of a noisy copy; give the row another id")
    log.info("made %d noisy copies of %d training rows", len(copies), len(train))
    return pd.concat([train.assign(**{AUGMENTED: None}), copies], ignore_index=True).sort_values("id", ignore_index=True)


def _noisy_copies(train: pd.DataFrame, number: int, letters: tuple[str, ...], params: PreprocessParams, task: tasks.Task) -> pd.DataFrame:
    """Return a copy of each row, read again by the task, without empty copies and those that the task refuses."""
    columns = {
        name: [
            _noise(text, f"{params.augment_seed}:{number}:{name}:{row}", letters, params.augment_noise)
            for row, text in zip(train["id"], train[name], strict=True)
        ]
        for name in task.augmentable_columns
    }
    copies = train.assign(**columns, id=[f"{row}~{number}" for row in train["id"]], **{AUGMENTED: train["id"]})
    copies, faults = task.read(copies)
    if task.normalised:
        copies = copies.assign(text=[normalise(text, params.unicode_form) for text in copies["text"]])
    blank = {index for name in (*task.augmentable_columns, "text") for index, text in enumerate(copies[name]) if not text.strip()}
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
        warnings.simplefilter("ignore", RuntimeWarning)  # texts of one or two characters cannot reach the requested rate
        return str(CharNoiseAugmenter(share, character_set=letters, seed=seed).add_noise(text))
