"""How far earlier candidates have worn out a test set: looks are counted by the rows that test sets share. Pure.

A look on the same rows counts whole, and so does one on a test set that shares more than a given share of today's rows; one that shares
less counts in proportion. A row more or less therefore never starts a new budget, and a test set of new rows has all of its own.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

KEPT = 10_000
"""Keys that are kept of a test set, the smallest: keys are hashes, so that a larger set is known by a random sample of its rows."""
SHARED = 0.1


@dataclass(frozen=True)
class Wear:
    """Which candidate a look is on today's test rows, `number`, from 1.

    `shared` is the largest share of today's rows that stand in another test set that was judged before; `unknown` counts the earlier test
    sets whose rows nobody knows any more: they count as if they were today's.
    """

    number: int
    shared: float = 0.0
    unknown: int = 0


def kept(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of a test set's rows that are kept of it."""
    return tuple(sorted(set(keys))[:KEPT])


def share(mine: Collection[str], theirs: Collection[str]) -> float:
    """Return the share of the rows of one test set that another has, by what was kept of both."""
    ends = [max(keys) for keys in (mine, theirs) if len(keys) >= KEPT]
    known = [key for key in mine if not ends or key <= min(ends)]
    return len(set(known) & set(theirs)) / len(known) if known else 0.0


def prior_use(today: str, earlier: Iterable[tuple[str, str]], rows: Mapping[str, Collection[str]], shared: float = SHARED) -> Wear:
    """Return the wear of the test set `today`, by the looks before: (candidate, test set) each; `rows` are the keys by test set.

    A candidate that was judged on several test sets is one look.
    """
    mine = rows.get(today, ())
    looks = list(earlier)
    shares = {
        test: 1.0 if test == today or not mine or test not in rows else share(mine, rows[test]) for test in {test for _, test in looks}
    }
    weights: dict[str, float] = {}
    for candidate, test in looks:
        weights[candidate] = max(weights.get(candidate, 0.0), min(1.0, shares[test] / shared))
    others = {test for test in shares if test != today}
    unknown = {test for test in others if not mine or test not in rows}
    return Wear(
        number=1 + int(sum(weights.values()) + 1e-9),
        shared=max((shares[test] for test in others - unknown), default=0.0),
        unknown=len(unknown),
    )
