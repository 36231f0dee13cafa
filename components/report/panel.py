"""Layout of the gates on the page: by role, gates that prevent the promotion first, each with its evidence. Pure functions.

The layout does not depend on gate names: hypotheses, notes and tables are laid out by their shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role, Verdict
from components.report import forests, wording

SHOWN_ROWS = 10  # rows of a table, or hypotheses of a gate; the rest is folded
MOST_ROWS = 300  # further rows are in verdict.json
MOST_OBSTACLES = 3
SHORT = 24  # characters of a cell without line breaks

Cell = str | float | int | bool | None

_ROLES = {
    Role.REQUIRED: ("Required gates", "promotion needs a PASS from each of them"),
    Role.BLOCKING: ("Blocking gates", "a FAIL rejects the candidate; INCONCLUSIVE does not block it"),
    Role.INFORMATIONAL: ("Informational gates", "reported only, without influence on the verdict"),
}
_SEVERITY = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.NOT_APPLICABLE)
_VERBS = {
    Outcome.PASS: "passed",
    Outcome.INCONCLUSIVE: "inconclusive",
    Outcome.FAIL: "failed",
    Outcome.NOT_APPLICABLE: "not applicable",
}


@dataclass(frozen=True)
class Family:
    """Hypotheses with a common scale and their plots, the worst first; `folded` are those beyond the first few."""

    ways: tuple[tuple[Hypothesis, Markup | None], ...]
    folded: tuple[tuple[Hypothesis, Markup | None], ...]
    axis: Markup | None
    signs: bool
    corrected: bool


@dataclass(frozen=True)
class Grid:
    """A gate's table as text: for each column its name and CSS class (numbers, short texts, texts), and rows of equal length."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    folded: tuple[tuple[str, ...], ...]
    left_out: int


@dataclass(frozen=True)
class GateView:
    """One gate: its row of the forest plot, and the evidence below it. `anchor` is its HTML id.

    `signs`: the numbers are differences, that is one of them is negative or the threshold is not positive.
    """

    gate: GateResult
    plot: Markup | None
    own_scale: bool
    signs: bool
    anchor: str
    families: tuple[Family, ...]
    grids: tuple[Grid, ...]

    @property
    def obstacle(self) -> bool:
        """Whether it prevents the promotion."""
        failed = self.gate.outcome is Outcome.FAIL and self.gate.role in (Role.REQUIRED, Role.BLOCKING)
        return failed or (self.gate.outcome is Outcome.INCONCLUSIVE and self.gate.role is Role.REQUIRED)

    @property
    def contents(self) -> str:
        """Number of hypotheses, notes and tables."""
        gate = self.gate
        parts = [(len(gate.hypotheses), "hypothesis", "hypotheses"), (len(gate.notes), "note", ""), (len(gate.tables), "table", "")]
        return ", ".join(wording.many(number, singular, plural) for number, singular, plural in parts if number)


def in_order(gates: Sequence[GateResult]) -> list[GateResult]:
    """Return the gates by role; within a role failed ones first, then inconclusive, passed, and not applicable."""
    roles = list(_ROLES)
    enabled = (gate for gate in gates if gate.role in _ROLES)
    return sorted(enabled, key=lambda gate: (roles.index(gate.role), _SEVERITY.index(gate.outcome)))


@dataclass(frozen=True)
class GateGroup:
    """The gates of one role: obstacles without a plot, gates on the common axis, and the rest."""

    title: str
    meaning: str
    first: tuple[GateView, ...]
    drawn: tuple[GateView, ...]
    axis: Markup | None
    rest: tuple[GateView, ...]

    @property
    def views(self) -> tuple[GateView, ...]:
        """All gates, in display order."""
        return (*self.first, *self.drawn, *self.rest)


def panel(verdict: Verdict) -> dict[str, Any]:
    """Return the template variables of the sections on verdict and gates."""
    gates = in_order(verdict.gates)
    groups = [_group(role, list(members), gates) for role, members in groupby(gates, key=lambda gate: gate.role)]
    views = [view for group in groups for view in group.views]
    family = [way for gate in gates if gate.role is not Role.INFORMATIONAL for way in gate.hypotheses]
    return {
        "gate_groups": groups,
        "tally": tally(gates),
        "obstacles": [view for view in views if view.obstacle and view.gate.change][:MOST_OBSTACLES],
        "hypotheses": (len(family), sum(way.rejected for way in family)),  # those that may reject, and rejected ones
    }


