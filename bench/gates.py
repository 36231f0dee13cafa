"""Do the gates keep their promises? Whole panels on test sets whose truth is known, through the code that decides in earnest.

`python -m bench gates [--quick] [--json FILE]` prints a table and writes its rows. Closed forms are repeated 20,000 times, whole panels
2,000 times. Targets, each met when within three Monte-Carlo standard errors: a model two points worse is promoted in at most 5 % at a
margin of two points; an equal one is rejected in at most 5 %; a 95 % interval covers the truth in 93 to 97 %. The exit code is 1 when
one is missed.
"""

import argparse
import itertools
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bench._tables import tables
from bench._worlds import Naming, World
from components.artifacts.verdict import Outcome
from components.core.exits import run_command
from components.gates import LEVEL, Evidence, GatesParams, ReferenceModel, available
from components.judge import decide
from components.judge.multiple_testing import combine
from components.judge.selftest import TESTED
from components.stats import difference, mcnemar, tango

MARGIN = 0.02
DIFFERENCES = (-0.02, 0.0, 0.01, 0.02)
SIZES = (200, 1000, 5000)
AGREEMENTS = (0.85, 0.90, 0.95)
LOOKS = 5
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is simulated: `panels` are (classes, grouping, agreement), each at all sizes and differences."""

    closed: int
    panel: int
    power: int  # repetitions of panels on better models, which no target is about
    sizes: tuple[int, ...]
    differences: tuple[float, ...]
    panels: tuple[tuple[int, str, float], ...]
    chains: int
    parts: int  # after each, all rows are written with the repetitions so far


FULL = Plan(
    closed=20_000,
    panel=2_000,
    power=100,
    sizes=SIZES,
    differences=DIFFERENCES,
    panels=(
        (2, "none", 0.95),
        (6, "none", 0.90),
        (22, "none", 0.85),
        (2, "rows", 0.90),
        (6, "rows", 0.85),
        (22, "labels", 0.90),
    ),
    chains=200,
    parts=20,
)
QUICK = Plan(20_000, 200, 50, (200, 1000), (-0.02, 0.0), ((6, "none", 0.90), (22, "labels", 0.90)), 20, 1)


def settings(looks: int = 1) -> GatesParams:
    """Return the gates' defaults with a floor well below the models, and without the gates that need a model to run."""
    off = {name: {"role": "off"} for name in available() if name not in TESTED}
    return GatesParams.parse({"floor": {"at_least": 0.5}, "test_budget": {"at_most": looks}, **off}, "gates")


def closed_forms(plan: Plan) -> Iterator[Row]:
    """Yield the champion gate on accuracy without groups: Tango's interval and McNemar's test, which need only two counts."""
    for n, agreement, gap, looks in itertools.product(plan.sizes, AGREEMENTS, plan.differences, (1, LOOKS)):
        rng, disagree, level = np.random.default_rng([n, round(agreement * 100), looks]), 1 - agreement, LEVEL / looks
        gained, lost = (disagree + gap) / 2, (disagree - gap) / 2
        draws = rng.multinomial(n, [gained, lost, 1 - disagree], plan.closed)[:, :2]
        pairs, times = np.unique(draws, axis=0, return_counts=True)
        low, _ = tango(pairs[:, 0], pairs[:, 1], n, float(stats.norm.ppf(1 - level)))
        ends = tango(pairs[:, 0], pairs[:, 1], n, float(stats.norm.ppf(0.975)))
        passed, covered = low > -MARGIN, (ends[0] <= gap) & (gap <= ends[1])
        failed = np.array([mcnemar(int(b), int(c)) for b, c in pairs]) <= LEVEL
        shares = {"promoted": passed, "rejected": failed & ~passed, "inconclusive": ~failed & ~passed, "coverage": covered}
        yield {
            **row("champion", "accuracy", World(n, 2, "none", agreement, gap), plan.closed, looks),
            "classes": None,
            **{name: float(np.average(share, weights=times)) for name, share in shares.items()},
        }


