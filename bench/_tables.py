"""Format the rows of `python -m bench gates` as the tables of docs/gates.md."""

from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]


def tables(rows: Sequence[Row]) -> str:
    """Return three Markdown tables: the champion gate, all gates together, and many candidates or retrainings."""
    return "\n".join([*champion_table(rows), "", *panel_table(rows), "", *series_table(rows)])


def champion_table(rows: Sequence[Row]) -> Iterator[str]:
    selected = [row for row in rows if row["classes"] is None]
    yield "| n | level | 2 points worse: promoted | equal: rejected | equal: PASS | +1: PASS | +2: PASS | coverage of 95 % |"
    yield "|---|---|---|---|---|---|---|---|"
    for n, level in sorted({(row["n"], row["level"]) for row in selected}, key=lambda pair: (pair[0], -pair[1])):
        here = [row for row in selected if (row["n"], row["level"]) == (n, level)]
        worse, equal = ([row for row in here if row["true_difference"] == gap] for gap in (-0.02, 0.0))
        passed = [
            f"{per_cent(row['promoted'])} ({per_cent(row['formula'])})"
            for row in here
            if row["true_difference"] >= 0 and row["agreement"] == 0.90
        ]
        yield cells(
            f"{n:,}",
            f"{level * 100:.0f} %",
            span([row["promoted"] for row in worse]),
            span([row["rejected"] for row in equal]),
            *passed,
            span([row["coverage"] for row in here]),
        )


def panel_table(rows: Sequence[Row]) -> Iterator[str]:
    selected = [row for row in rows if row["gate"] == "panel" and row["repetitions"] >= FEWEST]
    heads = ("n", "classes", "groups", "agreement", "level", "−2: promoted", "−2: rejected", "0: rejected", "0: promoted", "+1", "+2")
    yield cells(*heads, "coverage accuracy, macro-F1", "repetitions")
    yield "|" + "---|" * (len(heads) + 2)
    worlds = dict.fromkeys(map(key, selected))
    for world in worlds:
        here = {row["true_difference"]: row for row in selected if key(row) == world}
        covered = [cover(rows, world, gate) for gate in ("champion", "interval")]
        n, classes, groups, agreement, level = world
        yield cells(
            f"{n:,}",
            classes,
            {"none": "–", "rows": "alike", "labels": "one label"}[groups],
            f"{agreement * 100:.0f} %",
            f"{level * 100:.0f} %",
            *(with_formula(here[gap], name) if gap in here else "" for gap, name in COLUMNS),
            ", ".join(covered),
            f"{here[0.0]['repetitions']:,}",
        )


def with_formula(row: Row, name: str) -> str:
    """Return a share, and in brackets the share of PASS by the normal approximation for independent rows."""
    expected = row["formula"] if name == "promoted" and row["true_difference"] >= 0 else None
    return per_cent(row[name]) + (f" ({per_cent(expected)})" if expected is not None else "")


FEWEST = 50  # minimum repetitions of a row
COLUMNS = ((-0.02, "promoted"), (-0.02, "rejected"), (0.0, "rejected"), (0.0, "promoted"), (0.01, "promoted"), (0.02, "promoted"))


def series_table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| | promoted | accuracy afterwards |"
    yield "|---|---|---|"
    for row in rows:
        if "candidates, " in row["gate"]:
            yield cells(f"{row['gate']}: each 2 points worse", f"one or more in {per_cent(row['promoted'])}", "")
        if "drift" in row:
            after = f"{row['drift'] * 100:+.1f} points (5 % below {row['drift_5_percent'] * 100:+.1f})"
            yield cells(f"{row['gate']}: each candidate half a point worse", per_cent(row["promoted"]) + " of them", after)


def key(row: Row) -> tuple[Any, ...]:
    return (row["n"], row["classes"], row["groups"], row["agreement"], row["level"])


def cover(rows: Sequence[Row], world: tuple[Any, ...], gate: str) -> str:
    """Return the coverage over all true differences, weighted by repetitions; a dash if no interval may decide."""
    selected = [row for row in rows if row["gate"] == gate and key(row) == world and row["coverage"] is not None]
    total = sum(row["repetitions"] for row in selected)
    return f"{sum(row['coverage'] * row['repetitions'] for row in selected) / total:.1%}".replace("%", " %") if total else "–"


def span(values: Sequence[float]) -> str:
    low, high = per_cent(min(values)), per_cent(max(values))
    return low if low == high else f"{low.removesuffix(' %')}–{high}"


def per_cent(share: float) -> str:
    return f"{share * 100:.1f} %"


def cells(*values: object) -> str:
    return f"| {' | '.join(map(str, values))} |"
