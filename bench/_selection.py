"""Choose an ordered portfolio of configurations from their results on several data sets.

Greedy zero-shot selection: each step adds the configuration that most lowers the mean over data sets of the smallest regret so far.
Wistuba, Schilling, Schmidt-Thieme (2015), "Sequential model-free hyperparameter tuning"; Winkelmolen et al. (2020), "Practical and sample
efficient zero-shot HPO".
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Table = Mapping[str, Mapping[str, float]]
"""Data set: configuration: value."""

SMALLEST_SPREAD = 0.01
"""Regrets are relative to at least this difference of scores, so that noise on a data set where all are alike counts little."""
ALIKE = 0.005
"""Of configurations whose mean regrets differ by less, the cheaper is chosen."""


def means(rows: Iterable[Mapping[str, Any]], value: str) -> dict[str, dict[str, float]]:
    """Return the mean of `value` over the seeds, by data set and configuration."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["dataset"]][row["configuration"]].append(row[value])
    return {dataset: {name: statistics.fmean(values) for name, values in own.items()} for dataset, own in found.items()}


def mean_regrets(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean over seeds of the regrets, by data set and configuration; a training that failed has regret 1."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    datasets: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        key = f"{row['dataset']} {row['seed']}"
        if key not in datasets[row["dataset"]]:
            datasets[row["dataset"]].append(key)
        scores[key] |= {} if row["score"] is None else {row["configuration"]: row["score"]}
    table, names = regrets(scores), sorted({row["configuration"] for row in rows if row["score"] is not None})
    return {
        dataset: {name: statistics.fmean(table[key].get(name, 1.0) for key in keys) for name in names} for dataset, keys in datasets.items()
    }


def regrets(scores: Table) -> dict[str, dict[str, float]]:
    """Return the regret of each configuration on each data set, from 0 (the best) to 1 (as the median one, worse, or without a score).

    The median and not the worst, because a configuration that diverges would make all others alike.
    """
    names = sorted({name for own in scores.values() for name in own})
    table = {}
    for dataset, own in scores.items():
        best = max(own.values(), default=0.0)
        spread = max(best - statistics.median(own.values() or [0.0]), SMALLEST_SPREAD)
        table[dataset] = {name: min((best - own[name]) / spread, 1.0) if name in own else 1.0 for name in names}
    return table


def relative_costs(seconds: Table) -> dict[str, float]:
    """Return the mean over data sets of a configuration's seconds, relative to the median of the data set."""
    found = defaultdict(list)
    for own in seconds.values():
        middle = statistics.median(own.values()) or 1.0
        for name, value in own.items():
            found[name].append(value / middle)
    return {name: statistics.fmean(values) for name, values in found.items()}


def portfolio(regret: Table, costs: Mapping[str, float], size: int) -> list[str]:
    """Return at most `size` configurations, the most useful first; it ends when no further one lowers the mean regret."""
    chosen: list[str] = []
    names = sorted({name for own in regret.values() for name in own})
    while len(chosen) < size:
        after = {name: mean_regret(regret, [*chosen, name]) for name in names if name not in chosen}
        if not after or (chosen and min(after.values()) >= mean_regret(regret, chosen)):
            break
        alike = [name for name, value in after.items() if value <= min(after.values()) + ALIKE]
        if chosen:
            alike = [name for name in alike if after[name] < mean_regret(regret, chosen)]
        chosen.append(min(alike, key=lambda name: (costs.get(name, 1.0), after[name], name)))
    return chosen


def mean_regret(regret: Table, chosen: Sequence[str]) -> float:
    """Return the mean over data sets of the smallest regret among `chosen`."""
    return statistics.fmean(min(own.get(name, 1.0) for name in chosen) for own in regret.values())


def left_out(regret: Table, seconds: Table, sources: Mapping[str, str], size: int) -> dict[str, list[float]]:
    """Return for each data set the smallest regret of the first 1, 2, … configurations of a portfolio that was chosen without it.

    Data sets of one source are left out together, with their seconds. Empty if all have the same source.
    """
    found = {}
    for dataset, own in regret.items():
        if others := {name: values for name, values in regret.items() if sources[name] != sources[dataset]}:
            costs = relative_costs({name: values for name, values in seconds.items() if sources[name] != sources[dataset]})
            order = portfolio(others, costs, size)
            found[dataset] = [min(own.get(name, 1.0) for name in order[:count]) for count in range(1, len(order) + 1)]
    return found
