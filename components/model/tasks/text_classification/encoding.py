"""Tokenization of texts and pairs of texts for all model families."""

from typing import Any

import pandas as pd

from components.core.text import UnicodeForm, normalise

PAIR = ("text_a", "text_b")
BETWEEN = " \u241e "
"""Separates the texts of a pair in `text`: the symbol for the record separator."""

Texts = tuple[list[str], ...]
"""One list of texts, or two lists of equal length."""


def texts_of(rows: pd.DataFrame, pair: bool, form: UnicodeForm) -> Texts:
    """Return the normalised texts of `rows`."""
    return tuple([normalise(text, form) for text in rows[column]] for column in (PAIR if pair else ("text",)))


def tokenize(tokenizer: Any, texts: Texts, **settings: Any) -> Any:
    """Tokenize the texts.

    End and padding tokens inside a text are replaced, because BART, T5 and language models locate the pooled token by them. If the
    tokenizer adds no special tokens, an empty text becomes an end token, and the second text of a pair starts with a new line.
    """
    for token in filter(None, (tokenizer.eos_token, tokenizer.pad_token)):
        texts = tuple([text.replace(token, " ") for text in column] for column in texts)
    bare = tokenizer.num_special_tokens_to_add(pair=False)
    if len(texts) == 2 and tokenizer.num_special_tokens_to_add(pair=True) <= bare:
        texts = (texts[0], [f"\n{text}" for text in texts[1]])
    if not bare and tokenizer.eos_token:
        texts = tuple([text or tokenizer.eos_token for text in column] for column in texts)
    return tokenizer(*texts, **settings)
