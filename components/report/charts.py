"""Figures: text lengths, search, training, calibration."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup

from components.artifacts.metrics import CalibrationBin
from components.artifacts.profile import TokenLengths
from components.artifacts.tuning_result import Setting, Trial
from components.report.svg import Plane, Point, Scale, drawing, element, line, mark, path, spanning, text
from components.report.wording import count, cut, duration, named, number, setting

_STATES = {"COMPLETE": ("circle", "candidate"), "PRUNED": ("triangle", "baseline hollow"), "FAIL": ("cross", "fail")}
MOST_POINTS = 400
MOST_TRIALS = 300
FEW = 20  # bins with fewer rows have a hollow mark


def token_lengths(tokens: TokenLengths) -> Markup:
    """Return the histogram of text lengths, with the maximum length."""
    starts = [start for start, _ in tokens.histogram]
    width = min((b - a for a, b in pairwise(starts)), default=1)
    top = max(rows for _, rows in tokens.histogram)
    end = max(starts[-1] + width, tokens.max_length + 1)
    plane = Plane.over(Scale(0, end), Scale(0, top * 1.05), 230, gutter=10)
    bars = []
    for start, rows in tokens.histogram:
        left, right, up = plane.x(start), plane.x(start + width), plane.y(rows)
        tone = "cut" if start > tokens.max_length else "candidate"
        bars.append(_box(left, up, max(right - left - 0.12, 0.1), plane.y(0) - up, tone))
    limit = plane.x.percent(min(tokens.max_length, end))
    words = text(limit, 18, f"cut at {tokens.max_length} tokens ▸", "name", "end")
    edge = line(limit, 24, limit, plane.y(0), "threshold")
    label = f"Histogram of text lengths in tokens, {count(tokens.cut_rows)} texts are longer than {tokens.max_length}"
    return drawing(plane.height, label, plane.axes("tokens", "texts"), *bars, edge, words)


def trial_history(trials: Sequence[Trial], metric: str) -> Markup:
    """Return the value of each trial and the best so far."""
    scored = [(trial, value) for trial in trials if (value := _reached(trial)) is not None]
    plane = Plane.over(_numbers(trials), spanning([value for _, value in scored], 0, 0), 250, gutter=12)
    best: list[Point] = []
    highest = -math.inf
    for trial, value in scored:
        if trial.state == "COMPLETE" and value > highest:
            best += [(trial.number, highest)] if best else []
            best.append((trial.number, value))
            highest = value
    if best:
        best.append((trials[-1].number, highest))
    placed = [(trial, plane.y.low if (value := _reached(trial)) is None else value) for trial in trials]
    marks = [plane.dot(t.number, v, *_STATES.get(t.state, _STATES["FAIL"]), title=_about(t)) for t, v in placed]
    axes = plane.axes("trial", named(metric))
    return drawing(plane.height, f"{named(metric)} of each trial", axes, plane.curve(best, "best"), *marks)


def _reached(trial: Trial) -> float | None:
    """Return the value of a trial; of one that was stopped early, the last value that it reported."""
    if trial.value is not None or trial.state != "PRUNED" or not trial.values:
        return trial.value
    return trial.values[max(trial.values)]


def trial_costs(trials: Sequence[Trial]) -> Markup:
    """Return the duration of each trial in seconds."""
    top = max((trial.seconds or 0.0 for trial in trials), default=0.0) or 1.0
    plane = Plane.over(_numbers(trials), Scale(0, top * 1.08), 250, gutter=12)
    width = max((plane.x.end - plane.x.start) / max(trials[-1].number - trials[0].number + 1, 3) * 0.6, 0.2)
    bars = []
    for trial in trials:
        up = plane.y(trial.seconds or 0.0)
        tone = "candidate" if trial.state == "COMPLETE" else "faint"
        bars.append(_box(plane.x(trial.number) - width / 2, up, width, plane.y(0) - up, tone, _about(trial)))
    return drawing(plane.height, "Duration of each trial in seconds", plane.axes("trial", "seconds"), *bars)


def parallel_coordinates(trials: Sequence[Trial], metric: str, names: Sequence[str]) -> Markup:
    """Return one line per trial from its settings to its value; the best is drawn last and strongest."""
    drawn = [t for t in trials if _reached(t) is not None]
    finished_last = sorted(drawn, key=lambda t: (t.state == "COMPLETE", _reached(t) or 0.0))
    scored = finished_last[-MOST_TRIALS:]
    columns: list[tuple[str, list[Setting]]] = [(name, [t.params.get(name) for t in scored]) for name in names]
    columns.append((named(metric), [_reached(t) for t in scored]))
    staggered = len(columns) > 2  # so that adjacent names do not overlap
    high, low = 58 if staggered else 44, 236
    xs = [4 + 92 * at / max(len(columns) - 1, 1) for at in range(len(columns))]
    heights, parts = [], []
    for at, (x, (name, values)) in enumerate(zip(xs, columns, strict=True)):
        anchor = "start" if at == 0 else "end" if at == len(columns) - 1 else "middle"
        ys, ticks = _axis(values, high, low)
        heights.append(ys)
        parts += [line(f"{x:.5g}%", high, f"{x:.5g}%", low, "rule")]
        parts += [text(f"{x:.5g}%", 12 + 15 * (staggered and at % 2), cut(name, 22), "name", anchor)]
        parts += [text(f"{x:.5g}%", y, words, "halo", anchor) for y, words in ticks]
    lines = [
        path([(x, ys[row]) for x, ys in zip(xs, heights, strict=True)], 262, _rank(trial, row, len(scored)))
        for row, trial in enumerate(scored)
    ]
    return drawing(262, "Settings and value of each trial", *lines, *parts)


def _rank(trial: Trial, row: int, rows: int) -> str:
    """Return the style of a trial's line: best, stopped early, or one of three shades by rank."""
    if row == rows - 1:
        return "winner"
    return "pruned" if trial.state == "PRUNED" else f"rank{min(3 * row // max(rows - 1, 1), 2)}"