def series(plan: Plan) -> list["Series"]:
    """Return the series of panels that a plan asks for, small test sets first; better models, about which nothing is promised, in fewer."""
    worlds = [World(n, *kind, gap) for n, kind, gap in itertools.product(plan.sizes, plan.panels, plan.differences)]
    found = [Series(world, plan.panel if world.difference <= 0 else plan.power) for world in worlds]
    budgeted = [World(n, 6, "none", 0.90, gap) for n, gap in itertools.product(plan.sizes, plan.differences)] if plan is FULL else []
    return found + [Series(world, plan.panel if world.difference <= 0 else plan.power, LOOKS) for world in budgeted]


@dataclass
class Tally:
    """Outcomes by gate, and by metric whether the interval of the difference to the champion held the truth."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    metric: dict[str, str | None] = field(default_factory=dict)
    covered: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))


OUTCOMES = {"promoted": Outcome.PASS, "rejected": Outcome.FAIL, "inconclusive": Outcome.INCONCLUSIVE}


class Series:
    """Test sets of one world, judged again and again; it can be told from at any time."""

    def __init__(self, world: World, repetitions: int, looks: int = 1) -> None:
        self.world, self.repetitions, self.looks, self.done, self.tally = world, repetitions, looks, 0, Tally()
        self.rng = np.random.default_rng(
            [world.rows, world.classes, round(world.agreement * 100), round((world.difference + 1) * 1000), looks]
        )
        self.names, self.gates = Naming(world, self.rng), settings(looks)

    def advance(self, share: float) -> None:
        """Judge this share of the repetitions."""
        for _ in range(round(self.repetitions * share)):
            self.judge()

    def judge(self) -> None:
        """Draw a test set, judge it and count."""
        world, names, tally = self.world, self.names, self.tally
        draw = world.draw(self.rng)
        candidate, champion, baseline = (names.predictions(draw, answers) for answers in (draw.candidate, draw.champion, draw.baseline))
        known = {"level": self.gates.test_budget.level, "rows": names.rows(draw), "crosscheck": False}
        evidence = Evidence(candidate, {"tfidf": baseline, "majority": baseline}, ReferenceModel("1", champion), 10, **known)
        results = decide(evidence, self.gates)
        tally.outcomes["panel"][combine(results)[0]] += 1
        for result in results:
            tally.outcomes[result.gate][result.outcome] += 1
            tally.metric[result.gate] = result.metric or tally.metric.get(result.gate)
        for metric in ("accuracy", "macro_f1"):
            found = difference(metric, evidence.truth, candidate.predicted, champion.predicted, 0.95)
            if found.doubt is None:
                truth = world.difference if metric == "accuracy" else world.macro_f1_difference(draw, evidence.truth.eligible)
                tally.covered[metric].append(found.low <= truth <= found.high)
        self.done += 1

    def rows(self) -> Iterator[Row]:
        """Yield a row a gate, the panel's first, and one for the interval of macro-F1."""
        tally = self.tally
        for gate in ("panel", *sorted(set(tally.outcomes) - {"panel"})):
            shares = {name: tally.outcomes[gate][outcome] / self.done for name, outcome in OUTCOMES.items()}
            covered = tally.covered["accuracy"] if gate == "champion" else []
            coverage = float(np.mean(covered)) if covered else None
            yield {**row(gate, tally.metric.get(gate), self.world, self.done, self.looks), **shares, "coverage": coverage}
        if found := tally.covered["macro_f1"]:
            yield {**row("interval", "macro_f1", self.world, len(found), self.looks), "coverage": float(np.mean(found))}


