"""Perturbations that keep the meaning of a text: typos, case, full-width letters, accents, punctuation, a polite phrase.

Pure functions of a text and a random generator; they return the text unchanged if nothing applies.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from random import Random

Perturbation = Callable[[str, Random], str]

PADDING = ("Please note: {text}", "{text} (as noted)", "{text} Thank you.")

_LONG = re.compile(r"[^\W\d_]{4,}")
_ASCII = re.compile(r"[A-Za-z0-9]+")
_WIDE = 0xFEE0  # offset from ASCII to the full-width forms of Asian input methods
_TYPOGRAPHIC = {"'": "’", '"': "”", "-": "–"}


def typo(text: str, random: Random) -> str:
    """Swap two neighbouring letters of a word of at least four letters, drop one, or double it; the first letter stays."""
    words = list(_LONG.finditer(text))
    if not words:
        return text
    word = random.choice(words)
    start = word.start() + random.randrange(1, len(word[0]) - 1)
    pair = text[start : start + 2]
    typos = [pair[::-1], pair[1:], pair[0] + pair]
    if pair[0] == pair[1]:  # swapping would change nothing
        typos = typos[1:]
    return text[:start] + random.choice(typos) + text[start + 2 :]


def case(text: str, random: Random) -> str:
    """Write the whole text in upper or lower case."""
    variants = [variant for variant in (text.upper(), text.lower()) if variant != text]
    return random.choice(variants) if variants else text


def width(text: str, random: Random) -> str:
    """Write one word or number in full-width characters."""
    words = list(_ASCII.finditer(text))
    if not words:
        return text
    word = random.choice(words)
    return text[: word.start()] + "".join(chr(ord(letter) + _WIDE) for letter in word[0]) + text[word.end() :]


def diacritics(text: str, random: Random) -> str:
    """Remove the accents and dots of all letters, as keyboards without them do."""
    bare = "".join(letter for letter in unicodedata.normalize("NFD", text) if unicodedata.category(letter) != "Mn")
    return bare if bare != unicodedata.normalize("NFD", text) else text


def punctuation(text: str, random: Random) -> str:
    """Add or remove the final full stop, or use typographic quotes and dashes."""
    variants = [text[:-1] if text.endswith(".") else text + "."]
    typographic = "".join(_TYPOGRAPHIC.get(letter, letter) for letter in text)
    return random.choice([*variants, typographic] if typographic != text else variants)


def pad_with(phrases: tuple[str, ...]) -> Perturbation:
    """Return a perturbation that puts the text into a phrase, at `{text}`."""

    def padding(text: str, random: Random) -> str:
        return random.choice(phrases).replace("{text}", text) if phrases else text

    return padding


def replace_words(pairs: tuple[tuple[str, str], ...]) -> Perturbation:
    """Return a perturbation that replaces whole words by (from, to) pairs, all at once, so that left and right can be swapped."""
    new = dict(pairs)
    words = "|".join(re.escape(old) for old in sorted(new, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)")

    def replacing(text: str, random: Random) -> str:
        return pattern.sub(lambda match: new[match[0]], text)

    return replacing


PERTURBATIONS: Mapping[str, Perturbation] = {
    "typos": typo,
    "case": case,
    "width": width,
    "diacritics": diacritics,
    "punctuation": punctuation,
    "padding": pad_with(PADDING),
}
