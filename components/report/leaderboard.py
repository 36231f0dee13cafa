"""The leaderboard of an automatic search on page and card: rows with plots, the best score over time, and sentences."""

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from components.artifacts.tuning_result import Candidate, Leaderboard
from components.report import forests, wording
from components.report.svg import Plane, Point, Scale, drawing, mark, spanning, strip

STATES = {
    "complete": ("circle", "candidate"),
    "stopped": ("triangle", "baseline hollow"),
    "failed": ("cross", "fail"),
    "skipped": ("cross", "faint"),
}
WINNER = ("diamond", "champion")
WORDS = {"complete": "complete", "stopped": "stopped early", "failed": "failed", "skipped": "skipped"}
SHOWN = 10  # candidates; the rest is folded
SHORT_BUDGET = 2.0  # minutes below which the axis shows seconds


def leaderboard(board: Leaderboard | None) -> dict[str, Any]:
    """Return the template variables of the leaderboard; `board` is None if no candidates were compared."""
    if board is None or not board.candidates:
        return {"board": None}
    scored = [value for entry in board.candidates for value in (entry.score, entry.low, entry.high) if wording.is_number(value)]
    scale = spanning(scored, 6, 94, pad=0.08)
    rows = [(entry, _plot(scale, entry)) for entry in board.candidates]
    return {
        "board": board,
        "board_rows": [row for row in rows if row[0].state != "skipped"],
        "skipped": [entry for entry in board.candidates if entry.state == "skipped"],
        "board_shown": SHOWN,
        "board_axis": forests.axis(scale) if scored else None,
        "board_plot": best_over_time(board) if scored else None,
        "board_counts": counts(board),
        "finals": any(entry.holdouts > 1 for entry in board.candidates),
        "optimism": optimism(board),
    }


def counts(board: Leaderboard) -> str:
    """Return the number of candidates by state, e.g. `5 complete, 1 failed`."""
    states = [entry.state for entry in board.candidates]
    return ", ".join(f"{states.count(state)} {WORDS[state]}" for state in STATES if state in states)


def optimism(board: Leaderboard) -> str:
    """Return the sentence about the winner's optimism; empty if it is unknown."""
    if board.optimism is None:
        return ""
    value, low, high = board.optimism
    estimate = f"{wording.signed(value)} (95 % interval {forests.interval(low, high, signs=True)})"
    return f"Optimism of the winner's validation score: {estimate}; expect that much less on new rows."


def summary(board: Leaderboard) -> str:
    """Return one sentence about the search for the model card; empty if no candidates were compared."""
    if not (winner := board.winner):
        return ""
    tried = wording.many(sum(entry.state != "skipped" for entry in board.candidates), "candidate")
    score = f" with {wording.named(board.metric)} {wording.metric(winner.score)}" if winner.score is not None else ""
    interval = f" [{forests.interval(winner.low, winner.high)}]" if winner.low is not None else ""
    return f"Chosen from {tried} in {wording.duration(board.seconds)}: {winner.name}{score}{interval} on the validation split."


def best_over_time(board: Leaderboard) -> Markup:
    """Return a dot per candidate at the time when it ended, and the best score of complete candidates so far as a stepped line."""
    unit, name = (1.0, "seconds") if board.minutes < SHORT_BUDGET else (60.0, "minutes")
    end = max([board.minutes * 60, board.seconds, *(entry.ended_at for entry in board.candidates)])
    scores = [entry.score for entry in board.candidates if wording.is_number(entry.score)]
    plane = Plane.over(Scale(0, end / unit), spanning(scores, 0, 0), 250, gutter=12)
    points = [(at / unit, best) for at, best in _best_so_far(board)]
    dots = [
        plane.dot(entry.ended_at / unit, plane.y.low if entry.score is None else entry.score, *style(entry), title=_about(entry))
        for entry in board.candidates
        if entry.state != "skipped"
    ]
    metric = wording.named(board.metric)
    label = f"Best {metric} on the validation split over time"
    return drawing(plane.height, label, plane.axes(name, metric), plane.curve(points, "best"), *dots)


def _best_so_far(board: Leaderboard) -> Iterator[Point]:
    """Yield the corners of the stepped line, in seconds."""
    best = None
    complete = [(entry.ended_at, entry.score) for entry in board.candidates if entry.state == "complete" and entry.score is not None]
    for at, score in sorted(complete):
        if best is None or score > best:
            if best is not None:
                yield at, best
            yield at, score
            best = score
    if best is not None:
        yield board.seconds, best


def style(entry: Candidate) -> tuple[str, str]:
    """Return shape and tone of a candidate's mark."""
    return WINNER if entry.winner else STATES[entry.state]


def _plot(scale: Scale, entry: Candidate) -> Markup:
    if not wording.is_number(entry.score):
        return strip(forests.grid(scale))
    shape, tone = style(entry)
    interval = forests.whisker(scale, entry.low, entry.high, tone) if entry.low is not None else Markup("")
    return strip(forests.grid(scale), interval, mark(shape, scale.percent(entry.score), forests.MIDDLE, tone))


def _about(entry: Candidate) -> str:
    return wording.cut(f"{entry.name}, {WORDS[entry.state]}, {wording.metric(entry.score)}, {wording.duration(entry.seconds)}", 200)
