"""Error rates of the gates on simulated test sets, with the code that decides in production.

`python -m bench gates [--quick] [--json FILE]` prints a table and writes its rows. Closed forms have 20,000 repetitions, panels (all
gates together) 2,000. Targets, within three Monte-Carlo standard errors: a model two points worse is promoted in at most 5 % at a margin
of two points; an equal one is rejected in at most 5 %; a 95 % interval covers the truth in 93 to 97 %. The exit code is 1 if a target is
missed.
"""

import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bench._output import parser
from bench._tables import tables
from bench._worlds import Naming, World
from components.artifacts.verdict import Outcome
from components.gates import GatesParams, available
from components.gates.support import LEVEL, Evidence, ReferenceModel
from components.judge import decide
from components.judge.multiple_testing import combine
from components.judge.selftest import TESTED
from components.stats.proportions import tango
from components.stats.significance import mcnemar

MARGIN = 0.02
AGREEMENTS = (0.85, 0.90, 0.95)
BUDGET = 5
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Extent of the simulation: `panels` are (classes, grouping, agreement), each at all sizes and differences."""

    closed: int
    panel: int
    power: int  # repetitions of panels on better models, which have no target
    sizes: tuple[int, ...]
    differences: tuple[float, ...]
    panels: tuple[tuple[int, str, float], ...]
    chains: int
    parts: int  # all rows are written after each part


PANELS = ((2, "none", 0.95), (6, "none", 0.90), (22, "none", 0.85), (2, "rows", 0.90), (6, "rows", 0.85), (22, "labels", 0.90))
FULL = Plan(20_000, 2_000, 100, (200, 1000, 5000), (-0.02, 0.0, 0.01, 0.02), PANELS, chains=200, parts=20)
QUICK = Plan(20_000, 200, 50, (200, 1000), (-0.02, 0.0), ((6, "none", 0.90), (22, "labels", 0.90)), chains=20, parts=1)


def settings(budget: int = 1) -> GatesParams:
    """Return the default gates with a floor well below the models, without the gates that need a running model."""
    off = {name: {"role": "off"} for name in available() if name not in TESTED}
    return GatesParams.parse({"floor": {"at_least": 0.5}, "test_budget": {"at_most": budget}, **off}, "gates")


def closed_forms(plan: Plan) -> Iterator[Row]:
    """Yield rows of the champion gate on accuracy without groups: Tango's interval and McNemar's test need only two counts."""
    for n, agreement, gap, budget in itertools.product(plan.sizes, AGREEMENTS, plan.differences, (1, BUDGET)):
        rng, disagree, level = np.random.default_rng([n, round(agreement * 100), budget]), 1 - agreement, LEVEL / budget
        gained, lost = (disagree + gap) / 2, (disagree - gap) / 2
        draws = rng.multinomial(n, [gained, lost, 1 - disagree], plan.closed)[:, :2]
        pairs, times = np.unique(draws, axis=0, return_counts=True)
        low, _ = tango(pairs[:, 0], pairs[:, 1], n, float(stats.norm.ppf(1 - level)))
        ends = tango(pairs[:, 0], pairs[:, 1], n, float(stats.norm.ppf(0.975)))
        passed, covered = low > -MARGIN, (ends[0] <= gap) & (gap <= ends[1])
        failed = np.array([mcnemar(int(b), int(c)) for b, c in pairs]) <= LEVEL
        shares = {"promoted": passed, "rejected": failed & ~passed, "inconclusive": ~failed & ~passed, "coverage": covered}
        yield {
            **row("champion", "accuracy", World(n, 2, "none", agreement, gap), plan.closed, budget),
            "classes": None,
            **{name: float(np.average(share, weights=times)) for name, share in shares.items()},
        }


def series(plan: Plan) -> list["Series"]:
    """Return the series of panels of a plan, small test sets first; better models have fewer repetitions."""
    worlds = [World(n, *panel, gap) for n, panel, gap in itertools.product(plan.sizes, plan.panels, plan.differences)]
    series = [Series(world, plan.panel if world.difference <= 0 else plan.power) for world in worlds]
    budgeted = [World(n, 6, "none", 0.90, gap) for n, gap in itertools.product(plan.sizes, plan.differences)] if plan is FULL else []
    return series + [Series(world, plan.panel if world.difference <= 0 else plan.power, BUDGET) for world in budgeted]


@dataclass
class Tally:
    """Outcomes by gate, and by metric whether the interval of the difference to the champion covered the truth."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    metric: dict[str, str | None] = field(default_factory=dict)
    covered: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))


OUTCOMES = {"promoted": Outcome.PASS, "rejected": Outcome.FAIL, "inconclusive": Outcome.INCONCLUSIVE}


