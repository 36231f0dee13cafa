"""The confusion matrix as a drawing, legible with up to 25 classes with long names."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from components.report.svg import drawing, element, text
from components.report.wording import columns, count, cut

MOST_CLASSES = 25
FEW_CLASSES = 5
WIDTH = 960


def confusion_matrix(labels: Sequence[str], counts: npt.NDArray[np.int64]) -> Markup:
    """Return the matrix (expected, predicted), coloured by the share of the row; many columns are numbered."""
    names = min(330.0, max(106.0, 7.0 * max(map(columns, labels)) + 40))
    named = len(labels) <= FEW_CLASSES  # room for names above the columns
    cell = min(118.0 if named else 64.0, (WIDTH - names - 50) / len(labels))
    tall = max(min(cell, 40.0), 26.0)
    head = 40.0
    totals = counts.sum(axis=1)
    parts = [text(f"{names + 2:.5g}", 11, "predicted →", "name", "start"), text(f"{names - 34:.5g}", head - 8, "expected ↓", "name", "end")]
    parts.append(element("rect", x=names, y=head, width=cell * len(labels), height=tall * len(labels), class_="bed"))
    for at, label in enumerate(labels):
        y, x = head + tall * at, names + cell * (at + 0.5)
        parts += _row_name(label, "" if named else str(at + 1), names, y, tall)
        parts.append(text(f"{x:.5g}", head - 8, cut(label, 14) if named else str(at + 1), "label", "middle", title=label))
        parts.append(text(f"{names + cell * len(labels) + 44:.5g}", y + tall / 2 + 4, count(int(totals[at])), "label", "end"))
        parts += [_cell(counts[at], int(totals[at]), at, int(to), (names + cell * to, y, cell, tall)) for to in np.flatnonzero(counts[at])]
    parts.append(text(f"{names + cell * len(labels) + 44:.5g}", head - 8, "rows", "label", "end"))
    height, width = head + tall * len(labels) + 6, names + cell * len(labels) + 50
    limits = f"min-width:{min(width, 720):.5g}px;max-width:{width:.5g}px"
    label = "Confusion matrix: rows are expected labels, columns predicted ones"
    return drawing(height, label, *parts, class_="chart matrix", viewBox=f"0 0 {width:.5g} {height:.5g}", style=limits)


def _row_name(label: str, numeral: str, names: float, y: float, tall: float) -> list[Markup]:
    lines = wrapped(cut(label, 120), int((names - 36) / 6.1), 2 if tall >= 26 else 1)
    first = y + tall / 2 + 4 - 6.5 * (len(lines) - 1)
    parts = [
        text(f"{names - 30:.5g}", first + 13 * at, words, "small", "end", title=label if at == 0 else None)
        for at, words in enumerate(lines)
    ]
    return [*parts, text(f"{names - 6:.5g}", y + tall / 2 + 4, numeral, "label", "end")]


def _cell(row: npt.NDArray[np.int64], total: int, at: int, to: int, box: tuple[float, float, float, float]) -> Markup:
    x, y, width, height = box
    rows, share = int(row[to]), row[to] / max(total, 1)
    tone = "right" if at == to else "wrong"
    level = min(int(share * 5), 4) if tone == "right" else min(int(share * 20), 4)
    square = element("rect", x=x + 0.5, y=y + 0.5, width=width - 1, height=height - 1, class_=f"{tone} l{level}")
    return square + text(f"{x + width / 2:.5g}", y + height / 2 + 4, count(rows), f"cell l{level}")


def wrapped(words: str, width: int, lines: int) -> list[str]:
    """Wrap `words` into at most `lines` lines of `width` columns, truncated with an ellipsis."""
    done: list[str] = []
    rest = words
    while rest and len(done) < lines:
        if columns(rest) <= width or len(done) == lines - 1:
            piece, rest = _fitting(rest, width), ""
        else:
            piece = _fitting(rest, width)[:-1].rsplit(" ", 1)[0]
            rest = rest[len(piece) :].lstrip()
        done.append(piece)
    return done or [""]


def _fitting(words: str, width: int) -> str:
    if columns(words) <= width:
        return words
    kept = words
    while kept and columns(kept) >= width:
        kept = kept[:-1]
    return kept.rstrip() + "…"
