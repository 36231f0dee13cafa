"""The gates as a reader meets them: in the order of their say, the ones that stand in the way first, each with what is behind it. Pure.

Knows no gate by its name: whatever a gate hands over as hypotheses, notes and tables is laid out by its shape alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from components.artifacts.table import ReportTable
from components.artifacts.verdict import NOT_ASKED, GateResult, Hypothesis, Outcome, Role, Verdict
from components.report import forests, wording

SHOWN_ROWS = 10  # of a table or of a gate's hypotheses; the rest folds
MOST_ROWS = 300  # the rest is in verdict.json
MOST_OBSTACLES = 3
SHORT = 24  # characters of a cell that is not broken into lines

Cell = str | float | int | bool | None

_SAY = {
    Role.REQUIRED: ("Deciding gates", "promotion needs a pass from each of them"),
    Role.BLOCKING: ("Vetoes", "one that fails rejects; one that cannot tell does not block"),
    Role.INFORMATIONAL: ("Shown", "for reading, without a say"),
}
_SEVERITY = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
_VERBS = {Outcome.PASS: "passed", Outcome.INCONCLUSIVE: "undecided", Outcome.FAIL: "failed", NOT_ASKED: "not asked"}
_ROLES = {Role.REQUIRED: ("decides", "decide"), Role.BLOCKING: ("may veto", "may veto"), Role.INFORMATIONAL: ("is shown", "are shown")}


@dataclass(frozen=True)
class Way:
    """One hypothesis with its plot, None where it has no numbers."""

    one: Hypothesis
    plot: Markup | None

    @property
    def p(self) -> float:
        """The p that counts: the corrected one, or the raw one of a gate without a say."""
        return self.one.p if self.one.adjusted is None else self.one.adjusted


@dataclass(frozen=True)
class Family:
    """Hypotheses that share a scale, the worst first; `folded` are those beyond the first few."""

    ways: tuple[Way, ...]
    folded: tuple[Way, ...]
    axis: Markup | None
    signs: bool
    corrected: bool


@dataclass(frozen=True)
class Grid:
    """A gate's table in words; for each column its name and its kind (numbers, short texts, texts). Every row has a cell a column."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    folded: tuple[tuple[str, ...], ...]
    left_out: int


@dataclass(frozen=True)
class View:
    """One gate: its row of the forest, and what opens below it. `place` is its address on the page."""

    gate: GateResult
    drawn: forests.GatePlot
    place: str
    families: tuple[Family, ...]
    grids: tuple[Grid, ...]

    @property
    def obstacle(self) -> bool:
        """Whether it stands in the way of a promotion."""
        return is_blocking(self.gate)

    @property
    def behind(self) -> str:
        """What there is to read, counted."""
        gate = self.gate
        parts = [(len(gate.hypotheses), "hypothesis", "hypotheses"), (len(gate.notes), "note", ""), (len(gate.tables), "table", "")]
        return ", ".join(wording.many(number, one, more) for number, one, more in parts if number)


def is_blocking(gate: GateResult) -> bool:
    """Say whether a gate keeps the candidate from being promoted."""
    failed = gate.outcome is Outcome.FAIL and gate.role in (Role.REQUIRED, Role.BLOCKING)
    return failed or (gate.outcome is Outcome.INCONCLUSIVE and gate.role is Role.REQUIRED)


def in_order(gates: Sequence[GateResult]) -> list[GateResult]:
    """Return deciding gates, vetoes and shown ones; among them what failed first, then what could not tell, at last what was not asked."""
    roles = list(_SAY)
    asked = (gate for gate in gates if gate.role in _SAY)
    return sorted(asked, key=lambda gate: (roles.index(gate.role), _SEVERITY.index(gate.outcome), not gate.asked))


@dataclass(frozen=True)
class Bench:
    """The gates of one say: those that stand in the way without a plot, those on one axis, and the other ones."""

    title: str
    meaning: str
    first: tuple[View, ...]
    drawn: tuple[View, ...]
    axis: Markup | None
    rest: tuple[View, ...]

    @property
    def views(self) -> tuple[View, ...]:
        """All of them, in the order in which they are shown."""
        return (*self.first, *self.drawn, *self.rest)


def panel(verdict: Verdict) -> dict[str, Any]:
    """Return what the sections on the verdict and its gates lay out."""
    gates = in_order(verdict.gates)
    benches = [_bench(role, list(members), gates) for role, members in groupby(gates, key=lambda gate: gate.role)]
    views = [view for bench in benches for view in bench.views]
    return {
        "benches": benches,
        "tally": tally(gates),
        "obstacles": [view for view in views if view.obstacle and view.gate.change][:MOST_OBSTACLES],
        "rejecting": _rejecting(gates),
    }


