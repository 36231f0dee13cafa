"""Texts, or pairs of them, as a model of any family reads them."""

from collections.abc import Sequence
from typing import Any, cast

import pandas as pd

from components.core.text import UnicodeForm, normalise

PAIR = ("text_a", "text_b")
BETWEEN = " \u241e "
"""Stands between the texts of a pair in `text`: the picture of the record separator, which no text has."""

Texts = tuple[list[str], ...]
"""One list of texts, or two of the same length."""


def texts_of(rows: pd.DataFrame, pair: bool, form: str) -> Texts:
    """Return the texts of `rows`, normalised as in training."""
    return tuple([normalise(text, cast(UnicodeForm, form)) for text in rows[column]] for column in (PAIR if pair else ("text",)))


def joined(rows: pd.DataFrame) -> list[str]:
    """Return both texts of each row as one, by which rows are told apart."""
    return [f"{one}{BETWEEN}{other}" for one, other in zip(rows["text_a"], rows["text_b"], strict=True)]


def tokenize(tokenizer: Any, texts: Texts, **settings: Any) -> Any:
    """Return what `tokenizer` makes of the texts.

    Where a model finds its place by the end or padding token, as BART, T5 and language models do, one written in a text must not count;
    and where a tokenizer marks neither ends nor pairs, an empty text is an end token, and the second text of a pair starts a new line.
    """
    for token in filter(None, (tokenizer.eos_token, tokenizer.pad_token)):
        texts = tuple([text.replace(token, " ") for text in each] for each in texts)
    bare = tokenizer.num_special_tokens_to_add(pair=False)
    if len(texts) == 2 and tokenizer.num_special_tokens_to_add(pair=True) <= bare:
        texts = (texts[0], [f"\n{text}" for text in texts[1]])
    if not bare and tokenizer.eos_token:
        texts = tuple([text or tokenizer.eos_token for text in each] for each in texts)
    return tokenizer(*texts, **settings)


def lengths(tokenizer: Any, texts: Texts) -> Sequence[int]:
    """Return the length of each row in tokens, special ones included, before truncation."""
    inputs = tokenize(
        tokenizer, texts, truncation=False, padding=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return [len(ids) for ids in inputs["input_ids"]]