def row(gate: str, metric: str | None, world: World, repetitions: int, looks: int = 1) -> Row:
    """Return a row with nothing measured yet; `formula` is the share of PASS that the normal approximation expects of the comparison."""
    disagree = 1 - world.agreement
    error = np.sqrt((disagree - world.difference**2) / world.rows)
    formula = stats.norm.cdf((MARGIN + world.difference) / error - stats.norm.ppf(1 - LEVEL / looks))
    return {
        "gate": gate,
        "metric": metric,
        "n": world.rows,
        "true_difference": world.difference,
        **dict.fromkeys(("promoted", "rejected", "inconclusive", "coverage")),
        "classes": world.classes,
        "groups": world.grouping,
        "agreement": world.agreement,
        "level": LEVEL / looks,
        "repetitions": repetitions,
        "formula": round(float(formula), 4) if gate in ("champion", "panel") and world.grouping == "none" else None,
    }


def creep(plan: Plan, rows: int = 2000, retrainings: int = 100, worse: float = 0.005, disagree: float = 0.12) -> Iterator[Row]:
    """Yield what becomes of the accuracy when each candidate is half a point worse than the champion, without and with the anchor.

    All are held against one test set, at 5 % each. The anchor moves to a new champion that is estimated to be at least as good.
    """
    for anchored in (False, True):
        rng, chains = np.random.default_rng(7), plan.chains
        truth, promoted = np.full(chains, 0.85), 0
        champion = rng.random((chains, rows)) < 0.85
        anchor = champion.copy()
        for _ in range(retrainings):
            losing, gaining = (disagree + worse) / 2 / truth, (disagree - worse) / 2 / (1 - truth)
            chance = rng.random((chains, rows))
            candidate = np.where(champion, chance >= losing[:, None], chance < gaining[:, None])
            wins = low_end(candidate, champion) > -MARGIN
            if anchored:
                wins &= low_end(candidate, anchor) > -MARGIN
            better = candidate.sum(axis=1) >= anchor.sum(axis=1)
            anchor[wins & better] = candidate[wins & better]
            champion[wins] = candidate[wins]
            truth, promoted = truth - worse * wins, promoted + int(wins.sum())
        world = World(rows, 2, "none", 0.90, -worse)
        yield {
            **row(f"{retrainings} retrainings {'with' if anchored else 'without'} anchor", "accuracy", world, chains),
            **{"agreement": 1 - disagree, "formula": None, "promoted": promoted / chains / retrainings},
            "drift": float(np.mean(truth) - 0.85),
            "drift_5_percent": float(np.quantile(truth, 0.05) - 0.85),
        }


def low_end(candidate: np.ndarray, other: np.ndarray) -> np.ndarray:
    gained, lost = (candidate & ~other).sum(axis=1), (other & ~candidate).sum(axis=1)
    return tango(gained, lost, candidate.shape[1], float(stats.norm.ppf(1 - LEVEL)))[0]


def looks(plan: Plan, rows: int = 2000, tries: int = 20, disagree: float = 0.12) -> Iterator[Row]:
    """Yield how often one of 20 candidates, each two points worse, is promoted on one test set: at 5 % each, and by the budget."""
    for budget in (None, LOOKS):
        rng, chains = np.random.default_rng(8), plan.chains * 20
        right = rng.binomial(rows, 0.85, chains)
        lost = rng.binomial(right[:, None], (disagree + 0.02) / 2 / 0.85, (chains, tries))
        gained = rng.binomial(rows - right[:, None], (disagree - 0.02) / 2 / 0.15, (chains, tries))
        low, _ = tango(gained, lost, rows, float(stats.norm.ppf(1 - LEVEL / (budget or 1))))
        judged = low[:, :budget]
        world = World(rows, 2, "none", 0.90, -0.02)
        name = f"{tries} looks, {f'budget of {budget}' if budget else 'no budget'}"
        share = float(np.mean((judged > -MARGIN).any(axis=1)))
        yield {**row(name, "accuracy", world, chains, budget or 1), "agreement": 1 - disagree, "formula": None, "promoted": share}


