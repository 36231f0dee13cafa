"""Whether a test split is large enough for the gates, before anything is trained."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import pandas as pd

from components.artifacts.metrics import MIN_GROUPS
from components.core.errors import listed

MIN_CLASS_UNITS = 10
"""The default of evaluate.min_class_units."""
TEST_SHARES = (0.2, 0.25, 0.3, 0.35, 0.4)
"""The values of test_share to choose from."""
_LEVEL, _POWER, _DISCORDANT = 0.05, 0.8, 0.1  # one-sided error, power, and share of rows that only one of two models answers right
_SLACK = 1.05  # duplicates and bad rows are removed before the split


def decision_faults(groups: Sequence[str], in_test: Sequence[bool], labels: Sequence[str] | None, test_share: float | None) -> list[str]:
    """Return why gates could not decide on a test split, and what would change that; `labels` are the classes of the rows, if any.

    `groups` and `in_test` are of all rows. `test_share` is None if the source gives the test split.
    """
    rows = pd.DataFrame({"group": list(groups), "test": list(in_test), "label": list(labels) if labels is not None else ""})
    test = rows[rows["test"]]
    units, total = test["group"].nunique(), rows["group"].nunique()
    grouped = units < len(test)
    unit = "groups" if grouped else "rows"
    faults = []
    if units < MIN_GROUPS and (grouped or labels is None):
        faults.append(
            f"the test split has {units} {unit}, and an interval needs at least {MIN_GROUPS}: the gates could not decide; "
            f"{_remedy(total, MIN_GROUPS, test_share, f'{unit} in the data')}"
        )
    if labels is not None:
        counts = test.groupby("label")["group"].nunique().reindex(sorted(set(rows["label"])), fill_value=0)
        rare = counts[counts < MIN_CLASS_UNITS].sort_values(kind="stable")
        if len(rare):
            names = listed([f"{label!r} ({count})" for label, count in rare.items()], 5)
            least = int(rows[rows["label"].isin(rare.index)].groupby("label")["group"].nunique().min())
            faults.append(
                f"{len(rare)} of {len(counts)} classes have fewer than {MIN_CLASS_UNITS} test {unit} (evaluate.min_class_units) and do not "
                f"count in macro-F1: {names}; {_remedy(least, MIN_CLASS_UNITS, test_share, f'{unit} of a class')}"
            )
    return faults


def smallest_difference(units: int) -> float:
    """Return the smallest true difference in accuracy that a test split of `units` shows with 80 % power.

    One-sided at 5 %, if one tenth of the rows are answered right by only one of the two models.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - _LEVEL) + normal.inv_cdf(_POWER)) * math.sqrt(_DISCORDANT / max(units, 1))


def describe_power(units: int, grouped: bool) -> str:
    """Return what the test split can show, for a message."""
    size = f"{units:,} {'groups' if grouped else 'rows'}"
    smallest = smallest_difference(units)
    return f"the test split has {size}: it shows differences of a share, such as accuracy, from about {smallest:.3f} on (80 % power)"


def _remedy(total: int, needed: int, test_share: float | None, what: str) -> str:
    """Return the share that gives `needed` test units of `total`, or how many units do; without a share the source gives the split."""
    if test_share is None:
        return "add rows to the given test split"
    more = f"{math.ceil(needed * _SLACK / test_share):,} {what} (now {total:,})"
    share = next((share for share in TEST_SHARES if share > test_share and share * total >= needed * _SLACK), None)
    if share is None:
        return f"at preprocess.test_share {test_share:g} it takes about {more}"
    return f"preprocess.test_share: {share:g} gives about {int(share * total)}; else it takes about {more}"