class Series:
    """Repeatedly drawn and judged test sets of one world; `rows` can be read at any time."""

    def __init__(self, world: World, repetitions: int, budget: int = 1) -> None:
        self.world, self.repetitions, self.budget, self.done, self.tally = world, repetitions, budget, 0, Tally()
        self.rng = np.random.default_rng(
            [world.rows, world.classes, round(world.agreement * 100), round((world.difference + 1) * 1000), budget]
        )
        self.names, self.gates = Naming(world, self.rng), settings(budget)

    def advance(self, share: float) -> None:
        """Run this share of the repetitions."""
        for _ in range(round(self.repetitions * share)):
            self.judge()

    def judge(self) -> None:
        """Draw a test set, judge it and count the outcomes."""
        world, names, tally = self.world, self.names, self.tally
        draw = world.draw(self.rng)
        candidate, champion, baseline = (names.predictions(draw, answers) for answers in (draw.candidate, draw.champion, draw.baseline))
        fields = {"level": self.gates.test_budget.level, "rows": names.rows(draw), "crosscheck": False}
        evidence = Evidence(candidate, {"tfidf": baseline, "majority": baseline}, ReferenceModel("1", champion), 10, **fields)
        results = decide(evidence, self.gates)
        tally.outcomes["panel"][combine(results)[0]] += 1
        for result in results:
            tally.outcomes[result.gate][result.outcome] += 1
            tally.metric[result.gate] = result.metric or tally.metric.get(result.gate)
        for metric in ("accuracy", "macro_f1"):
            estimate = evidence.metric_set.difference(metric, candidate, champion)
            if estimate.doubt is None:
                truth = world.difference if metric == "accuracy" else world.macro_f1_difference(draw, evidence.truth.eligible)
                tally.covered[metric].append(estimate.low <= truth <= estimate.high)
        self.done += 1

    def rows(self) -> Iterator[Row]:
        """Yield one row per gate, the panel's first, and one for the interval of macro-F1."""
        tally = self.tally
        for gate in ("panel", *sorted(set(tally.outcomes) - {"panel"})):
            shares = {name: tally.outcomes[gate][outcome] / self.done for name, outcome in OUTCOMES.items()}
            covered = tally.covered["accuracy"] if gate == "champion" else []
            coverage = float(np.mean(covered)) if covered else None
            yield {**row(gate, tally.metric.get(gate), self.world, self.done, self.budget), **shares, "coverage": coverage}
        if covered := tally.covered["macro_f1"]:
            yield {**row("interval", "macro_f1", self.world, len(covered), self.budget), "coverage": float(np.mean(covered))}


def row(gate: str, metric: str | None, world: World, repetitions: int, budget: int = 1) -> Row:
    """Return a row without results; `formula` is the share of PASS by the normal approximation."""
    disagree = 1 - world.agreement
    error = np.sqrt((disagree - world.difference**2) / world.rows)
    formula = stats.norm.cdf((MARGIN + world.difference) / error - stats.norm.ppf(1 - LEVEL / budget))
    return {
        "gate": gate,
        "metric": metric,
        "n": world.rows,
        "true_difference": world.difference,
        **dict.fromkeys(("promoted", "rejected", "inconclusive", "coverage")),
        "classes": world.classes,
        "groups": world.grouping,
        "agreement": world.agreement,
        "level": LEVEL / budget,
        "repetitions": repetitions,
        "formula": round(float(formula), 4) if gate in ("champion", "panel") and world.grouping == "none" else None,
    }


def creep(plan: Plan, rows: int = 2000, retrainings: int = 100, worse: float = 0.005, disagree: float = 0.12) -> Iterator[Row]:
    """Yield the accuracy after many retrainings, each candidate half a point worse, without and with the gate best_champion.

    All candidates are judged on one test set at 5 %. A new champion becomes the best champion if its estimate is at least as good.
    """
    for with_best in (False, True):
        rng, chains = np.random.default_rng(7), plan.chains
        truth, promoted = np.full(chains, 0.85), 0
        champion = rng.random((chains, rows)) < 0.85
        best = champion.copy()
        for _ in range(retrainings):
            losing, gaining = (disagree + worse) / 2 / truth, (disagree - worse) / 2 / (1 - truth)
            chance = rng.random((chains, rows))
            candidate = np.where(champion, chance >= losing[:, None], chance < gaining[:, None])
            wins = low_end(candidate, champion) > -MARGIN
            if with_best:
                wins &= low_end(candidate, best) > -MARGIN
            better = candidate.sum(axis=1) >= best.sum(axis=1)
            best[wins & better] = candidate[wins & better]
            champion[wins] = candidate[wins]
            truth, promoted = truth - worse * wins, promoted + int(wins.sum())
        world = World(rows, 2, "none", 0.90, -worse)
        yield {
            **row(f"{retrainings} retrainings {'with' if with_best else 'without'} best_champion", "accuracy", world, chains),
            **{"agreement": 1 - disagree, "formula": None, "promoted": promoted / chains / retrainings},
            "drift": float(np.mean(truth) - 0.85),
            "drift_5_percent": float(np.quantile(truth, 0.05) - 0.85),
        }


def low_end(candidate: np.ndarray, other: np.ndarray) -> np.ndarray:
    gained, lost = (candidate & ~other).sum(axis=1), (other & ~candidate).sum(axis=1)
    return tango(gained, lost, candidate.shape[1], float(stats.norm.ppf(1 - LEVEL)))[0]


