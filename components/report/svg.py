"""SVG without a library: escaped elements, scales, and a plane as wide as the page.

Horizontal positions are percentages and vertical ones pixels, so that a figure fits phone and paper while text and marks keep their
size. Colours are CSS classes in style.css, for light, dark and print.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from components.report.wording import number, visible

Point = tuple[float, float]

_SHAPES = {
    "circle": "M0-4.5A4.5 4.5 0 1 1 0 4.5A4.5 4.5 0 1 1 0-4.5z",
    "square": "M-4-4H4V4H-4z",
    "diamond": "M0-5.5 5.5 0 0 5.5-5.5 0z",
    "triangle": "M0-5 4.8 3.6H-4.8z",
    "tick": "M0-5V5",
    "cross": "M-4-4 4 4M4-4-4 4",
    "left": "M-5 0 4-4.8V4.8z",
}


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """Return one element; children and values are escaped unless they are markup, `_` in a name becomes `-`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else f"{value:.5g}")
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(child if isinstance(child, Markup) else escape(visible(child)) for child in children)
    return Markup("<{}{}>{}</{}>").format(Markup(name), written, inside, Markup(name))


def drawing(height: float, label: str, *children: str, class_: str = "chart", **attributes: str) -> Markup:
    """Return a figure as wide as the page, with a label for screen readers."""
    named = {"class_": class_, "role": "img", "aria_label": visible(label), "width": "100%", "height": f"{height:.5g}"}
    return element("svg", *children, **named, **attributes)


def strip(*children: str) -> Markup:
    """Return a drawing that fills a table cell; hidden from screen readers, because the next cells contain the numbers."""
    return element("svg", *children, aria_hidden="true")


@dataclass(frozen=True)
class Scale:
    """A map from values to positions, linear or logarithmic."""

    low: float
    high: float
    start: float = 3.0
    end: float = 97.0
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a value, clipped to the ends."""
        low, high, at = (math.log(max(v, 1e-12)) if self.log else v for v in (self.low, self.high, value))
        share = 0.5 if high == low else min(max((at - low) / (high - low), 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def percent(self, value: float) -> str:
        """Return the position of a value as a percentage of the width."""
        return f"{self(value):.5g}%"

    def ticks(self) -> list[float]:
        """Return about five round values between the ends."""
        step = nice_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def nice_step(rough: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 times a power of ten that is not below `rough`."""
    if not (rough > 0 and math.isfinite(rough)):
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))


def extent(values: Iterable[float]) -> tuple[float, float]:
    """Return the smallest and the largest finite value."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    return min(finite), max(finite)


def spanning(values: Iterable[float], start: float = 3.0, end: float = 97.0, pad: float = 0.06) -> Scale:
    """Return a linear scale over the finite values with padding at both ends."""
    low, high = extent(values)
    room = (high - low) * pad or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room, start, end)


def mark(shape: str, x: str, y: str | float, tone: str, title: str | None = None) -> Markup:
    """Return a mark of constant size; `tone` is its CSS class."""
    inside = [element("title", title)] if title else []
    return element("svg", element("path", *inside, d=_SHAPES[shape], class_=f"mark {tone}"), x=x, y=y, class_="at")


def line(x1: str, y1: str | float, x2: str, y2: str | float, tone: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=tone)


def text(x: str, y: str | float, words: str, tone: str = "label", anchor: str = "middle", title: str | None = None) -> Markup:
    """Return a line of text."""
    inside = [element("title", title)] if title else []
    return element("text", *inside, words, x=x, y=y, class_=tone, text_anchor=anchor)


def path(points: Sequence[Point], height: float, tone: str) -> Markup:
    """Return a line through points with x in percent; the stroke width does not depend on the figure's width."""
    if len(points) < 2:
        return Markup("")
    along = " ".join(f"{x:.5g},{y:.5g}" for x, y in points)
    inner = element("polyline", points=along, class_=f"curve {tone}", vector_effect="non-scaling-stroke")
    return element("svg", inner, viewBox=f"0 0 100 {height:.5g}", preserveAspectRatio="none", x="0", y="0", width="100%", height=height)


@dataclass(frozen=True)
class Plane:
    """Two scales and the space around them."""

    x: Scale
    y: Scale
    height: float

    @classmethod
    def over(cls, xs: Scale, ys: Scale, height: float, gutter: float = 10.0, foot: float = 40.0) -> "Plane":
        """Return a plane with space for tick labels on the left, a title on top and an axis below."""
        return cls(Scale(xs.low, xs.high, gutter, 97.0, xs.log), Scale(ys.low, ys.high, height - foot, 24.0, ys.log), height)

    def at(self, x: float, y: float) -> Point:
        """Return a position as (percentage, pixels)."""
        return self.x(x), self.y(y)

    def axes(self, below: str, above: str, bottom: float | None = None) -> Markup:
        """Return the grid with its numbers and the names of both axes; `bottom` is the height of the horizontal one, if not that of `y`."""
        left = f"{self.x.start - 1.4:.5g}%"
        bottom = self.y.start if bottom is None else bottom
        parts = [text("0%", 11, above, "name", "start")]
        for value in self.y.ticks():
            parts += [
                line(f"{self.x.start:.5g}%", self.y(value), "98%", self.y(value), "grid"),
                text(left, self.y(value) + 4, number(value), "label", "end"),
            ]
        parts += [text(self.x.percent(value), bottom + 18, number(value)) for value in self.x.ticks()]
        parts.append(text("97%", self.height - 4, below, "name", "end"))
        return Markup("").join(parts)

    def curve(self, points: Sequence[Point], tone: str) -> Markup:
        """Return a line through points given as values."""
        return path([self.at(*point) for point in points], self.height, tone)

    def dot(self, x: float, y: float, shape: str, tone: str, title: str | None = None) -> Markup:
        """Return a mark at a point given as values."""
        return mark(shape, self.x.percent(x), self.y(y), tone, title)
