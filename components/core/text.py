"""Normalisation of raw text: the one function that preprocessing, baselines and the served model share."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator

UnicodeForm = Literal["NFC", "NFKC"]

_SPACE = re.compile(r"\s+")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")  # soft hyphen, zero-width space, word joiner, BOM: no reader sees them


def normalise(text: str, form: UnicodeForm) -> str:
    """Return `text` in one Unicode form, without invisible characters, with single spaces and no space at the ends."""
    return _SPACE.sub(" ", _INVISIBLE.sub("", unicodedata.normalize(form, text))).strip()


_MADE = re.compile(r"([0-9a-f]{16})(#\d+)?")  # an id that Retune gave to a row without one: the hash of its text, and its running number


def text_key(*texts: str) -> str:
    """Return 16 digits of a sha256 over the texts of a row; their Unicode form, invisible characters and surplus spaces do not count."""
    cells = [normalise(text, "NFKC") for text in texts]
    return hashlib.sha256(json.dumps(cells, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()[:16]


def grouped(ids: Iterable[str], groups: Iterable[str]) -> bool:
    """Return whether the data came with groups; where they have none, a row's group is its id, or that without its running number."""

    def alone(name: str, group: str) -> bool:
        made = _MADE.fullmatch(name)
        return name == group or (made is not None and made.group(1) == group)

    return not all(map(alone, ids, groups))


# What no reader sees of a label: control characters, soft hyphen, grapheme joiner, direction marks, zero-width space, word joiner and its
# like, BOM.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)
# Joiners mean something between letters of other scripts and in emoji, and nothing beside ASCII, a blank or an end.
_JOINER = re.compile("(?<![^\\s\x21-\x7e])[\u200c\u200d]+|[\u200c\u200d]+(?![^\\s\x21-\x7e])")
_BLANK = re.compile("[\\s\u2800\u3164\uffa0]")


def canonical_label(name: str) -> str:
    """Return a label as all of its spellings that look the same are written: NFC, plain blanks, none at the ends, nothing invisible."""
    return unicodedata.normalize("NFC", _BLANK.sub(" ", _JOINER.sub("", _UNSEEN.sub("", name))).strip())


Label = Annotated[str, AfterValidator(canonical_label)]
"""The name of a label in a setting, as those of the data are read."""


def label_reader(label_map: Mapping[str, str]) -> Callable[[str], str]:
    """Return what makes of a label as it stands in the data the label that it is: the canonical one, or what `label_map` says of that."""
    known = {canonical_label(variant): canonical_label(label) for variant, label in label_map.items()}

    def read(name: str) -> str:
        clean = canonical_label(name)
        return known.get(clean, clean)

    return read


def twin_key(name: str) -> str:
    """Return what two labels share that differ only in case, blanks, joiners, variants or compatibility forms: one by mistake, perhaps."""
    return re.sub("[\\s\u200c\u200d\ufe00-\ufe0f]", "", unicodedata.normalize("NFKC", canonical_label(name)).casefold())
