"""Compute the figures of `python -m bench auto` from its rows, and format them as tables."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import scipy

from bench._problem import Problem, difference, read_answers
from bench._tables import cells

Row = Mapping[str, Any]
OURS = "auto"
FAILED = "failed"  # how the reason of a failure begins
THIRD = 1 / 3


def answers_of(file: Path, dataset: str, seed: int) -> Path:
    """Return the folder with the rows and all answers of a data set and seed."""
    return file.with_suffix("") / f"{dataset}-{seed}"


def figures(rows: Sequence[Row], file: Path) -> dict[str, Any]:
    """Return the figures of each data set that `auto` has tried, and those over all data sets."""
    by_set: dict[str, list[Row]] = defaultdict(list)
    for row in {(row["dataset"], row["seed"], row["side"]): row for row in rows}.values():  # the last of repeated ones
        by_set[row["dataset"]].append(row)
    found = {name: of_dataset(own, file) for name, own in by_set.items() if any(row["side"] == OURS for row in own)}
    return {"sets": found, "all": over_sets(found)}


def answered(row: Row) -> bool:
    return row["test"] is not None


def of_dataset(rows: Sequence[Row], file: Path) -> dict[str, Any]:
    """Return the figures of a data set; scores are means over the seeds that all sides answered which answered at all."""
    sides: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if answered(row):
            sides[row["side"]][row["seed"]] = row
    others = [side for side in sides if not side.startswith(OURS)]
    own = sides.get(OURS, {})
    shared = [set(sides[side]) for side in (*others, OURS) if sides.get(side)]
    seeds = sorted(set.intersection(*shared)) if shared else []
    compared = {side: by_seed for side, by_seed in sides.items() if seeds and by_seed.keys() >= set(seeds)}
    result: dict[str, Any] = {
        "metric": rows[0]["metric"],
        "seeds": seeds,
        "scores": {side: mean_of((by_seed[seed] for seed in seeds), "test", 4) for side, by_seed in compared.items()},
        "seconds": {side: mean_of((by_seed[seed] for seed in seeds), "seconds", 1) for side, by_seed in compared.items()},
        "optimism": round(statistics.fmean(row["validation"] - row["test"] for row in own.values()), 4) if own else None,
        "winners": [row.get("winner") for row in own.values()],
        "not_answered": {f"{row['side']}, seed {row['seed']}": row["reason"] for row in rows if not answered(row)},
        "failed": [row["seed"] for row in rows if row["side"] == OURS and not answered(row)],
    }
    result |= of_searches(sides)
    if OURS in compared and others:
        result |= comparison(compared, max(others, key=lambda side: float(result["scores"][side])), seeds, file)
    return result | {"verdict": verdict(result)}


def mean_of(rows: Iterable[Row], field: str, digits: int) -> float:
    return round(statistics.fmean(row[field] for row in rows), digits)


def of_searches(sides: Mapping[str, Mapping[int, Row]]) -> dict[str, Any]:
    """Return the spent shares of the minutes, whether a repeated search has the same order, and how many searches were killed."""
    searches = [row for side, by_seed in sides.items() if side.startswith(OURS) for row in by_seed.values()]
    result: dict[str, Any] = {
        "budget": [spent(row, "search_seconds") for row in searches],
        "budget_with_training": [spent(row, "seconds") for row in searches],
    }
    own = sides.get(OURS, {})
    if again := [(own[seed], row) for seed, row in sides.get("auto_again", {}).items() if seed in own]:
        result["same_order"] = all(first.get("order") == second.get("order") for first, second in again)
    if killed := [bool(row.get("killed")) for row in sides.get("auto_killed", {}).values()]:
        result["killed"] = {"runs": len(killed), "killed": sum(killed)}
    return result


def comparison(sides: Mapping[str, Mapping[int, Row]], best: str, seeds: Sequence[int], file: Path) -> dict[str, Any]:
    """Return the difference to the best other side, and the share of its search time after which `auto` has its validation score."""
    pairs = [(sides[OURS][seed], sides[best][seed]) for seed in seeds]
    shares = [share_of_time(*pair) for pair in pairs]
    return {
        "best_other": best,
        "difference": combined([paired(file, *pair) for pair in pairs]),
        "share_of_its_time": None if None in shares else round(max(share for share in shares if share is not None), 3),
    }


def verdict(own: Mapping[str, Any]) -> str:
    """Return better, worse, not different or not compared; a seed for which `auto` failed makes it worse."""
    if own["failed"]:
        return "worse"
    if "difference" not in own:
        return "not compared"
    return "better" if own["difference"]["low"] > 0 else "worse" if own["difference"]["high"] < 0 else "not different"


def spent(row: Row, seconds: str) -> float:
    """Return the seconds relative to the asked minutes."""
    return round(float(row.get(seconds, row["seconds"])) / (60 * row["minutes"]), 3)


def share_of_time(first: Row, other: Row) -> float | None:
    """Return the seconds until a candidate of `first` had the validation score of `other`, by those of its search; None if none had."""
    at = seconds_to(first.get("curve") or [], other["validation"])
    return None if at is None or not other.get("search_seconds") else at / float(other["search_seconds"])


def seconds_to(curve: Sequence[Sequence[float]], target: float) -> float | None:
    """Return the seconds after which a score of `curve` (seconds, score) first reaches `target`; None if none does."""
    return min((seconds for seconds, score in curve if score >= target), default=None)


def paired(file: Path, first: Row, second: Row) -> dict[str, float]:
    """Return the paired difference of two sides on the test rows."""
    folder = answers_of(file, first["dataset"], first["seed"])
    problem = Problem.read(folder)
    both = [problem.predictions("test", read_answers(folder / f"{row['side']}.json")[0]["test"]) for row in (first, second)]
    return difference(problem, *both)


def combined(differences: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over S seeds of a paired difference with its 95 % interval, mean ± t(f) √T, with T = W + B / S.

    W is the mean of the squared standard errors over the n test rows, which all seeds share, so that more seeds do not lower it; B is the
    variance of the differences between the seeds. f = T² / (W² / (n - 1) + (B / S)² / (S - 1)): Satterthwaite (1946), "An approximate
    distribution of estimates of variance components". B contains noise of the test rows too, so the interval is rather too wide. One
    seed has only the interval over its test rows.
    """
    values = [own["value"] for own in differences]
    mean, seeds = statistics.fmean(values), len(values)
    if seeds == 1:
        return {name: round(differences[0][name], 4) for name in ("value", "low", "high")}
    freedom = max(min(own["n"] for own in differences) - 1, 1)
    rows = statistics.fmean(((own["high"] - own["low"]) / 2 / quantile(freedom)) ** 2 for own in differences)
    between = statistics.variance(values) / seeds
    total = rows + between
    degrees = total**2 / (rows**2 / freedom + between**2 / (seeds - 1)) if total else 1.0
    half = quantile(degrees) * total**0.5
    return {"value": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}