def many_candidates(plan: Plan, rows: int = 2000, tries: int = 20, disagree: float = 0.12) -> Iterator[Row]:
    """Yield how often one of 20 candidates, each two points worse, is promoted on one test set: at 5 % each, and with the budget."""
    for budget in (None, BUDGET):
        rng, chains = np.random.default_rng(8), plan.chains * 20
        right = rng.binomial(rows, 0.85, chains)
        lost = rng.binomial(right[:, None], (disagree + 0.02) / 2 / 0.85, (chains, tries))
        gained = rng.binomial(rows - right[:, None], (disagree - 0.02) / 2 / 0.15, (chains, tries))
        low, _ = tango(gained, lost, rows, float(stats.norm.ppf(1 - LEVEL / (budget or 1))))
        judged = low[:, :budget]
        world = World(rows, 2, "none", 0.90, -0.02)
        name = f"{tries} candidates, {f'budget of {budget}' if budget else 'no budget'}"
        share = float(np.mean((judged > -MARGIN).any(axis=1)))
        yield {**row(name, "accuracy", world, chains, budget or 1), "agreement": 1 - disagree, "formula": None, "promoted": share}


def missed(rows: Sequence[Row], power: int = 0) -> list[str]:
    """Return a line for each target that is missed by more than three Monte-Carlo standard errors.

    Rows with at most `power` repetitions have no coverage target.
    """
    lines = []
    for row in rows:
        slack = 3 * np.sqrt(0.05 * 0.95 / row["repetitions"])
        where = " ".join(f"{key}={row[key]}" for key in ("gate", "metric", "n", "classes", "groups", "agreement", "level"))
        decides = row["gate"] in ("panel", "champion")
        budgeted = row["gate"].endswith(f"budget of {BUDGET}")
        if row["true_difference"] == -MARGIN and (decides or budgeted) and row["promoted"] > LEVEL + slack:
            lines.append(f"{where}: promotes a model two points worse in {row['promoted']:.1%}, expected at most 5 %")
        if row["true_difference"] == 0 and decides and row["rejected"] > LEVEL + slack:
            lines.append(f"{where}: rejects an equal model in {row['rejected']:.1%}, expected at most 5 %")
        if row["coverage"] is not None and row["repetitions"] > power and not 0.93 - slack <= row["coverage"] <= 0.97 + slack:
            lines.append(f"{where}: a 95 % interval covers {row['coverage']:.1%}, expected 93 to 97 %")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print and write; return 1 if a target is missed."""
    arguments = parser("gates", __doc__)
    arguments.add_argument("--quick", action="store_true", help="two sizes and fewer repetitions: under two minutes")
    arguments.add_argument("--table", type=Path, help="do not simulate: print the rows of this file as the tables of docs/gates.md")
    options = arguments.parse_args(argv)
    if options.table:
        print(tables(json.loads(options.table.read_text(encoding="utf-8"))))
        return 0
    plan, started = QUICK if options.quick else FULL, time.monotonic()
    todo = series(plan)
    print(
        f"about {expected_minutes(plan, todo):.0f} minutes on this hardware; gates: {', '.join(sorted(set(TESTED) & set(available())))}",
        flush=True,
    )
    simple = [*closed_forms(plan), *many_candidates(plan), *creep(plan)]
    print(f"closed forms, many candidates and retrainings after {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    rows = simple
    for part in range(plan.parts):
        for one_series in todo:
            one_series.advance(1 / plan.parts)
        rows = simple + [row for one_series in todo for row in one_series.rows()]
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(f"part {part + 1} of {plan.parts} after {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    print(*map(line, rows), sep="\n")
    faults = missed(rows, plan.power)
    print("\n".join(faults) or "every target is met", f"({len(rows)} rows in {(time.monotonic() - started) / 60:.1f} minutes)", sep="\n")
    return 1 if faults else 0


def expected_minutes(plan: Plan, todo: Sequence[Series]) -> float:
    """Estimate the duration from a few panels of each size."""
    seconds = 10.0
    for n in plan.sizes:
        sample, started = Series(World(n, 6, "rows", 0.90, 0.0), 5), time.perf_counter()
        sample.advance(1.0)
        seconds += (time.perf_counter() - started) / 5 * sum(series.repetitions for series in todo if series.world.rows == n)
    return seconds / 60


def line(row: Row) -> str:
    shares = [f"{row[name]:.3f}" if row[name] is not None else "  -  " for name in (*OUTCOMES, "coverage", "formula")]
    drift = f" drift {row['drift']:+.3f} (5 % below {row['drift_5_percent']:+.3f})" if "drift" in row else ""
    world = f"n={row['n']:<5}d={row['true_difference']:+.3f} classes={row['classes'] or '-'!s:<3}groups={row['groups']:<7}"
    return f"{row['gate']:<34}{world}agree={row['agreement']:.2f} level={row['level']:.3f}  {' '.join(shares)}{drift}"
