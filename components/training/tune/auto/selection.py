"""Statistics of the selection: intervals, the one-standard-error rule, and the optimism of the winner. Pure functions.

A score is a function of validation rows. Its uncertainty is measured with a bootstrap over rows or groups: every candidate is scored on
the same resamples, so that differences between candidates are paired.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Score = Callable[[int, Ints], float]
"""Takes a candidate and the indices of rows, repeated ones included; returns the candidate's score on them."""

RESAMPLES = 200
CHEAPER = 0.8  # of the cost of the best candidate
FEWEST = 30  # resamples, however slow the metric is
Z = 1.959964  # 95 % of the normal distribution


@dataclass(frozen=True)
class Resampled:
    """Scores on resamples: `inside` on the drawn rows, `outside` on the rows that were not drawn, each (candidates, resamples)."""

    inside: Floats
    outside: Floats

    def errors(self) -> Floats:
        """Return the standard error of each candidate's score, (candidates,)."""
        return np.asarray(self.inside.std(axis=1, ddof=1))

    def error_of_difference(self, first: int, second: int) -> float:
        """Return the standard error of the difference between two candidates' scores."""
        return float((self.inside[first] - self.inside[second]).std(ddof=1))


def resample(score: Score, candidates: int, groups: Sequence[str], *, seed: int, seconds: float = 20.0) -> Resampled:
    """Score `candidates` on bootstrap resamples of the rows, whole groups at a time; a slow metric gets fewer resamples.

    `groups` has one name per row. The number of resamples is fixed by the time of the first one, between 30 and 200.
    """
    names, member = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    rows_of = [np.flatnonzero(member == group) for group in range(len(names))]
    generator = np.random.default_rng(seed)
    inside, outside, wanted = list[list[float]](), list[list[float]](), RESAMPLES
    started = time.monotonic()
    while len(inside) < wanted:
        drawn = generator.integers(0, len(names), len(names))
        kept = np.concatenate([rows_of[group] for group in drawn])
        left = np.flatnonzero(~np.isin(member, drawn))
        inside.append([score(candidate, kept) for candidate in range(candidates)])
        outside.append([score(candidate, left) if len(left) else np.nan for candidate in range(candidates)])
        if len(inside) == 1:
            wanted = int(np.clip(seconds / max(time.monotonic() - started, 1e-6), FEWEST, RESAMPLES))
    return Resampled(np.array(inside, dtype=np.float64).T, np.array(outside, dtype=np.float64).T)


def optimism(resampled: Resampled) -> tuple[float, float, float] | None:
    """Return how much the best of the candidates' scores overestimates its score on new rows, with a 95 % interval.

    On each resample the best candidate is selected by the drawn rows and scored again on the others. The mean difference, less that of all
    candidates, times 0.632, estimates the bias of a maximum: a resample has 63.2 % of the rows (Efron & Tibshirani, "Improvements on
    cross-validation: the .632+ bootstrap method", 1997). In simulations of equal candidates it found 82 to 108 % of the bias.
    None if no resample left rows out.
    """
    usable = ~np.isnan(resampled.outside).any(axis=0)
    if not usable.any():
        return None
    inside, outside = resampled.inside[:, usable], resampled.outside[:, usable]
    columns = np.arange(inside.shape[1])
    gaps = inside - outside
    chosen = 0.632 * (gaps[inside.argmax(axis=0), columns] - gaps.mean(axis=0))
    half = Z * float(chosen.std(ddof=1)) if len(chosen) > 1 else 0.0
    return float(chosen.mean()), float(chosen.mean()) - half, float(chosen.mean()) + half


def nested_optimism(scores: Floats) -> tuple[float, float, float] | None:
    """Return the optimism of the best of `scores` (candidates, holdouts), as in `optimism`.

    On each hold-out, the candidate that is best on the others is scored: nested cross-validation (Varma & Simon, "Bias in error
    estimation when using cross-validation for model selection", 2006). None with fewer than two hold-outs.
    """
    holdouts = scores.shape[1]
    if holdouts < 2:
        return None
    others = (scores.sum(axis=1, keepdims=True) - scores) / (holdouts - 1)
    gaps = scores[int(scores.mean(axis=1).argmax())] - scores[others.argmax(axis=0), np.arange(holdouts)]
    half = Z * float(gaps.std(ddof=1)) / holdouts**0.5
    return float(gaps.mean()), float(gaps.mean()) - half, float(gaps.mean()) + half


def cheapest_of_equals(scores: Sequence[float], costs: Sequence[float], error: Callable[[int, int], float]) -> int:
    """Return the candidate to choose: the cheapest whose score is within one standard error of the best (Breiman et al., 1984).

    A candidate is cheaper if it costs at most 80 % of the best. `error` returns the standard error of the difference of two candidates.
    """
    best = int(np.argmax(scores))
    cheaper = [index for index in range(len(scores)) if costs[index] <= CHEAPER * costs[best]]
    equal = [best, *(index for index in cheaper if scores[best] - scores[index] <= error(best, index))]
    return min(equal, key=lambda index: (costs[index], -scores[index], index))