def quantile(degrees: float) -> float:
    """Return the 97.5 % quantile of Student's t."""
    return float(scipy.special.stdtrit(degrees, 0.975))


def over_sets(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many data sets are better and worse, the worst budgets, and the mean optimism with its 95 % interval over data sets."""
    verdicts = [own["verdict"] for own in found.values()]
    budgets = [share for own in found.values() for share in own["budget"]]
    values = [own["optimism"] for own in found.values() if own["optimism"] is not None]
    half = quantile(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    mean = statistics.fmean(values) if values else None
    shares = [own.get("share_of_its_time") for own in found.values()]
    return {
        "sets": len(found),
        "better": verdicts.count("better"),
        "worse": verdicts.count("worse"),
        "not_compared": verdicts.count("not compared"),
        "failed": sum(len(own["failed"]) for own in found.values()),
        "budget": [min(budgets), max(budgets)] if budgets else None,
        "within_a_third": sum(share is not None and share <= THIRD for share in shares),
        "optimism": None if mean is None or half is None else [round(value, 4) for value in (mean, mean - half, mean + half)],
    }


def tables(figures: Mapping[str, Any]) -> str:
    """Return a Markdown table with a row for each data set, a summary, all scores, and why sides have no answers."""
    heads = ("data set", "metric", "seeds", "auto", "best other", "its score", "difference", "95 %", "verdict", "share of its time")
    found, total = figures["sets"], figures["all"]
    lines = [cells(*heads, "budget", "optimism"), "|" + "---|" * (len(heads) + 2)]
    lines += [cells(name, *line(own)) for name, own in found.items()]
    lines.append("")
    lines.append(
        f"better on {total['better']} and worse on {total['worse']} of {total['sets']} data sets ({total['not_compared']} not compared); "
        f"auto failed {total['failed']} times, which counts as worse"
    )
    lines.append(f"in a third of the other's search time on {total['within_a_third']} data sets")
    if total["optimism"]:
        lines.append("mean optimism {:+.4f} ({:+.4f} to {:+.4f})".format(*total["optimism"]))
    if runs := [own["killed"] for own in found.values() if "killed" in own]:
        lines.append(f"auto_killed: {sum(own['killed'] for own in runs)} of {sum(own['runs'] for own in runs)} searches were killed")
    reasons = [f"{name}, {side}: {reason}" for name, own in found.items() for side, reason in own["not_answered"].items()]
    return "\n".join([*lines, "", *score_table(found), "", *reasons])


def line(own: Mapping[str, Any]) -> list[str]:
    """Return the cells of a data set after its name; a dash for what was not measured."""
    gain, best, share, budget = own.get("difference"), own.get("best_other"), own.get("share_of_its_time"), own["budget"]
    return [
        own["metric"],
        f"{len(own['seeds'])}" + (f" (auto failed on {len(own['failed'])})" if own["failed"] else ""),
        f"{own['scores'][OURS]:.3f}" if OURS in own["scores"] else "–",
        *((best, f"{own['scores'][best]:.3f}") if best else ("–", "–")),
        f"{gain['value']:+.3f}" if gain else "–",
        f"{gain['low']:+.3f} to {gain['high']:+.3f}" if gain else "–",
        own["verdict"],
        f"{share:.2f}" if share is not None else "–",
        f"{min(budget):.2f}–{max(budget):.2f}" if budget else "–",
        f"{own['optimism']:+.3f}" if own["optimism"] is not None else "–",
    ]


def score_table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table of every side's mean test score and seconds over the same seeds, and which sides failed on a seed."""
    lost = {name: {key.split(",")[0]: reason for key, reason in own["not_answered"].items()} for name, own in found.items()}
    sides = sorted({side for name, own in found.items() for side in (*own["scores"], *lost[name])})

    def cell(name: str, side: str) -> str:
        own, reason = found[name], lost[name].get(side, "")
        score = f"{own['scores'][side]:.3f} ({own['seconds'][side]:.0f} s)" if side in own["scores"] else ""
        return ", ".join(filter(None, (score, FAILED if reason.startswith(FAILED) else reason))) or "–"

    rows = [cells(name, *(cell(name, side) for side in sides)) for name in found]
    return [cells("data set", *sides), "|" + "---|" * (len(sides) + 1), *rows]
