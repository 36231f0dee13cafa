"""Guess the task and the settings for a data file from its first rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from components.core.errors import BadParams, BadSource
from components.core.section import did_you_mean, nearest
from components.core.text import canonical_label
from components.data.preprocess.decidability import TEST_SHARES
from components.data.snapshot.given_splits import SPLIT_WORDS
from components.data.snapshot.settings import SnapshotParams
from flows.project.guessing import notes
from flows.project.guessing.candidates import GROUP_NAMES, ID_NAMES, candidates, chosen, flag_columns
from flows.project.guessing.foreign import conversion
from flows.project.guessing.head import Head, read_head
from flows.project.guessing.shapes import KINDS, TAGS, TASK_NAMES, Shape, TaskFit, Wanted
from flows.project.guessing.values import NO_LABEL, json_lists, key, longest, word_counts

__all__ = ["NOTHING_WANTED", "Guess", "Wanted", "check_exists", "guess_columns"]

NOTHING_WANTED = Wanted()
TOKENS_PER_WORD = 1.6  # English with a WordPiece vocabulary; generous, since truncation loses the end of a text
MAX_LENGTHS = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Guess:
    """The guessed task and settings; `columns` maps canonical names to the names in the file.

    `notes` are for the user. `others` are options for other tasks and columns that fit, each with a description. `labels` are the columns
    to choose from if their names do not show which has the labels.
    """

    shape: Shape
    columns: dict[str, str]
    settings: SnapshotParams
    max_length: int
    rows: int
    classes: int = 0
    numeric_labels: bool = False
    split_column: str | None = None
    split_files: bool = False
    test_share: float = TEST_SHARES[0]
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.shape.task

    @property
    def single(self) -> bool:
        """Whether the task is classification of one text with one label a row."""
        return self.task == "text_classification" and not self.shape.options

    def __str__(self) -> str:
        kind = KINDS.get(self.shape.options.get("kind", ""), "").replace("_", "-")
        task = self.task.replace("_", " ") + (f" ({kind})" if kind else "")
        roles = ", ".join(f"{role} = {name!r}" for role, name in self.columns.items())
        roles += f", split = {self.split_column!r}" if self.split_column else ", splits by the files' names" if self.split_files else ""
        classes = f"; {self.classes} labels in the first {self.rows:,} rows" if self.classes else ""
        return f"{task}, {roles}{classes}; max_length {self.max_length} tokens"


def guess_columns(data: Path, wanted: Wanted = NOTHING_WANTED) -> Guess:
    """Guess from the first rows of a file, within what the user has chosen.

    Raises:
        BadSource: the file has another format or cannot be read, or no column looks like a text or a label.
        BadParams: a chosen column does not exist.
    """
    check_exists(data)
    if wanted.task is not None and wanted.task not in TASK_NAMES:
        raise BadParams(f"--task {wanted.task}: no such task{nearest(wanted.task, list(TASK_NAMES))}")
    if found := conversion(data):
        raise BadSource(f"{data} is {found.name}: {notes.convert_command(data)}")
    head = read_head(data)
    split = next((str(name) for name in head.frame.columns if _is_split(head.frame[name])), None)
    frame = head.frame.drop(columns=[split] if split else [])
    if missing := [name for name in (wanted.label, *wanted.text, wanted.group) if name is not None and name not in head.frame]:
        raise BadParams(f"{data} has no column {missing[0]!r}{nearest(missing[0], [str(name) for name in head.frame.columns])}")
    if wanted.label is None and wanted.task is None and (flags := flag_columns(frame)):
        raise BadSource(f"{data}: {notes.refused_flags(flags, data)}")
    fits = candidates(frame.drop(columns=[wanted.group] if wanted.group else []), wanted.text)
    best = next(filter(wanted.admits, fits), None) or chosen(frame, wanted)
    if best is None:
        raise BadSource(f"{data}: {notes.nothing_fits(frame, wanted)}")
    if best.shape.task == TAGS.task and any(isinstance(tag, int) for tags in json_lists(frame[best.answer]) or [] for tag in tags):
        raise BadSource(f"{data}: {notes.numbered_tags(best.answer)}")
    return _guess(head, frame, split, best, fits, wanted)


def check_exists(data: Path) -> None:
    """Raise BadSource if a path that is no glob does not exist."""
    if not data.exists() and not any(character in str(data) for character in "*?["):
        names = [file.name for file in data.parent.iterdir()] if data.parent.is_dir() else []
        raise BadSource(f"{data}: no such file or folder{did_you_mean(data.name, names)}")


def _guess(head: Head, frame: pd.DataFrame, split: str | None, best: TaskFit, fits: Sequence[TaskFit], wanted: Wanted) -> Guess:
    columns = _with_identity(frame, best, wanted.group)
    single = best.shape.made.classes
    labels = frame[best.answer].dropna().map(canonical_label) if single else None
    share, told = notes.plan(head, frame, best, columns.get("group"), labels, split)
    alike = [candidate.answer for candidate in fits if candidate.inputs == best.inputs and candidate.rank < NO_LABEL]
    unused = [str(name) for name in frame.columns if name not in columns.values()]
    return Guess(
        shape=best.shape,
        columns=columns,
        settings=head.settings,
        max_length=_max_length(frame[best.inputs].fillna("").agg(" ".join, axis=1)),
        rows=len(frame),
        classes=best.classes if labels is None else labels.nunique(),
        numeric_labels=labels is not None and bool(labels.str.fullmatch(r"[-+]?\d+(\.\d+)?").all()),
        split_column=None if head.split_files else split,
        split_files=head.split_files,
        test_share=share,
        notes=(*notes.of_file(head.settings), *told, *notes.of_base(best.shape), *notes.of_unused(unused)),
        others=tuple(notes.options_for(best, fits, frame)),
        labels=() if best.named or wanted.label else tuple(dict.fromkeys(alike)),
    )


def _with_identity(frame: pd.DataFrame, best: TaskFit, group: str | None) -> dict[str, str]:
    """Return the columns of a candidate with those of `id` and `group`, if there are any."""
    free = {key(str(name)): str(name) for name in reversed(frame.columns) if name not in best.columns.values()}
    unique = (free[name] for name in ID_NAMES if name in free and frame[free[name]].is_unique and longest(frame[free[name]]) <= 64)
    found = {"id": next(unique, None), "group": group or next((free[name] for name in GROUP_NAMES if name in free), None)}
    return {**best.columns, **{role: name for role, name in found.items() if name}}


def _max_length(texts: "pd.Series[str]") -> int:
    """Return a length in tokens that covers 99 % of the texts, rounded up to one of MAX_LENGTHS."""
    words = float(word_counts(texts).quantile(0.99))
    return next((limit for limit in MAX_LENGTHS if words * TOKENS_PER_WORD + 2 <= limit), MAX_LENGTHS[-1])


def _is_split(column: "pd.Series[str]") -> bool:
    """Return whether a column has the split of each row: train and at least one other."""
    words = {str(cell).strip().lower() for cell in column.dropna().unique()}
    return words <= set(SPLIT_WORDS) and "train" in (splits := {SPLIT_WORDS[word] for word in words}) and len(splits) > 1
