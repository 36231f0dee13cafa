"""The leaderboard of an automatic search on page and card: rows with plots, the best score over time, and sentences."""

from collections.abc import Iterator, Sequence
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
CARRIED = "carried over from an earlier search"
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
        "several_bases": len({entry.base for entry in board.candidates}) > 1,
        "carried": CARRIED,
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
    meaning = "not different from 0" if low <= 0 <= high else f"expect that much {'less' if value > 0 else 'more'} on new rows"
    return f"Optimism of the winner's validation score: {estimate}; {meaning}."


def summary(board: Leaderboard) -> str:
    """Return one sentence about the search for the model card; empty if no candidates were compared."""
    if not (winner := board.winner):
        return ""
    tried = wording.many(sum(entry.state != "skipped" for entry in board.candidates), "candidate")
    score = f" with {wording.named(board.metric)} {wording.metric(winner.score)}" if winner.score is not None else ""
    interval = f" [{forests.interval(winner.low, winner.high)}]" if winner.low is not None else ""
    return f"Chosen from {tried} in {wording.duration(board.seconds)}: {winner.name}{score}{interval} on the validation split."


def best_over_time(board: Leaderboard) -> Markup:
    """Return a dot per candidate at the time when it ended, and the best score of complete candidates so far as a stepped line.

    Scores are those on the validation split, since means over several hold-outs are not comparable with them.
    """
    unit, name = (1.0, "seconds") if board.minutes < SHORT_BUDGET else (60.0, "minutes")
    end = max([board.minutes * 60, board.seconds, *(entry.ended_at for entry in board.candidates)])
    scores = [score for entry in board.candidates if wording.is_number(score := first_score(entry))]
    plane = Plane.over(Scale(0, end / unit), spanning(scores, 0, 0), 250, gutter=12)
    steps = list(_best_so_far(board))
    points = [(at / unit, best) for at, best in steps]
    dots = [
        plane.dot(entry.ended_at / unit, plane.y.low if score is None else score, *style(entry), title=_about(entry))
        for entry in board.candidates
        if ((score := first_score(entry)) is not None or entry.state != "complete") and entry.state != "skipped" and not entry.carried
    ]
    metric = wording.named(board.metric)
    label = f"Best {metric} on the validation split over time{_course(steps)}"
    return drawing(plane.height, label, plane.axes(name, metric), plane.curve(points, "best"), *dots)


def first_score(entry: Candidate) -> float | None:
    """Return the score on the validation split; None if it is unknown."""
    return entry.first_score if entry.first_score is not None or entry.holdouts > 1 else entry.score


def _course(steps: Sequence[Point]) -> str:
    """Return the course of the stepped line in words; empty without one."""
    if not steps:
        return ""
    (start, first), (end, last) = steps[0], next(point for point in steps if point[1] == steps[-1][1])
    begin = f"{wording.metric(first)} at {wording.duration(start)}"
    return f": rises from {begin} to {wording.metric(last)} at {wording.duration(end)}" if last > first else f": {begin}, and no rise"


def _best_so_far(board: Leaderboard) -> Iterator[Point]:
    """Yield the corners of the stepped line, in seconds; scores of an earlier search are known from the beginning."""
    best = None
    complete = [
        (0.0 if entry.carried else entry.ended_at, score)
        for entry in board.candidates
        if entry.state == "complete" and (score := first_score(entry)) is not None
    ]
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
    score = wording.metric(first_score(entry))
    return wording.cut(f"{entry.number}: {entry.name}, {WORDS[entry.state]}, {score}, {wording.duration(entry.seconds)}", 200)
