"""Small changes to a text that leave its meaning alone: a typo, another case, wide letters, lost accents, punctuation, a polite phrase.

Pure. Each returns the text itself where it has nothing to change; what it chooses, it chooses by the random numbers passed in.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from random import Random

Change = Callable[[str, Random], str]

PADDING = ("Please note: {text}", "{text} (as noted)", "{text} Thank you.")

_LONG = re.compile(r"[^\W\d_]{4,}")
_ASCII = re.compile(r"[A-Za-z0-9]+")
_WIDE = 0xFEE0  # from ASCII to the full-width forms, which Asian input methods write
_TYPOGRAPHIC = {"'": "’", '"': "”", "-": "–"}


def typo(text: str, random: Random) -> str:
    """Swap two neighbouring letters inside one word of four letters or more, leave one out, or double it; the first letter stays."""
    words = list(_LONG.finditer(text))
    if not words:
        return text
    word = random.choice(words)
    place = word.start() + random.randrange(1, len(word[0]) - 1)
    pair = text[place : place + 2]
    slipped = [pair[::-1], pair[1:], pair[0] + pair]
    if pair[0] == pair[1]:  # swapping them would change nothing
        slipped = slipped[1:]
    return text[:place] + random.choice(slipped) + text[place + 2 :]


def case(text: str, random: Random) -> str:
    """Write the whole text in capitals or in small letters."""
    others = [other for other in (text.upper(), text.lower()) if other != text]
    return random.choice(others) if others else text


def width(text: str, random: Random) -> str:
    """Write one word or number in full-width characters."""
    words = list(_ASCII.finditer(text))
    if not words:
        return text
    word = random.choice(words)
    return text[: word.start()] + "".join(chr(ord(letter) + _WIDE) for letter in word[0]) + text[word.end() :]


def diacritics(text: str, random: Random) -> str:
    """Leave out the accents and dots of all letters, as keyboards without them do."""
    bare = "".join(letter for letter in unicodedata.normalize("NFD", text) if unicodedata.category(letter) != "Mn")
    return bare if bare != unicodedata.normalize("NFD", text) else text


def punctuation(text: str, random: Random) -> str:
    """Add or leave out the full stop at the end, or write quotes and hyphens as a word processor does."""
    others = [text[:-1] if text.endswith(".") else text + "."]
    typographic = "".join(_TYPOGRAPHIC.get(letter, letter) for letter in text)
    return random.choice([*others, typographic] if typographic != text else others)


def pad_with(phrases: tuple[str, ...]) -> Change:
    """Return what puts a phrase around the text; `{text}` stands for it."""

    def padding(text: str, random: Random) -> str:
        return random.choice(phrases).replace("{text}", text) if phrases else text

    return padding


def replace_words(pairs: tuple[tuple[str, str], ...]) -> Change:
    """Return what replaces whole words: each `from` of the pairs by its `to`, all at once, so that left and right can change places."""
    new = dict(pairs)
    words = "|".join(re.escape(old) for old in sorted(new, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)")

    def replacing(text: str, random: Random) -> str:
        return pattern.sub(lambda found: new[found[0]], text)

    return replacing


KINDS: Mapping[str, Change] = {
    "typos": typo,
    "case": case,
    "width": width,
    "diacritics": diacritics,
    "punctuation": punctuation,
    "padding": pad_with(PADDING),
}
