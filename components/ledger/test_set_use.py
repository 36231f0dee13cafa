"""Count how many candidates were judged on the rows of a test set.

A use of the same rows counts fully, as does a use of a test set that contains at least a given share of these rows; a smaller share
counts in proportion. Adding or removing a few rows thus does not start a new budget, while a set of new rows has a full one.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

SAMPLE = 10_000
"""Stored keys per test set, the smallest ones: keys are hashes, so these are a random sample of a larger set."""
SHARED = 0.1


@dataclass(frozen=True)
class PriorUse:
    """The number of a candidate among those judged on the current test rows, from 1.

    `shared` is the largest share of the current rows in an earlier test set; `unknown` counts earlier test sets with unknown rows,
    which count as if they were the current ones.
    """

    number: int
    shared: float = 0.0
    unknown: int = 0


def sample_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the row keys of a test set to store."""
    return tuple(sorted(set(keys))[:SAMPLE])


def common_share(keys: Collection[str], other: Collection[str]) -> float:
    """Return the share of the rows of a test set that the other contains, estimated from the stored keys."""
    ends = [max(sample) for sample in (keys, other) if len(sample) >= SAMPLE]
    comparable = [key for key in keys if not ends or key <= min(ends)]
    return len(set(comparable) & set(other)) / len(comparable) if comparable else 0.0


def prior_use(current: str, earlier: Iterable[tuple[str, str]], rows: Mapping[str, Collection[str]], shared: float = SHARED) -> PriorUse:
    """Return the prior use of the test set `current` by the `earlier` (candidate, test set); `rows` are the keys by test set.

    A candidate judged on several test sets counts once.
    """
    keys = rows.get(current, ())
    uses = list(earlier)
    others = {test for _, test in uses if test != current}
    unknown = {test for test in others if not keys or test not in rows}
    shares = {test: common_share(keys, rows[test]) for test in others - unknown} | dict.fromkeys({current, *unknown}, 1.0)
    weights: dict[str, float] = {}
    for candidate, test in uses:
        weights[candidate] = max(weights.get(candidate, 0.0), min(1.0, shares[test] / shared))
    return PriorUse(
        number=1 + int(sum(weights.values()) + 1e-9),
        shared=max((shares[test] for test in others - unknown), default=0.0),
        unknown=len(unknown),
    )
