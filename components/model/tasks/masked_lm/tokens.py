"""Tokenization with character offsets, and training sequences."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from components.core.errors import BadData
from components.model.support.control_tokens import plain
from components.model.tasks.masked_lm import words

Offsets = list[tuple[int, int]]


def pieces(texts: Sequence[str], tokenizer: Any, *, keep_masks: bool = False) -> list[tuple[list[int], Offsets]]:
    """Return the tokens of each text without special tokens, and their character offsets.

    Special tokens typed in a text are text; `keep_masks` keeps mask tokens.
    """
    encoded = plain(tokenizer, keep=[tokenizer.mask_token] if keep_masks else [])(
        list(texts), add_special_tokens=False, truncation=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a sequence."""
    whole, body = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    start = next(index for index in range(len(whole)) if whole[index : index + len(body)] == body)
    return whole[:start], whole[start + len(body) :]


def windows(owners: Sequence[int] | words.Ints, capacity: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of consecutive parts of at most `capacity` tokens, split at word ends if possible."""
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
    """Return `input_ids`, `units` (tokens masked together; -1: never) and `length`.

    A row is a sequence, truncated to `max_length`; without `line_by_line` all rows are joined with end tokens and split into blocks.
    Raise BadData if the tokenizer knows no token of the texts.
    """
    prefix, suffix = around(tokenizer)
    capacity = max_length - len(prefix) - len(suffix)
    bodies = _bodies(rows["text"].tolist(), tokenizer, whole_word)
    if line_by_line:
        parts = [(ids[:capacity], units[:capacity]) for ids, units in bodies]
    else:
        ids, units = _joined(bodies, suffix)
        parts = [(ids[start : start + capacity], units[start : start + capacity]) for start in range(0, len(ids), capacity)]
    before, after = [-1] * len(prefix), [-1] * len(suffix)
    framed = [([*prefix, *ids, *suffix], [*before, *units, *after]) for ids, units in parts if (units >= 0).any()]
    if not framed and len(rows):
        raise BadData(f"the tokenizer of the base model knows no token of the {len(rows)} texts: choose another base.model")
    return pa.table(
        {
            "input_ids": pa.array([ids for ids, _ in framed], pa.list_(pa.int32())),
            "units": pa.array([units for _, units in framed], pa.list_(pa.int32())),
            "length": pa.array([len(ids) for ids, _ in framed], pa.int32()),
        }
    )


def _bodies(texts: list[str], tokenizer: Any, whole_word: bool) -> list[tuple[words.Ints, words.Ints]]:
    """Return tokens and units of each text; special and unknown tokens are never masked."""
    special = np.array(sorted(tokenizer.all_special_ids))
    bodies = []
    for text, (body, offsets) in zip(texts, pieces(texts, tokenizer), strict=True):
        ids = np.array(body, dtype=np.int64)
        units = words.owners(words.spans(text), offsets) if whole_word else np.arange(len(ids))
        bodies.append((ids, np.where(np.isin(ids, special), -1, units)))
    return bodies


def _joined(bodies: list[tuple[words.Ints, words.Ints]], suffix: list[int]) -> tuple[words.Ints, words.Ints]:
    """Join all texts, with distinct units."""
    ids, units, first = [], [], 0
    for body, numbers in bodies:
        ids += [body, np.array(suffix, dtype=np.int64)]
        units += [np.where(numbers < 0, -1, numbers + first), np.full(len(suffix), -1, dtype=np.int64)]
        first += len(body) + 1
    if not ids:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(ids), np.concatenate(units)
