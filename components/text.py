"""Normalisation of raw text: the one function that preprocessing, baselines and the served model share."""

import re
import unicodedata
from typing import Literal

UnicodeForm = Literal["NFC", "NFKC"]

_SPACE = re.compile(r"\s+")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphen, zero-width space, word joiner, BOM: no reader sees them


def normalise(text: str, form: UnicodeForm) -> str:
    """Return `text` in one Unicode form, without invisible characters, with single spaces and no space at the ends."""
    return _SPACE.sub(" ", _INVISIBLE.sub("", unicodedata.normalize(form, text))).strip()
