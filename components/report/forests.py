"""Forest plots in table cells: one row per item, estimate and interval on a common scale."""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from components.artifacts.metrics import ClassScore, Estimate
from components.artifacts.verdict import GateResult, Hypothesis, Outcome
from components.report.svg import Scale, element, extent, line, mark, spanning, strip, text
from components.report.wording import is_number, metric, number, signed

SHAPES = {Outcome.FAIL: "square", Outcome.INCONCLUSIVE: "diamond"}
MIDDLE = "50%"


def gate_plots(gates: Sequence[GateResult]) -> tuple[list[tuple[Markup | None, bool]], Markup | None]:
    """Return the plot of each gate, as distances from its threshold, whether it does not fit the common axis, and that axis.

    A gate without an interval has no plot.
    """
    known = [numbers(gate) for gate in gates]
    distances = [[value - (gate.threshold or 0.0) for value in values] for gate, values in zip(gates, known, strict=True)]
    distances = [distance if len(distance) > 1 else [] for distance in distances]
    shared = [d for d in distances if d and max(map(abs, d)) <= 1]
    scale = spanning([0.0, *(value for d in shared for value in d)], 6, 94, pad=0.1)
    plots: list[tuple[Markup | None, bool]] = []
    for gate, distance in zip(gates, distances, strict=True):
        own = bool(distance) and distance not in shared
        axis_of = spanning([0.0, *distance], 6, 94, 0.1) if own else scale
        style = SHAPES.get(gate.outcome, "circle"), tone(gate.outcome)
        plots.append((_interval_plot(axis_of, gate, gate.threshold or 0.0, 0.0, *style) if distance else None, own))
    return plots, (axis(scale, sign=True) if shared else None)


def numbers(result: GateResult | Hypothesis) -> list[float]:
    """Return the estimate and the known ends of its interval; empty without an estimate."""
    known = [value for value in (result.estimate, result.low, result.high) if is_number(value)]
    return known if is_number(result.estimate) else []


def hypothesis_plots(members: Sequence[Hypothesis], line_at: float | None, signs: bool) -> tuple[list[Markup | None], Markup | None]:
    """Return one plot per hypothesis (a square if rejected) and the axis; `line_at` is the threshold."""
    drawn = [numbers(way) for way in members]
    if not any(drawn):
        return [None] * len(members), None
    ends = [value for values in drawn for value in values] + ([] if line_at is None else [line_at])
    scale = spanning(ends, 6, 94, pad=0.1)
    styles = [("square", "fail") if way.rejected else ("circle", "candidate") for way in members]
    plots = [_interval_plot(scale, way, 0.0, line_at, *style) if numbers(way) else None for way, style in zip(members, styles, strict=True)]
    return plots, axis(scale, signs)


def _interval_plot(scale: Scale, result: GateResult | Hypothesis, zero: float, line_at: float | None, shape: str, tone: str) -> Markup:
    """Return a result with its interval as distances from `zero`, and the threshold at `line_at`."""
    low, high, estimate = (None if value is None else value - zero for value in (result.low, result.high, result.estimate))
    at = None if line_at is None else scale.percent(line_at)
    threshold = line(at, "0", at, "100%", "threshold") if at else ""
    return strip(grid(scale), threshold, whisker(scale, low, high, tone), mark(shape, scale.percent(estimate or 0.0), MIDDLE, tone))


def is_difference(gate: GateResult) -> bool:
    """Return whether a gate's numbers are differences, which are shown with their sign."""
    known = [value for value in (gate.estimate, gate.low, gate.high) if value is not None]
    return min([*known, 1.0]) < 0 or (gate.threshold is not None and gate.threshold <= 0)


def estimate_plot(scale: Scale, estimate: Estimate | None, shape: str, tone: str) -> Markup:
    """Return an estimate with its interval; only the grid without an estimate, an arrow if it is off the scale."""
    if estimate is None:
        return strip(grid(scale))
    if estimate.value < scale.low:
        return strip(grid(scale), mark("left", "1.5%", MIDDLE, tone))
    inner = whisker(scale, max(estimate.low, scale.low), estimate.high, tone), mark(shape, scale.percent(estimate.value), MIDDLE, tone)
    return strip(grid(scale), *inner)


def class_plot(score: ClassScore, scale: Scale, overall: float | None) -> Markup:
    """Return F1 as a filled mark between precision (triangle) and recall (square)."""
    tone = "candidate" if score.eligible else "faint"
    left, right = sorted((score.precision, score.recall))
    return strip(
        grid(scale),
        line(scale.percent(overall), "0", scale.percent(overall), "100%", "reference") if overall is not None else "",
        whisker(scale, left, right, tone, caps=False),
        mark("triangle", scale.percent(score.precision), MIDDLE, f"{tone} hollow"),
        mark("square", scale.percent(score.recall), MIDDLE, f"{tone} hollow"),
        mark("circle", scale.percent(score.f1), MIDDLE, tone),
    )


