"""The split that a source gives its rows: in a column, or by the names of its files."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What a split is called, by the words that mean it; those of the Hugging Face hub."""


def split_of(cell: str | None) -> str | None:
    """Return the split that a cell names; None where it is empty.

    Raises:
        ValueError: it names none.
    """
    word = (cell or "").strip().lower()
    if not word:
        return None
    if word not in SPLITS:
        raise ValueError(f"{(cell or '')[:40]!r} is no split: expected train, validation or test")
    return SPLITS[word]


def splits_of_files(names: Sequence[str]) -> list[str | None]:
    """Return the split of each file by the words in its name, else in those of its folders; nothing at all unless there are several.

    `train-00000-of-00001.parquet`, `data/test/a.csv`, `tickets_dev.jsonl` and `en.test.csv` are files of a split. Folders that all share
    say nothing.
    """
    paths = [PurePosixPath(name) for name in names]
    shared = len(_common([path.parent.parts for path in paths]))
    found = [_split_of_path([path.stem, *reversed(path.parent.parts[shared:])]) for path in paths]
    return found if "train" in found and len({*found} - {None}) > 1 else [None] * len(names)


def _split_of_path(parts: Sequence[str]) -> str | None:
    for part in parts:
        meant = {SPLITS[word] for word in re.split(r"[^a-z]+", part.lower()) if word in SPLITS}
        if meant:
            return meant.pop() if len(meant) == 1 else None
    return None


def _common(parts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    same = 0
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        same += 1
    return parts[0][:same] if parts else ()