def _group(role: Role, members: Sequence[GateResult], gates: Sequence[GateResult]) -> GateGroup:
    plots, axis = forests.gate_plots(members)
    views = [
        GateView(gate, *plot, forests.is_difference(gate), f"gate-{gates.index(gate) + 1}", families(gate), tuple(map(grid, gate.tables)))
        for gate, plot in zip(members, plots, strict=True)
    ]
    unplotted = [view for view in views if view.plot is None]
    return GateGroup(
        *_ROLES[role],
        first=tuple(view for view in unplotted if view.obstacle),
        drawn=tuple(view for view in views if view.plot is not None and not view.own_scale),
        axis=axis,
        rest=(*(view for view in views if view.own_scale), *(view for view in unplotted if not view.obstacle)),
    )


def tally(gates: Sequence[GateResult]) -> str:
    """Return the number of gates by role and outcome, e.g. `2 gates: 2 required (1 passed, 1 failed)`; "" without gates."""
    applicable = sum(gate.applicable for gate in gates)
    head = f"{applicable} of {len(gates)} gates had something to test" if applicable < len(gates) else wording.many(len(gates), "gate")
    parts = []
    for role in _ROLES:
        shown = [gate.outcome for gate in gates if gate.role is role]
        outcomes = ", ".join(f"{number} {verb}" for outcome, verb in _VERBS.items() if (number := shown.count(outcome)))
        parts += [f"{len(shown)} {role} ({outcomes})"] if shown else []
    return f"{head}: {'; '.join(parts)}" if parts else ""


def worst_first(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Return the hypotheses, rejected ones first, then by p-value."""
    return sorted(hypotheses, key=lambda way: (not way.rejected, way.p, way.estimate if way.estimate is not None else 0.0))


def families(gate: GateResult) -> tuple[Family, ...]:
    """Return a gate's hypotheses, worst first: all differences share a scale, and so do the values of each other metric."""
    metrics = {way.metric for way in gate.hypotheses}
    negative = {way.metric for way in gate.hypotheses if min(forests.numbers(way), default=0.0) < 0}
    differences = metrics if gate.metric in metrics and forests.is_difference(gate) else negative
    large = {way.metric for way in gate.hypotheses if any(abs(value) > 1 for value in forests.numbers(way))}
    by_scale: dict[tuple[str, str | None], list[Hypothesis]] = {}
    for way in worst_first(gate.hypotheses):
        common = way.metric in differences and way.metric not in large
        key = ("text", None) if not forests.numbers(way) else ("difference", None) if common else ("level", way.metric)
        by_scale.setdefault(key, []).append(way)
    return tuple(_family(gate, members) for members in by_scale.values())


def _family(gate: GateResult, members: Sequence[Hypothesis]) -> Family:
    values = [value for way in members for value in forests.numbers(way)]
    line = gate.threshold if gate.metric in {way.metric for way in members} else None
    signs = min(values, default=0.0) < 0 or (line is not None and forests.is_difference(gate))
    plots, axis = forests.hypothesis_plots(members, 0.0 if signs else line, signs)
    ways = tuple(zip(members, plots, strict=True))
    corrected = all(way.adjusted is not None for way in members)
    return Family(ways[:SHOWN_ROWS], ways[SHOWN_ROWS:], axis, signs, corrected)


def grid(table: ReportTable) -> Grid:
    """Return a table with rows of equal length and a CSS class per column."""
    kept = table.rows[:MOST_ROWS]
    width = max([len(table.columns), *map(len, kept)])
    names = [*table.columns, *[""] * (width - len(table.columns))]
    columns = [[row[at] if at < len(row) else None for row in kept] for at in range(width)]
    rows = tuple(zip(*map(_format, columns), strict=True)) if width else ()
    heads = tuple(zip(names, map(_css_class, columns), strict=True))
    return Grid(table.title, heads, rows[:SHOWN_ROWS], rows[SHOWN_ROWS:], len(table.rows) - len(kept))


def _css_class(cells: Sequence[Cell]) -> str:
    if _numbers(cells):
        return "number"
    return "name short" if all(len(str(cell)) <= SHORT for cell in cells) else "name"


def _numbers(cells: Sequence[Cell]) -> list[float]:
    """Return the numbers of a column; empty if it contains anything else."""
    known = [cell for cell in cells if cell is not None]
    numbers = [cell for cell in known if isinstance(cell, int | float) and not isinstance(cell, bool)]
    return numbers if len(numbers) == len(known) else []


def _format(cells: Sequence[Cell]) -> list[str]:
    """Format a column; scores and shares have the same decimals, so that they line up."""
    numbers = _numbers(cells)
    scores = any(isinstance(cell, float) for cell in numbers) and all(cell == 0 or 0.0005 <= abs(cell) <= 1 for cell in numbers)
    return [wording.metric(cell) if scores and isinstance(cell, int | float) else wording.cell(cell) for cell in cells]
