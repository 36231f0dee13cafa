"""Compute the figures of `python -m bench auto` from its rows, and format them as tables."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import scipy

from bench._problem import Problem, difference, read_answers
from bench._tables import cells

Row = Mapping[str, Any]
OURS = "auto"


def answers_of(file: Path, dataset: str, seed: int) -> Path:
    """Return the folder with the rows and all answers of a data set and seed."""
    return file.with_suffix("") / f"{dataset}-{seed}"


def figures(rows: Sequence[Row], file: Path) -> dict[str, Any]:
    """Return the figures of each data set that `auto` has answered, and those over all data sets."""
    by_set: dict[str, list[Row]] = defaultdict(list)
    for row in {(row["dataset"], row["seed"], row["side"]): row for row in rows}.values():
        by_set[row["dataset"]].append(row)
    found = {name: of_dataset(own, file) for name, own in by_set.items() if any(row["side"] == OURS and answered(row) for row in own)}
    return {"sets": found, "all": over_sets(found)}


def answered(row: Row) -> bool:
    return row["test"] is not None


def of_dataset(rows: Sequence[Row], file: Path) -> dict[str, Any]:
    """Return the figures of a data set: means over the seeds that both compared sides have answered."""
    own = {row["seed"]: row for row in rows if row["side"] == OURS and answered(row)}
    sides: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if row["seed"] in own and answered(row):
            sides[row["side"]][row["seed"]] = row
    means = {side: statistics.fmean(row["test"] for row in by_seed.values()) for side, by_seed in sides.items()}
    others = {side: value for side, value in means.items() if not side.startswith(OURS)}
    searches = [row for side, by_seed in sides.items() if side.startswith(OURS) for row in by_seed.values()]
    result: dict[str, Any] = {
        "metric": rows[0]["metric"],
        "seeds": len(own),
        "scores": {side: round(value, 4) for side, value in means.items()},
        "seconds": {side: round(statistics.fmean(row["seconds"] for row in by_seed.values()), 1) for side, by_seed in sides.items()},
        "budget": [spent(row, "search_seconds") for row in searches],
        "budget_with_training": [spent(row, "seconds") for row in searches],
        "optimism": round(statistics.fmean(row["validation"] - row["test"] for row in own.values()), 4),
        "winners": [row.get("winner") for row in own.values()],
        "not_answered": {row["side"]: row["reason"] for row in rows if not answered(row)},
    }
    if again := [(own[seed], row) for seed, row in sides.get("auto_again", {}).items()]:
        result["same_order"] = all(first.get("order") == second.get("order") for first, second in again)
    if others:
        best = max(others, key=lambda side: others[side])
        pairs = [(own[seed], row) for seed, row in sides[best].items()]
        result |= {"best_other": best, "difference": combined([paired(file, *pair) for pair in pairs])}
        reached = [(seconds_to(first.get("curve") or [], row["validation"]), row["seconds"]) for first, row in pairs]
        shares = [at / seconds if at is not None else None for at, seconds in reached]
        result["share_of_its_time"] = None if None in shares else round(max(share for share in shares if share is not None), 3)
    return result


def spent(row: Row, seconds: str) -> float:
    """Return the seconds relative to the asked minutes."""
    return round(float(row.get(seconds, row["seconds"])) / (60 * row["minutes"]), 3)


def paired(file: Path, first: Row, second: Row) -> dict[str, float]:
    """Return the paired difference of two sides on the test rows."""
    folder = answers_of(file, first["dataset"], first["seed"])
    problem = Problem.read(folder)
    both = [problem.predictions("test", read_answers(folder / f"{row['side']}.json")[0]["test"]) for row in (first, second)]
    return difference(problem, *both)


def combined(differences: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over seeds of a difference and of the ends of its interval: the seeds share their test rows."""
    return {name: round(statistics.fmean(own[name] for own in differences), 4) for name in ("value", "low", "high")}


def seconds_to(curve: Sequence[Sequence[float]], target: float) -> float | None:
    """Return the seconds after which a score of `curve` (seconds, score) first reaches `target`; None if none does."""
    return min((seconds for seconds, score in curve if score >= target), default=None)


def over_sets(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many data sets are better and worse, the worst budgets, and the mean optimism with its 95 % interval over data sets."""
    compared = [own["difference"] for own in found.values() if "difference" in own]
    budgets = [share for own in found.values() for share in own["budget"]]
    values = [own["optimism"] for own in found.values()]
    half = None
    if len(values) > 1:
        half = float(scipy.special.stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values) if values else None
    return {
        "sets": len(found),
        "better": sum(own["low"] > 0 for own in compared),
        "worse": sum(own["high"] < 0 for own in compared),
        "budget": [min(budgets), max(budgets)] if budgets else None,
        "within_a_third": sum((own.get("share_of_its_time") or 2) <= 1 / 3 for own in found.values()),
        "optimism": None if mean is None or half is None else [round(value, 4) for value in (mean, mean - half, mean + half)],
    }


def tables(figures: Mapping[str, Any]) -> str:
    """Return a Markdown table with a row for each data set, and a summary."""
    heads = ("data set", "metric", "auto", "best other", "its score", "difference", "95 %", "share of its time", "budget", "optimism")
    lines = [cells(*heads), "|" + "---|" * len(heads)]
    for name, own in figures["sets"].items():
        gain, best = own.get("difference"), own.get("best_other")
        share = own.get("share_of_its_time")
        lines.append(
            cells(
                *(name, own["metric"], f"{own['scores'][OURS]:.3f}", best or "–", f"{own['scores'][best]:.3f}" if best else "–"),
                f"{gain['value']:+.3f}" if gain else "–",
                f"{gain['low']:+.3f} to {gain['high']:+.3f}" if gain else "–",
                f"{share:.2f}" if share is not None else "–",
                f"{min(own['budget']):.2f}–{max(own['budget']):.2f}",
                f"{own['optimism']:+.3f}",
            )
        )
    total = figures["all"]
    lines.append("")
    lines.append(f"better on {total['better']} and worse on {total['worse']} of {total['sets']} data sets")
    lines.append(f"in a third of the other's time on {total['within_a_third']} data sets")
    if total["optimism"]:
        lines.append("mean optimism {:+.4f} ({:+.4f} to {:+.4f})".format(*total["optimism"]))
    return "\n".join([*lines, "", *score_table(figures["sets"])])


def score_table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table of every side's mean test score and seconds."""
    sides = sorted({side for own in found.values() for side in own["scores"]})
    rows = [
        cells(name, *(f"{own['scores'][side]:.3f} ({own['seconds'][side]:.0f} s)" if side in own["scores"] else "–" for side in sides))
        for name, own in found.items()
    ]
    return [cells("data set", *sides), "|" + "---|" * (len(sides) + 1), *rows]
