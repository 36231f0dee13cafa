"""The tasks that fit the columns of a table: by their names, and by what their values look like."""

import re
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from flows.project.guessing.shapes import CLASSIFIED, COMPLETION, OTHERS, POSITIVES, SEQUENCES, SHAPES, Shape, TaskFit, Wanted
from flows.project.guessing.tagged import chats, spans, tagged
from flows.project.guessing.values import (
    LABEL_NAMES,
    NO_LABEL,
    Labels,
    filled,
    is_flag,
    key,
    looks_like_text,
    readings,
    text_column,
    word_counts,
)

ID_NAMES = ("id", "uid", "uuid", "key", "code", "guid")
GROUP_NAMES = (
    *("group", "group_id", "document", "document_id", "doc_id", "customer", "customer_id", "user", "user_id", "author", "author_id"),
    *("thread", "thread_id", "session", "session_id", "conversation_id", "patient", "patient_id", "account", "account_id", "client"),
    "kunde",
)
_PAIR_NAMES = (("premise", "hypothesis"), ("claim", "evidence"), ("query", "passage"), ("query", "document"), ("question", "sentence"))
_STEMS = ("word", "text", "sentence", "sent", "question", "q", "s")
_PAIR_ENDS = (("1", "2"), ("a", "b"), ("left", "right"))
_SOURCES = ("source", "src", "input_text", "article", "document", "dialogue", "text", "body", "content", "original", "complex")
_TARGETS = ("target", "tgt", "target_text", "highlights", "summary", "abstract", "translation", "tldr", "corrected", "simple")
_PROMPTS = ("prompt", "instruction", "question", "input", "query")
_COMPLETIONS = ("completion", "response", "output", "answer", "reply")
_LIKELY = 2  # rank up to which a column has labels rather than facts about a row
_WORDS = 2  # of a text or a tagged sentence, on average


def candidates(frame: pd.DataFrame, text: Sequence[str] = ()) -> list[TaskFit]:
    """Return the tasks that fit a table, the most likely first; `text` are the columns with the texts, if they are known."""
    exact = [TaskFit(shape, columns) for shape in SHAPES if (columns := _by_name(frame, shape))]
    labelled, generated = list(_labelled(frame, text)), list(_generated(frame))
    likely = any(candidate.rank <= _LIKELY for candidate in labelled)
    others = [*labelled, *generated] if likely else [*generated, *labelled]
    return [*tagged(frame), *exact, *spans(frame), *chats(frame), *others]


def chosen(frame: pd.DataFrame, wanted: Wanted) -> TaskFit | None:
    """Return the candidate with the chosen columns in the order of the task's columns, if the choice determines one."""
    if wanted.label is None and wanted.task is None:
        return None
    shapes = [shape for shape in (*CLASSIFIED, *OTHERS, *SHAPES) if wanted.task in (None, shape.name)]
    text = wanted.text or tuple(name for name in [text_column(frame.drop(columns=[wanted.label] if wanted.label else []))] if name)
    given = [*text, *([wanted.label] if wanted.label else [])]
    shape = next((shape for shape in shapes if len(shape.columns) == len(given)), None)
    return TaskFit(shape, dict(zip(shape.columns, given, strict=True))) if shape and given else None


def _by_name(frame: pd.DataFrame, shape: Shape) -> dict[str, str] | None:
    """Return the columns of a shape if the table has them all; a target of few values is a class."""
    by_key = {key(str(name)): str(name) for name in reversed(frame.columns)}
    if not by_key.keys() >= set(shape.columns) or (shape is SEQUENCES and readings("target", frame[by_key["target"]])):
        return None
    return {name: by_key[name] for name in shape.columns}