def bar(value: float, largest: float, tone: str = "candidate") -> Markup:
    """Return a bar with a length proportional to `value`."""
    share = 0.0 if largest <= 0 else min(max(value / largest, 0.0), 1.0)
    width = max(share * 100, 0.4 if value > 0 else 0.0)
    box = {"x": "0", "y": "50%", "width": f"{width:.4g}%", "height": "10", "rx": "1.5", "transform": "translate(0 -5)"}
    return strip(element("rect", class_=f"area {tone}", **box))


def score_scale(values: Iterable[float]) -> Scale:
    """Return a scale for scores between the tenths that enclose all values."""
    low, high = extent(values)
    start = math.floor(low * 10 - 0.2) / 10 if low > 0.12 else min(low, 0.0)
    return Scale(start, min(math.ceil(high * 10 + 0.2) / 10, max(1.0, high)), 4, 97)


def axis(scale: Scale, sign: bool = False) -> Markup:
    """Return the numbers of a scale, for the last row of a table."""
    parts = []
    for value in scale.ticks():
        words = number(value) if not sign or value <= 0 else f"+{number(value)}"
        parts += [line(scale.percent(value), "0", scale.percent(value), 5, "rule"), text(scale.percent(value), 19, words)]
    return strip(*parts)


def grid(scale: Scale) -> Markup:
    """Return the vertical grid lines of a row."""
    return Markup("").join(line(scale.percent(value), "0", scale.percent(value), "100%", "grid") for value in scale.ticks())


def whisker(scale: Scale, low: float | None, high: float | None, tone: str, caps: bool = True) -> Markup:
    """Return an interval; an unknown end is drawn to the edge of the scale, without a cap."""
    left, right = (scale.percent(value if is_number(value) else end) for value, end in ((low, scale.low), (high, scale.high)))
    parts = [line(left, MIDDLE, right, MIDDLE, f"whisker {tone}")]
    if caps:
        parts += [mark("tick", x, MIDDLE, f"{tone} cap") for x, value in ((left, low), (right, high)) if is_number(value)]
    return Markup("").join(parts)


def legend(shape: str, tone: str) -> Markup:
    """Return a mark for a legend."""
    return element("svg", mark(shape, "7", "7", tone), width=14, height=14, aria_hidden="true", class_="key")


def icon(outcome: Outcome | str) -> Markup:
    """Return an icon: tick or dash in a circle, cross in a square, wave in a diamond, warning in a triangle."""
    shapes = {
        "PASS": ("M12 2A10 10 0 1 1 12 22 10 10 0 1 1 12 2z", "M7.5 12.5 10.8 15.8 16.8 8.8"),
        "FAIL": ("M3 3H21V21H3z", "M8 8 16 16M16 8 8 16"),
        "INCONCLUSIVE": ("M12 1 23 12 12 23 1 12z", "M7 13.4Q9.3 9.4 12 12T17 10.6"),
        "NOT APPLICABLE": ("M12 2A10 10 0 1 1 12 22 10 10 0 1 1 12 2z", "M7.5 12H16.5"),
        "WARNING": ("M12 2 23.5 22H.5z", "M12 9.5V14M12 17.6V18"),
    }
    body, sign = shapes[str(outcome)]
    inner = element("path", d=body, class_="body"), element("path", d=sign, class_="sign")
    return element("svg", *inner, viewBox="0 0 24 24", width=24, height=24, aria_hidden="true", class_=f"icon {tone(outcome)}")


def tone(outcome: Outcome | str) -> str:
    """Return the CSS class of an outcome."""
    return str(outcome).lower().replace(" ", "-")


def amount(value: float, signs: bool = False) -> str:
    """Return a score with three decimals, other numbers with three significant digits."""
    if (signs and abs(value) <= 1) or value == 0 or 0.0005 <= abs(value) <= 1:
        return signed(value) if signs else metric(value)
    return f"+{number(value)}" if signs and value > 0 else number(value)


def interval(low: float | None, high: float | None, signs: bool = False) -> str:
    """Format an interval; differences are signed and joined by "to", because a dash would look like a minus."""
    ends = [amount(value, signs) if is_number(value) else "…" for value in (low, high)]
    return f"{ends[0]} to {ends[1]}" if signs else f"{ends[0]}–{ends[1]}"


def between(estimate: Estimate, signs: bool = False) -> str:
    """Format the interval of an estimate."""
    return interval(estimate.low, estimate.high, signs)