def _axis(values: Sequence[object], high: float, low: float) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the height of each value on a vertical axis, and the axis labels; a missing setting is at the bottom."""
    known = [value for value in values if value is not None]
    numbers = [float(v) for v in known if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(known) and len(set(numbers)) > 1:
        least, most = min(numbers), max(numbers)
        scale = Scale(least, most, low, high, log=least > 0 and most / least >= 10)
        heights = [scale(float(str(v))) if v is not None else low for v in values]
        return heights, [(high - 8, number(most)), (low + 16, number(least))]
    choices = sorted({setting(v) if v is not None else "not set" for v in values})
    step = (low - high) / max(len(choices), 1)
    at = {choice: high + step * (i + 0.5) for i, choice in enumerate(choices)}
    heights = [at[setting(v) if v is not None else "not set"] for v in values]
    labelled = choices if len(choices) <= 6 else []
    return heights, [(at[choice] - 8, cut(choice, 16)) for choice in labelled]


def training_curves(history: Sequence[Mapping[str, float]], keys: Sequence[str], above: str, best_step: int | None = None) -> Markup:
    """Return one line per key over the steps; few points are marked, many are thinned."""
    series = {key: _thinned([(entry["step"], entry[key]) for entry in history if key in entry]) for key in keys}
    values = [value for points in series.values() for _, value in points]
    steps = Scale(0, max(step for points in series.values() for step, _ in points))
    ys = spanning(values, 0, 0)
    plane = Plane.over(steps, Scale(max(ys.low, 0.0) if min(values) >= 0 else ys.low, ys.high), 250, gutter=12)
    tones = [("candidate", "circle"), ("champion", "diamond"), ("baseline", "square")]
    parts: list[Markup] = []
    for (tone, shape), points in zip(tones, series.values(), strict=False):
        parts.append(plane.curve(points, tone))
        parts += [plane.dot(*point, shape, tone) for point in points] if len(points) <= 40 else []
    if best_step is not None and best_step <= steps.high:
        x = plane.x.percent(best_step)
        parts += [
            line(x, 24, x, plane.y(plane.y.low), "reference"),
            text(x, 18, "kept", "name", "end" if best_step > steps.high * 0.9 else "middle"),
        ]
    return drawing(plane.height, f"{above} over training steps", plane.axes("step", above), *parts)


def reliability(bins: Sequence[CalibrationBin]) -> Markup:
    """Return the share of correct answers against their probability, with the rows of each bin below."""
    plane = Plane.over(Scale(0, 1), Scale(0, 1), 380, gutter=13, foot=100)
    most = max(bin_.rows for bin_ in bins)
    floor = plane.height - 40
    parts: list[Markup] = [path([plane.at(0, 0), plane.at(1, 1)], plane.height, "diagonal")]
    for bin_ in bins:
        x = plane.x(bin_.confidence)
        tall = max(40 * bin_.rows / most, 0.8)
        gap = line(f"{x:.5g}%", plane.y(bin_.confidence), f"{x:.5g}%", plane.y(bin_.accuracy), "whisker candidate")
        about = f"{count(bin_.rows)} rows: probability {bin_.confidence:.3f}, correct {bin_.accuracy:.3f}"
        parts += [_box(x - 1.2, floor - tall, 2.4, tall, "faint", about), gap]
        parts.append(mark("circle", f"{x:.5g}%", plane.y(bin_.accuracy), "candidate" if bin_.rows >= FEW else "candidate hollow", about))
    left = f"{plane.x.start - 1.4:.5g}%"
    axes = [
        plane.axes("probability of the answer", "share correct", floor),
        line(f"{plane.x.start:.5g}%", floor, "98%", floor, "grid"),
        text(left, floor - 32, count(most), "label", "end"),
        text(left, floor - 16, "rows", "label", "end"),
    ]
    return drawing(plane.height, "Reliability: share of correct answers against their probability", *axes, *parts)


def _box(x: float, y: float, width: float, height: float, tone: str, title: str | None = None) -> Markup:
    inside = [element("title", title)] if title else []
    return element("rect", *inside, x=f"{x:.5g}%", y=y, width=f"{width:.4g}%", height=max(height, 0.0), class_=f"area {tone}")


def _numbers(trials: Sequence[Trial]) -> Scale:
    first, last = trials[0].number, trials[-1].number
    return Scale(first - 0.6, max(last, first + 1) + 0.6)


def _about(trial: Trial) -> str:
    settings = ", ".join(f"{name} {setting(value)}" for name, value in trial.params.items())
    return cut(f"trial {trial.number}, {trial.state.lower()}, {number(trial.value)}, {duration(trial.seconds)}: {settings}", 200)


def _thinned(points: list[Point]) -> list[Point]:
    if len(points) <= MOST_POINTS:
        return points
    step = math.ceil(len(points) / MOST_POINTS)
    return [*points[:-1:step], points[-1]]
