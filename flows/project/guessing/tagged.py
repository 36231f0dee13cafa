"""Tables with lists: tags beside tokens, spans beside a text, and the turns of a chat."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from components.model.tasks.token_classification.schemes import Scheme, is_valid
from flows.project.guessing.shapes import CHAT, SPANS, TAGS, Shape, TaskFit
from flows.project.guessing.values import json_lists, key, text_column

_TOKEN_NAMES = ("tokens", "words", "token", "word", "sentence", "text")
_TAG_NAMES = ("tags", "ner_tags", "ner", "entities", "labels", "label", "tag", "bio", "pos_tags", "pos", "upos", "chunk_tags")
_ROLES = ("role", "content")
_NEARLY_ALL = 0.95  # validation reports the other rows
_WORDS = 2  # of a text or a tagged sentence, on average


def chats(frame: pd.DataFrame) -> Iterator[TaskFit]:
    """Yield chats: lists of objects with role and content."""
    for name in map(str, frame.columns):
        turns = [turn for items in json_lists(frame[name].head(50)) or [] for turn in items]
        if turns and all(isinstance(turn, dict) and set(_ROLES) <= set(turn) for turn in turns):
            yield TaskFit(CHAT, {"messages": name})


def tagged(frame: pd.DataFrame) -> Iterator[TaskFit]:
    """Yield token classification: lists of tags beside lists of tokens of the same lengths, or texts of so many words."""
    lists = {str(name): cells for name in frame.columns if (cells := json_lists(frame[name].fillna("[]"))) and any(cells)}
    words = {
        str(name): [str(cell).split() for cell in frame[name].fillna("")]
        for name in frame.columns
        if key(str(name)) in (*_TOKEN_NAMES, *_TAG_NAMES) and str(name) not in lists
    }
    for columns in (lists, words):
        named = [name for word in _TOKEN_NAMES for name in columns if key(name) == word]
        if not columns or (not named and columns is words):
            continue
        tokens = named[0] if named else max(columns, key=lambda name: len(set(map(str, _items(columns[name])))))
        beside = [name for name in columns if name != tokens and _beside(columns[tokens], columns[name])]
        if columns is words:
            beside = [name for name in beside if key(name) in _TAG_NAMES]
        for name in sorted(beside, key=lambda name: _TAG_NAMES.index(key(name)) if key(name) in _TAG_NAMES else len(_TAG_NAMES)):
            tags = list(map(str, _items(columns[name])))
            scheme = _scheme(tags)
            shape = Shape(TAGS.task, TAGS.columns, {} if scheme == "BIO" else {"scheme": scheme})
            yield TaskFit(shape, {"tokens": tokens, "tags": name}, f"{len(set(tags))} tags, scheme {scheme}")


def spans(frame: pd.DataFrame) -> Iterator[TaskFit]:
    """Yield token classification: lists of spans beside a text."""
    text = text_column(frame)
    for name in map(str, frame.columns):
        items = _items(json_lists(frame[name]) or [])
        if text and items and all(map(_is_span, items)):
            yield TaskFit(SPANS, {"text": text, "spans": name}, "lists of start, end and label")


def _items(cells: Sequence[Sequence[Any]]) -> list[Any]:
    return [item for cell in cells for item in cell]


def _beside(tokens: Sequence[Sequence[Any]], tags: Sequence[Sequence[Any]]) -> bool:
    """Return whether nearly every row has as many tags as tokens, and the tags are few."""
    equal = [len(a) == len(b) for a, b in zip(tokens, tags, strict=False)]
    if len(tokens) != len(tags) or sum(equal) < _NEARLY_ALL * len(equal):
        return False
    items = _items(tags)
    simple = all(isinstance(item, str | int) and not isinstance(item, bool) for item in items)
    texts = all(isinstance(item, str) for item in _items(tokens))
    return simple and texts and len(items) >= _WORDS * len(tags) and len(set(items)) <= min(200, 1 + len(items) // 2)


def _scheme(tags: Sequence[str]) -> Scheme:
    schemes: tuple[Scheme, ...] = ("BIO", "BIOES")
    return next((scheme for scheme in schemes if all(is_valid(tag, scheme) for tag in set(tags))), "plain")


def _is_span(item: Any) -> bool:
    if isinstance(item, dict):
        item = [item.get(name) for name in ("start", "end", "label")]
    return isinstance(item, list) and len(item) == 3 and [type(part) for part in item] == [int, int, str]