def _bench(role: Role, members: Sequence[GateResult], gates: Sequence[GateResult]) -> Bench:
    plots, axis = forests.gate_plots(members)
    views = [
        View(gate, plot, f"gate-{gates.index(gate) + 1}", families(gate), tuple(map(grid, gate.tables)))
        for gate, plot in zip(members, plots, strict=True)
    ]
    told = [view for view in views if view.drawn.plot is None]
    return Bench(
        *_SAY[role],
        first=tuple(view for view in told if view.obstacle),
        drawn=tuple(view for view in views if view.drawn.plot is not None and not view.drawn.own_scale),
        axis=axis,
        rest=(*(view for view in views if view.drawn.own_scale), *(view for view in told if not view.obstacle)),
    )


def tally(gates: Sequence[GateResult]) -> str:
    """Return how many gates have which say, and what they found."""
    parts = []
    for role, words in _ROLES.items():
        found = [gate.shown for gate in gates if gate.role is role]
        outcomes = ", ".join(f"{many} {verb}" for one, verb in _VERBS.items() if (many := found.count(one)))
        parts += [f"{len(found)} {words[len(found) > 1]} ({outcomes})"] if found else []
    return "; ".join(parts)


def _rejecting(gates: Sequence[GateResult]) -> tuple[int, int]:
    """Return how many hypotheses may reject, and how many of them do."""
    family = [one for gate in gates if gate.role is not Role.INFORMATIONAL for one in gate.hypotheses]
    return len(family), sum(one.rejected for one in family)


def worst_first(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Return what is rejected first, then by how much the data speak against it."""
    return sorted(hypotheses, key=lambda one: (not one.rejected, one.p, one.estimate if one.estimate is not None else 0.0))


def families(gate: GateResult) -> tuple[Family, ...]:
    """Return a gate's hypotheses, worst first: differences share a scale, and so do the numbers of any other metric."""
    metrics = {one.metric for one in gate.hypotheses}
    below = {one.metric for one in gate.hypotheses if min(forests.numbers(one), default=0.0) < 0}
    differences = metrics if gate.metric in metrics and forests.is_difference(gate) else below
    own = {one.metric for one in gate.hypotheses if any(abs(value) > 1 for value in forests.numbers(one))}
    together: dict[tuple[str, str | None], list[Hypothesis]] = {}
    for one in worst_first(gate.hypotheses):
        alike = one.metric in differences and one.metric not in own
        key = ("text", None) if not forests.numbers(one) else ("difference", None) if alike else ("level", one.metric)
        together.setdefault(key, []).append(one)
    return tuple(_family(gate, members) for members in together.values())


def _family(gate: GateResult, members: Sequence[Hypothesis]) -> Family:
    known = [value for one in members for value in forests.numbers(one)]
    line = gate.threshold if gate.metric in {one.metric for one in members} else None
    signs = min(known, default=0.0) < 0 or (line is not None and forests.is_difference(gate))
    plots, axis = forests.hypothesis_plots(members, 0.0 if signs else line, signs)
    ways = tuple(Way(one, plot) for one, plot in zip(members, plots, strict=True))
    corrected = all(one.adjusted is not None for one in members)
    return Family(ways[:SHOWN_ROWS], ways[SHOWN_ROWS:], axis, signs, corrected)


def grid(table: ReportTable) -> Grid:
    """Return a table with a cell for every column in every row, and numbers told from texts."""
    given = table.rows[:MOST_ROWS]
    width = max([len(table.columns), *map(len, given)])
    names = [*table.columns, *[""] * (width - len(table.columns))]
    columns = [[row[at] if at < len(row) else None for row in given] for at in range(width)]
    rows = tuple(zip(*map(_in_words, columns), strict=True)) if width else ()
    kinds = tuple(zip(names, map(_kind, columns), strict=True))
    return Grid(table.title, kinds, rows[:SHOWN_ROWS], rows[SHOWN_ROWS:], len(table.rows) - len(given))


def _kind(cells: Sequence[Cell]) -> str:
    if _numbers(cells):
        return "number"
    return "name short" if all(len(str(cell)) <= SHORT for cell in cells) else "name"


def _numbers(cells: Sequence[Cell]) -> list[float]:
    """Return the numbers of a column; nothing where it holds anything else."""
    known = [cell for cell in cells if cell is not None]
    numbers = [cell for cell in known if isinstance(cell, int | float) and not isinstance(cell, bool)]
    return numbers if len(numbers) == len(known) else []


def _in_words(cells: Sequence[Cell]) -> list[str]:
    """Return a column in words; scores and shares with the same decimals, so that they line up."""
    numbers = _numbers(cells)
    scores = any(isinstance(cell, float) for cell in numbers) and all(cell == 0 or 0.0005 <= abs(cell) <= 1 for cell in numbers)
    return [wording.metric(cell) if scores and isinstance(cell, int | float) else wording.cell(cell) for cell in cells]