def missed(rows: Sequence[Row], power: int = 0) -> list[str]:
    """Return a line for each target that is missed by more than three Monte-Carlo standard errors.

    Where only `power` was asked, with that few repetitions, nothing is promised.
    """
    lines = []
    for one in rows:
        slack = 3 * np.sqrt(0.05 * 0.95 / one["repetitions"])
        where = " ".join(f"{key}={one[key]}" for key in ("gate", "metric", "n", "classes", "groups", "agreement", "level"))
        budgeted = one["gate"].endswith(f"budget of {LOOKS}")
        if one["true_difference"] == -MARGIN and (one["gate"] in ("panel", "champion") or budgeted) and one["promoted"] > LEVEL + slack:
            lines.append(f"{where}: promotes a model two points worse in {one['promoted']:.1%}, expected at most 5 %")
        if one["true_difference"] == 0 and one["gate"] in ("panel", "champion") and one["rejected"] > LEVEL + slack:
            lines.append(f"{where}: rejects an equal model in {one['rejected']:.1%}, expected at most 5 %")
        if one["coverage"] is not None and one["repetitions"] > power and not 0.93 - slack <= one["coverage"] <= 0.97 + slack:
            lines.append(f"{where}: a 95 % interval covers {one['coverage']:.1%}, expected 93 to 97 %")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, write; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench gates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the rows into this file")
    parser.add_argument("--quick", action="store_true", help="two sizes and fewer repetitions: under two minutes")
    parser.add_argument("--table", type=Path, help="simulate nothing: print the rows of this file as the tables of docs/gates.md")
    asked = parser.parse_args(argv)
    if asked.table:
        print(tables(json.loads(asked.table.read_text(encoding="utf-8"))))
        return 0
    plan, started = QUICK if asked.quick else FULL, time.monotonic()
    todo = series(plan)
    print(
        f"about {expected_minutes(plan, todo):.0f} minutes on this machine; gates: {', '.join(sorted(set(TESTED) & set(available())))}",
        flush=True,
    )
    simple = [*closed_forms(plan), *looks(plan), *creep(plan)]
    print(f"closed forms, looks and retrainings after {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    rows = simple
    for part in range(plan.parts):
        for one in todo:
            one.advance(1 / plan.parts)
        rows = simple + [found for one in todo for found in one.rows()]
        if asked.json:
            asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(f"part {part + 1} of {plan.parts} after {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    print(*map(line, rows), sep="\n")
    faults = missed(rows, plan.power)
    print("\n".join(faults) or "every target is met", f"({len(rows)} rows in {(time.monotonic() - started) / 60:.1f} minutes)", sep="\n")
    return 1 if faults else 0


def expected_minutes(plan: Plan, todo: Sequence[Series]) -> float:
    """Time a few panels of each size and multiply."""
    seconds = 10.0
    for n in plan.sizes:
        tried, started = Series(World(n, 6, "rows", 0.90, 0.0), 5), time.perf_counter()
        tried.advance(1.0)
        seconds += (time.perf_counter() - started) / 5 * sum(one.repetitions for one in todo if one.world.rows == n)
    return seconds / 60


def line(found: Row) -> str:
    """Return a row for the eye."""
    shares = [f"{found[name]:.3f}" if found[name] is not None else "  -  " for name in (*OUTCOMES, "coverage", "formula")]
    drift = f" drift {found['drift']:+.3f} (5 % below {found['drift_5_percent']:+.3f})" if "drift" in found else ""
    world = f"n={found['n']:<5}d={found['true_difference']:+.3f} classes={found['classes'] or '-'!s:<3}groups={found['groups']:<7}"
    return f"{found['gate']:<34}{world}agree={found['agreement']:.2f} level={found['level']:.3f}  {' '.join(shares)}{drift}"


if __name__ == "__main__":
    sys.exit(run_command(main))
