"""Numbers and texts as a reader wants them: three significant digits, thin spaces, true minus signs, nothing invisible."""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import TypeGuard

from markupsafe import Markup, escape

THIN = "\u202f"  # narrow no-break space: groups digits, and never ends a line
MINUS = "\u2212"
NOTHING = "–"

_NAMES: Mapping[str, str] = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "weighted_f1": "weighted F1",
    "tfidf": "TF-IDF",
    "majority": "most frequent class",
    "ece": "ECE",
    "brier": "Brier score",
    "log_loss": "log-loss",
    "loss": "training loss",
    "eval_loss": "validation loss",
}
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # would turn the text around them


def named(name: str) -> str:
    """Return a metric's or a baseline's name in words."""
    return _NAMES.get(name) or (f"validation {named(name[5:])}" if name.startswith("eval_") else name.replace("_", " "))


def count(value: float | None) -> str:
    """Return a whole number with its digits in groups of three."""
    return _grouped(f"{value:.0f}") if _is_number(value) else NOTHING


def number(value: float | None) -> str:
    """Return three significant digits, without trailing zeros; powers of ten below 0.0001 and from a billion on."""
    if not _is_number(value):
        return NOTHING
    size = abs(value)
    if size != 0 and (size < 9.995e-5 or size >= 1e9):
        mantissa, exponent = f"{value:.2e}".split("e")
        return _grouped(_trimmed(mantissa)) + f"{THIN}×{THIN}10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    decimals = 2 if size == 0 else max(0, 2 - math.floor(math.log10(size)))
    return _grouped(_trimmed(f"{value:.{decimals}f}"))


def metric(value: float | None) -> str:
    """Return a score with three decimals, so that scores under each other line up."""
    return _grouped(f"{value:.3f}") if _is_number(value) else NOTHING


def signed(value: float | None) -> str:
    """Return a difference with three decimals and its sign."""
    return _grouped(f"{value:+.3f}") if _is_number(value) else NOTHING


def probability(value: float | None) -> str:
    """Return a probability that is never rounded to certainty."""
    if not _is_number(value):
        return NOTHING
    if 0.9995 <= value < 1:
        return f">{THIN}0.999"
    return f"<{THIN}0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal, or with two digits where that would leave nothing."""
    if not _is_number(share):
        return NOTHING
    value = share * 100
    return (f"{value:.1f}" if value == 0 or abs(value) >= 0.1 else number(float(f"{value:.2g}"))) + f"{THIN}%"


def moment(text: str) -> str:
    """Return an ISO time as a person writes it, to the minute."""
    day, _, clock = text.partition("T")
    return f"{day} {clock[:5]}" + (" UTC" if text.endswith(("Z", "+00:00")) else "") if clock else text


def quantile(name: str) -> str:
    """Return a quantile's name in words: `p50`, `p90`, `max` or a share."""
    if name in ("p50", "0.5"):
        return "median"
    if name == "max":
        return "longest"
    return f"{name[1:]}{THIN}% up to" if name[:1] == "p" and name[1:].isdigit() else name


def duration(seconds: float | None) -> str:
    """Return a duration in the unit that fits: seconds, minutes or hours."""
    if not _is_number(seconds):
        return NOTHING
    if seconds < 99.5:
        return f"{number(seconds)}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    return f"{count(minutes // 60)}{THIN}h {minutes % 60:02d}{THIN}min"


def setting(value: object) -> str:
    """Return a setting's value as a reader of params.yaml would write it."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    return number(value) if isinstance(value, float) else cut(str(value), 80)


def visible(text: str) -> str:
    """Return `text` with control characters shown as symbols, and without those that turn the direction of what follows."""
    return "".join(_shown(character) for character in text)


def cut(text: object, limit: int) -> str:
    """Return at most `limit` characters of the visible text, on one line, with an ellipsis where it was cut."""
    line = visible(" ".join(str(text)[: 4 * limit + 200].split(" ")))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def whole(text: object, limit: int) -> str | None:
    """Return the text that `cut` shortens at `limit`, itself cut where nobody would read on; None where nothing is lost."""
    return None if len(str(text)) <= limit else cut(text, 2_000)


def coded(text: str) -> Markup:
    """Return a sentence of ours as HTML, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def cell(value: str | float | int | bool | None) -> str:
    """Return what stands in a table as a reader wants it: digits in groups, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return visible(value) if isinstance(value, str) else number(value)


def many(number: int, one: str, more: str = "") -> str:
    """Return how many there are of a thing, as `1 note` or `2 notes`."""
    return f"{count(number)} {one if number == 1 else more or one + 's'}"


def columns(text: str) -> int:
    """Return how many columns a text takes: two for a wide East Asian character, none for a combining mark."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _shown(character: str) -> str:
    if character in "\n\t\r":
        return " "
    if character < " ":
        return chr(0x2400 + ord(character))
    if character in _TURNING:
        return ""
    return "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") else character


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _grouped(text: str) -> str:
    sign = MINUS if text.startswith("-") else "+" if text.startswith("+") else ""
    whole, dot, decimals = text.lstrip("+-").partition(".")
    if not (whole + decimals).strip("0") and sign == MINUS:
        sign = ""
    return sign + f"{int(whole):,}".replace(",", THIN) + dot + decimals
