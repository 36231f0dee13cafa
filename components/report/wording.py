"""Format numbers and texts for readers: three significant digits, thin spaces, minus signs, no invisible characters."""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import TypeGuard

from markupsafe import Markup, escape

THIN = "\u202f"  # narrow no-break space between groups of digits
MINUS = "\u2212"
NOTHING = "–"

_NAMES: Mapping[str, str] = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "weighted_f1": "weighted F1",
    "tfidf": "TF-IDF",
    "probe": "linear probe",
    "majority": "most frequent class",
    "ece": "ECE",
    "brier": "Brier score",
    "log_loss": "log-loss",
    "loss": "training loss",
    "eval_loss": "validation loss",
}
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # change the text direction


def named(name: str) -> str:
    """Return the display name of a metric or baseline."""
    return _NAMES.get(name) or (f"validation {named(name[5:])}" if name.startswith("eval_") else name.replace("_", " "))


def scored(name: str, classes: int, left_out: int) -> str:
    """Return the display name of a metric; macro-F1 with the number of classes that it is a mean of, if some are left out."""
    return f"{named(name)} of {classes - left_out} of {classes} classes" if name == "macro_f1" and left_out else named(name)


def count(value: float | None) -> str:
    """Format an integer with digits in groups of three."""
    return _grouped(f"{value:.0f}") if is_number(value) else NOTHING


def number(value: float | None) -> str:
    """Format with three significant digits, without trailing zeros; powers of ten below 0.0001 and from a billion on."""
    if not is_number(value):
        return NOTHING
    size = abs(value)
    if size != 0 and (size < 9.995e-5 or size >= 1e9):
        mantissa, exponent = f"{value:.2e}".split("e")
        return _grouped(_trimmed(mantissa)) + f"{THIN}×{THIN}10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    decimals = 2 if size == 0 else max(0, 2 - math.floor(math.log10(size)))
    return _grouped(_trimmed(f"{value:.{decimals}f}"))


def metric(value: float | None) -> str:
    """Format a score with three decimals, so that scores line up."""
    return _grouped(f"{value:.3f}") if is_number(value) else NOTHING


def signed(value: float | None) -> str:
    """Format a difference with three decimals and its sign."""
    return _grouped(f"{value:+.3f}") if is_number(value) else NOTHING


def probability(value: float | None) -> str:
    """Format a probability, never rounded to 0 or 1."""
    if not is_number(value):
        return NOTHING
    if 0.9995 <= value < 1:
        return f">{THIN}0.999"
    return f"<{THIN}0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def percent(share: float | None) -> str:
    """Format a share as a percentage with one decimal, or two significant digits below 0.1 %."""
    if not is_number(share):
        return NOTHING
    value = share * 100
    return (f"{value:.1f}" if value == 0 or abs(value) >= 0.1 else number(float(f"{value:.2g}"))) + f"{THIN}%"


def moment(text: str) -> str:
    """Format an ISO time to the minute."""
    day, _, clock = text.partition("T")
    return f"{day} {clock[:5]}" + (" UTC" if text.endswith(("Z", "+00:00")) else "") if clock else text


def quantile(name: str) -> str:
    """Return the display name of a quantile: `p50`, `p90`, `max` or a share."""
    if name in ("p50", "0.5"):
        return "median"
    if name == "max":
        return "longest"
    return f"{name[1:]}{THIN}% up to" if name[:1] == "p" and name[1:].isdigit() else name


def duration(seconds: float | None) -> str:
    """Format a duration in seconds, minutes or hours."""
    if not is_number(seconds):
        return NOTHING
    if seconds < 99.5:
        return f"{number(seconds)}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    return f"{count(minutes // 60)}{THIN}h {minutes % 60:02d}{THIN}min"


def setting(value: object) -> str:
    """Format a setting's value like in params.yaml."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    return number(value) if isinstance(value, float) else cut(str(value), 80)


def visible(text: str) -> str:
    """Return `text` with control characters as symbols, and without those that change the text direction."""
    return "".join(_shown(character) for character in text)


def cut(text: object, limit: int) -> str:
    """Return at most `limit` characters of the visible text on one line, with an ellipsis if truncated."""
    line = visible(" ".join(str(text)[: 4 * limit + 200].split(" ")))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def whole(text: object, limit: int) -> str | None:
    """Return the text that `cut` would truncate at `limit`, up to 2,000 characters; None if it fits."""
    return None if len(str(text)) <= limit else cut(text, 2_000)


def coded(text: str) -> Markup:
    """Return a sentence as HTML, with text between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def cell(value: str | float | int | bool | None) -> str:
    """Format a table cell: digits in groups, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return visible(value) if isinstance(value, str) else number(value)


def many(number: int, singular: str, plural: str = "") -> str:
    """Format a number with its noun, e.g. `1 note` or `2 notes`."""
    return f"{count(number)} {singular if number == 1 else plural or singular + 's'}"


def columns(text: str) -> int:
    """Return the width of a text in columns: two for a wide East Asian character, none for a combining mark."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _shown(character: str) -> str:
    if character in "\n\t\r":
        return " "
    if character < " ":
        return chr(0x2400 + ord(character))
    if character in _BIDI_CONTROLS:
        return ""
    return "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") else character


def is_number(value: float | None) -> TypeGuard[float]:
    """Return whether a number is known and finite."""
    return value is not None and math.isfinite(value)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _grouped(text: str) -> str:
    sign = MINUS if text.startswith("-") else "+" if text.startswith("+") else ""
    whole, dot, decimals = text.lstrip("+-").partition(".")
    if not (whole + decimals).strip("0") and sign == MINUS:
        sign = ""
    return sign + f"{int(whole):,}".replace(",", THIN) + dot + decimals