def flag_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns that are 0 or 1 for each label, if they are several and no other column looks like the labels."""
    found = {str(name): readings(str(name), frame[name]) for name in frame.columns}
    if any(labels and labels[0].rank <= _LIKELY for labels in found.values()):
        return []
    flags = [name for name, labels in found.items() if is_flag(frame[name]) and not (labels and labels[0].rank >= NO_LABEL)]
    return flags if len(flags) > 1 else []


def _labelled(frame: pd.DataFrame, text: Sequence[str]) -> Iterator[TaskFit]:
    """Yield text classification of a text or a pair of texts, for each column that may have the labels, the best first."""
    inputs = tuple(text) or _pair(frame) or tuple(name for name in [text_column(frame)] if name)
    if not inputs:
        return
    rest = [str(name) for name in frame.columns if name not in inputs and not _is_identity(frame, str(name))]
    found = [(labels, name) for name in rest for labels in readings(name, frame[name])]
    found.sort(key=lambda item: (item[0].rank, LABEL_NAMES.index(key(item[1])) if key(item[1]) in LABEL_NAMES else 0))
    primary = {name: next(labels for labels, column in found if column == name) for _, name in found}
    ordered = [*((labels, name) for name, labels in primary.items()), *(item for item in found if primary[item[1]] is not item[0])]
    if len(inputs) > 1 and not found:
        yield from _unlabelled_pair(frame, inputs)
    for labels, name in ordered:
        yield _classified(inputs, name, labels, labels.rank if primary[name] is labels else NO_LABEL)


def _unlabelled_pair(frame: pd.DataFrame, inputs: Sequence[str]) -> Iterator[TaskFit]:
    constant = [str(name) for name in frame.columns if key(str(name)) in LABEL_NAMES]
    if constant:
        yield _classified(inputs, constant[0], Labels("single", {}, "one value", 0, 1), rank=0)
    else:
        yield TaskFit(POSITIVES, dict(zip(POSITIVES.columns, inputs, strict=True)))


def _classified(inputs: Sequence[str], label: str, labels: Labels, rank: int) -> TaskFit:
    roles = ("text_a", "text_b") if len(inputs) > 1 else ("text",)
    shape = Shape("text_classification", (*roles, "label"), ({"pair": True} if len(inputs) > 1 else {}) | dict(labels.options))
    columns = dict(zip((*roles, "label"), (*inputs, label), strict=True))
    return TaskFit(shape, columns, labels.description, rank, labels.classes)


def _pair(frame: pd.DataFrame) -> tuple[str, str] | None:
    """Return two columns of texts that belong together, by their names."""
    by_key = {key(str(name)): str(name) for name in frame.columns}
    pairs = [pair for pair in _PAIR_NAMES if by_key.keys() >= set(pair)]
    for first, second in _PAIR_ENDS:
        for name in by_key:
            stem = re.fullmatch(rf"(.+?)_?{first}", name)
            other = next((twin for twin in (f"{stem[1]}{second}", f"{stem[1]}_{second}") if twin in by_key), None) if stem else None
            if stem and other and (stem[1] in _STEMS or all(_several_words(frame[by_key[twin]]) for twin in (name, other))):
                pairs.append((name, other))
    return (by_key[pairs[0][0]], by_key[pairs[0][1]]) if pairs else None


def _several_words(column: "pd.Series[str]") -> bool:
    return float(word_counts(column.dropna()).mean()) >= _WORDS


def _is_identity(frame: pd.DataFrame, name: str) -> bool:
    return key(name) in GROUP_NAMES or (key(name) in ID_NAMES and bool(frame[name].is_unique))


def _generated(frame: pd.DataFrame) -> Iterator[TaskFit]:
    """Yield tasks whose answers are texts, by the names of the columns."""
    by_key = {key(str(name)): str(name) for name in reversed(frame.columns)}

    def column(names: Sequence[str], fits: Callable[["pd.Series[str]"], bool]) -> str | None:
        return next((by_key[name] for name in names if name in by_key and fits(frame[by_key[name]])), None)

    for sources, targets, shape in (
        (_SOURCES, _TARGETS, SEQUENCES),
        (_PROMPTS, _COMPLETIONS, COMPLETION),
        (_PROMPTS, _COMPLETIONS, SEQUENCES),
    ):
        source = column(sources, looks_like_text)
        target = column(targets, lambda cells: filled(cells).nunique() > 0.3 * len(cells))
        if source and target and source != target:
            yield TaskFit(shape, dict(zip(shape.columns, (source, target), strict=True)))
