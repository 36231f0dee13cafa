"""What would change a gate's outcome: the nearest setting with another outcome, or the test rows that would decide."""

import math

import pandas as pd

from components.artifacts.metrics import MIN_GROUPS, Estimate
from components.gates.support.evidence import Evidence
from components.stats.significance import POWER, units_needed

_MOST_SHARE = 50  # percent of the groups that a test set may reasonably take


def beyond(bound: float, up: bool, spread: float = 0.1) -> float:
    """Return the next short number above (`up`) or below `bound`, at most a tenth of `spread` away, so that it lies on the stated side."""
    if not math.isfinite(bound):
        return bound  # no valid setting, which the judge drops
    places = max(3, math.ceil(-math.log10(max(spread, 1e-9) / 10)))
    scale = 10.0**places
    return (math.floor(bound * scale) + 1 if up else math.ceil(bound * scale) - 1) / scale


def margin_beyond(estimate: Estimate, up: bool) -> float:
    """Return the margin for differences just wider (`up`) or narrower than the lower end of the interval of `estimate`."""
    return beyond(max(-estimate.low, 0.0) if up else -estimate.low, up, estimate.high - estimate.low)


def needed_units(evidence: Evidence, estimate: Estimate, threshold: float) -> str | None:
    """Describe the test units with which a candidate as far above `threshold` as `estimate` passes; None if it is not above."""
    distance = estimate.model_copy(update={"value": estimate.value - threshold})
    needed = units_needed(distance, evidence.units, 0.0, evidence.level) if distance.value > 0 else None
    if needed is None:
        return None
    unit = "groups" if evidence.units.grouped else "rows"
    cases = f"{POWER:.0%}".replace("%", " %")
    return f"with {needed:,} test {unit} (now {estimate.n:,}) a candidate as far above it as this one passes in {cases} of cases"


def enough_groups(evidence: Evidence) -> str | None:
    """Describe how the test set gets the groups that an interval needs; None if it has them, or has no groups."""
    now = evidence.units.count
    if not evidence.units.grouped or now >= MIN_GROUPS:
        return None
    total = _all_groups(evidence.rows, evidence.train)
    percents = [percent for percent in range(5, _MOST_SHARE + 1, 5) if total and _expected(total, percent / 100) >= MIN_GROUPS]
    share = f", such as `preprocess.test_share: {percents[0] / 100:g}` of these {total:,} groups" if percents else ""
    return f"a test set of at least {MIN_GROUPS} groups (now {now}): more groups, or a larger share of them{share}"


def _all_groups(*tables: pd.DataFrame | None) -> int | None:
    """Return the number of groups of all splits; None if a split or its groups are unavailable."""
    groups: set[str] = set()
    for table in tables:
        if table is None or "group" not in table.columns:
            return None
        groups |= set(table["group"])
    return len(groups)


def _expected(groups: int, share: float) -> float:
    """Return the groups of a test set of this share, less two standard deviations: a hash decides about each group."""
    return groups * share - 2 * math.sqrt(groups * share * (1 - share))
