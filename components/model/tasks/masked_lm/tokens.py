"""Texts as tokens with their places in the text, and sequences of them that fit the model."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from components.core.errors import BadData
from components.model.support.control_tokens import plain
from components.model.tasks.masked_lm import words

Offsets = list[tuple[int, int]]


def pieces(texts: Sequence[str], tokenizer: Any, *, asks: bool = False) -> list[tuple[list[int], Offsets]]:
    """Return the tokens of each text without special ones, and where each begins and ends in it, in characters.

    A special token that is typed in a text is text, but for the mask where a text `asks` for what it hides.
    """
    found = plain(tokenizer, keep=[tokenizer.mask_token] if asks else [])(
        list(texts), add_special_tokens=False, truncation=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    return list(zip(found["input_ids"], found["offset_mapping"], strict=True))


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that stand before and behind a sequence."""
    whole, body = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    start = next(place for place in range(len(whole)) if whole[place : place + len(body)] == body)
    return whole[:start], whole[start + len(body) :]


def windows(owners: Sequence[int] | words.Ints, capacity: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of consecutive parts of at most `capacity` tokens, each up to the end of a word where one ends in it."""
    begin = 0
    while begin < len(owners):
        end = min(begin + capacity, len(owners))
        back = end
        while back < len(owners) and back > begin and owners[back] == owners[back - 1]:
            back -= 1
        end = back if back > begin else end
        yield begin, end
        begin = end


def sequences(rows: pd.DataFrame, tokenizer: Any, max_length: int, *, whole_word: bool, line_by_line: bool) -> pa.Table:
    """Return `input_ids`, `units` (which tokens are masked together; -1: never) and `length`.

    A row a sequence, cut at `max_length`; or else all rows in their order, joined by what ends a sequence, in blocks of `max_length`.

    Raises:
        BadData: the tokenizer knows not a single token of the texts.
    """
    prefix, suffix = around(tokenizer)
    capacity = max_length - len(prefix) - len(suffix)
    bodies = _bodies(rows["text"].tolist(), tokenizer, whole_word)
    if line_by_line:
        parts = [(ids[:capacity], units[:capacity]) for ids, units in bodies]
    else:
        ids, units = _joined(bodies, suffix)
        parts = [(ids[start : start + capacity], units[start : start + capacity]) for start in range(0, len(ids), capacity)]
    never = [-1] * len(prefix), [-1] * len(suffix)
    whole = [([*prefix, *ids, *suffix], [*never[0], *units, *never[1]]) for ids, units in parts if (units >= 0).any()]
    if not whole and len(rows):
        raise BadData(f"the tokenizer of the base model knows no token of the {len(rows)} texts: choose another base.model")
    return pa.table(
        {
            "input_ids": pa.array([ids for ids, _ in whole], pa.list_(pa.int32())),
            "units": pa.array([units for _, units in whole], pa.list_(pa.int32())),
            "length": pa.array([len(ids) for ids, _ in whole], pa.int32()),
        }
    )


def _bodies(texts: list[str], tokenizer: Any, whole_word: bool) -> list[tuple[words.Ints, words.Ints]]:
    """Return tokens and units of each text; special and unknown tokens are never masked."""
    special = np.array(sorted(tokenizer.all_special_ids))
    found = []
    for text, (body, offsets) in zip(texts, pieces(texts, tokenizer), strict=True):
        ids = np.array(body, dtype=np.int64)
        units = words.owners(words.spans(text), offsets) if whole_word else np.arange(len(ids))
        found.append((ids, np.where(np.isin(ids, special), -1, units)))
    return found


def _joined(bodies: list[tuple[words.Ints, words.Ints]], suffix: list[int]) -> tuple[words.Ints, words.Ints]:
    """Return all texts as one, with units that stay apart."""
    ids, units, first = [], [], 0
    for own, numbers in bodies:
        ids += [own, np.array(suffix, dtype=np.int64)]
        units += [np.where(numbers < 0, -1, numbers + first), np.full(len(suffix), -1, dtype=np.int64)]
        first += len(own) + 1
    if not ids:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(ids), np.concatenate(units)
