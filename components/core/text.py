"""Text normalisation, shared by preprocessing, baselines and the served model."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Annotated, Literal

from pydantic import AfterValidator

UnicodeForm = Literal["NFC", "NFKC"]

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""The scripts without spaces between words, as ranges of a regular expression: Thai, Lao, Burmese, Khmer, kana, Han."""

WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
"""A word with its punctuation: the characters between spaces; in scripts without spaces, each character is a word."""

TERM = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
"""A word without punctuation."""

_SPACE = re.compile(r"\s+")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphen, zero-width space, word joiner, BOM


def normalise(text: str, form: UnicodeForm) -> str:
    """Return `text` in the Unicode form, without invisible characters, surplus and outer spaces."""
    return _SPACE.sub(" ", _INVISIBLE.sub("", unicodedata.normalize(form, text))).strip()


def split_words(text: str) -> list[str]:
    """Return the words of `text` (see WORD), in order."""
    return WORD.findall(text)


def first_words(text: str, count: int) -> str:
    """Return `text` up to the end of its word number `count`; all of it if it has fewer."""
    ends = [match.end() for match in islice(WORD.finditer(text), count)]
    return text[: ends[-1]] if ends else ""


_GENERATED_ID = re.compile(r"([0-9a-f]{16})(#\d+)?")  # an id generated for a row without one: the hash of its text and a running number


def text_key(*texts: str) -> str:
    """Return 16 digits of a sha256 over the texts of a row; Unicode form, invisible characters and surplus spaces do not matter."""
    cells = [normalise(text, "NFKC") for text in texts]
    return hashlib.sha256(json.dumps(cells, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()[:16]


def grouped(ids: Iterable[str], groups: Iterable[str]) -> bool:
    """Return whether the data has groups; otherwise a row's group is its id, or that without its running number."""

    def is_own_group(name: str, group: str) -> bool:
        match = _GENERATED_ID.fullmatch(name)
        return name == group or (match is not None and match.group(1) == group)

    return not all(map(is_own_group, ids, groups))


# Invisible in a label: control characters, soft hyphen, grapheme joiner, direction marks, zero-width space, word joiners, BOM.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)
# Joiners matter between letters of other scripts and in emoji, but not next to ASCII, a blank or an end.
_JOINER = re.compile("(?<![^\\s\x21-\x7e])[\u200c\u200d]+|[\u200c\u200d]+(?![^\\s\x21-\x7e])")
_BLANK = re.compile("[\\s\u2800\u3164\uffa0]")


def canonical_label(name: str) -> str:
    """Return the canonical spelling of a label: NFC, plain blanks, no outer blanks, no invisible characters."""
    return unicodedata.normalize("NFC", _BLANK.sub(" ", _JOINER.sub("", _UNSEEN.sub("", name))).strip())


Label = Annotated[str, AfterValidator(canonical_label)]
"""A label in a setting, in its canonical spelling."""


def label_reader(label_map: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that maps a label of the data to its canonical spelling and through `label_map`."""
    mapping = {canonical_label(variant): canonical_label(label) for variant, label in label_map.items()}

    def read(name: str) -> str:
        clean = canonical_label(name)
        return mapping.get(clean, clean)

    return read


def twin_key(name: str) -> str:
    """Return a key shared by labels that differ only in case, blanks, joiners, variants or compatibility forms."""
    return re.sub("[\\s\u200c\u200d\ufe00-\ufe0f]", "", unicodedata.normalize("NFKC", canonical_label(name)).casefold())
