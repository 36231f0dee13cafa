"""Read the splits that a source provides: from a column, or from the names of its files."""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePosixPath

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The split of each word that names one; the same words as on the Hugging Face hub."""


def split_of(cell: str | None) -> str | None:
    """Return the split that a cell names; None if it is empty.

    Raises:
        ValueError: the cell does not name a split.
    """
    word = (cell or "").strip().lower()
    if not word:
        return None
    if word not in SPLIT_WORDS:
        raise ValueError(f"{(cell or '')[:40]!r} is not a split: expected train, validation or test")
    return SPLIT_WORDS[word]


def splits_of_files(names: Sequence[str]) -> list[str | None]:
    """Return the split of each file by the words in its name, else in its folders; all None unless there are several splits.

    `train-00000-of-00001.parquet`, `data/test/a.csv`, `tickets_dev.jsonl` and `en.test.csv` are files of a split. Folders that all
    files share are ignored.
    """
    paths = [PurePosixPath(name) for name in names]
    levels = zip(*(path.parent.parts for path in paths), strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    splits = [_split_of_path([path.stem, *reversed(path.parent.parts[shared:])]) for path in paths]
    return splits if "train" in splits and len({*splits} - {None}) > 1 else [None] * len(names)


def _split_of_path(parts: Sequence[str]) -> str | None:
    for part in parts:
        splits = {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", part.lower()) if word in SPLIT_WORDS}
        if splits:
            return splits.pop() if len(splits) == 1 else None
    return None
