"""The rows of `python -m bench gates` as the tables of docs/gates.md."""

from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]


def tables(rows: Sequence[Row]) -> str:
    """Return three tables in Markdown: the champion's gate, whole panels, and what many looks do."""
    return "\n".join([*closed(rows), "", *panels(rows), "", *series(rows)])


def closed(rows: Sequence[Row]) -> Iterator[str]:
    found = [one for one in rows if one["classes"] is None]
    yield "| n | level | 2 points worse: promoted | equal: rejected | equal: PASS | +1: PASS | +2: PASS | coverage of 95 % |"
    yield "|---|---|---|---|---|---|---|---|"
    for n, level in sorted({(one["n"], one["level"]) for one in found}, key=lambda pair: (pair[0], -pair[1])):
        here = [one for one in found if (one["n"], one["level"]) == (n, level)]
        worse, equal = ([one for one in here if one["true_difference"] == gap] for gap in (-0.02, 0.0))
        passed = [
            f"{per_cent(one['promoted'])} ({per_cent(one['formula'])})"
            for one in here
            if one["true_difference"] >= 0 and one["agreement"] == 0.90
        ]
        yield cells(
            f"{n:,}",
            f"{level * 100:.0f} %",
            span([one["promoted"] for one in worse]),
            span([one["rejected"] for one in equal]),
            *passed,
            span([one["coverage"] for one in here]),
        )


def panels(rows: Sequence[Row]) -> Iterator[str]:
    found = [one for one in rows if one["gate"] == "panel" and one["repetitions"] >= FEWEST]
    heads = ("n", "classes", "groups", "agreement", "level", "−2: promoted", "−2: rejected", "0: rejected", "0: promoted", "+1", "+2")
    yield cells(*heads, "coverage accuracy, macro-F1", "repetitions")
    yield "|" + "---|" * (len(heads) + 2)
    worlds = dict.fromkeys((one["n"], one["classes"], one["groups"], one["agreement"], one["level"]) for one in found)
    for world in worlds:
        here = {one["true_difference"]: one for one in found if key(one) == world}
        covered = [cover(rows, world, gate) for gate in ("champion", "interval")]
        n, classes, groups, agreement, level = world
        yield cells(
            f"{n:,}",
            classes,
            {"none": "–", "rows": "alike", "labels": "one label"}[groups],
            f"{agreement * 100:.0f} %",
            f"{level * 100:.0f} %",
            *(beside_formula(here[gap], name) if gap in here else "" for gap, name in COLUMNS),
            ", ".join(covered),
            f"{here[0.0]['repetitions']:,}",
        )


def beside_formula(one: Row, name: str) -> str:
    """Return a share, and in brackets the share of PASS that the normal approximation expects where the rows are independent."""
    expected = one["formula"] if name == "promoted" and one["true_difference"] >= 0 else None
    return per_cent(one[name]) + (f" ({per_cent(expected)})" if expected is not None else "")


FEWEST = 50  # repetitions that are worth a line
COLUMNS = ((-0.02, "promoted"), (-0.02, "rejected"), (0.0, "rejected"), (0.0, "promoted"), (0.01, "promoted"), (0.02, "promoted"))


def series(rows: Sequence[Row]) -> Iterator[str]:
    yield "| | promoted | accuracy afterwards |"
    yield "|---|---|---|"
    for one in rows:
        if "looks, " in one["gate"]:
            yield cells(f"{one['gate']}: candidates 2 points worse", f"one or more in {per_cent(one['promoted'])}", "")
        if "drift" in one:
            after = f"{one['drift'] * 100:+.1f} points (5 % below {one['drift_5_percent'] * 100:+.1f})"
            yield cells(f"{one['gate']}: each candidate half a point worse", per_cent(one["promoted"]) + " of them", after)


def key(one: Row) -> tuple[Any, ...]:
    return (one["n"], one["classes"], one["groups"], one["agreement"], one["level"])


def cover(rows: Sequence[Row], world: tuple[Any, ...], gate: str) -> str:
    """Return the coverage over all true differences, weighted by repetitions; a dash where no interval may decide."""
    found = [one for one in rows if one["gate"] == gate and key(one) == world and one["coverage"] is not None]
    total = sum(one["repetitions"] for one in found)
    return f"{sum(one['coverage'] * one['repetitions'] for one in found) / total:.1%}".replace("%", " %") if total else "–"


def span(values: Sequence[float]) -> str:
    low, high = per_cent(min(values)), per_cent(max(values))
    return low if low == high else f"{low.removesuffix(' %')}–{high}"


def per_cent(share: float) -> str:
    return f"{share * 100:.1f} %"


def cells(*values: object) -> str:
    return f"| {' | '.join(map(str, values))} |"
