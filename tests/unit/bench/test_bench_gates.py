"""A small simulation of the gates: it meets its targets, and reports missed ones."""

import dataclasses
import json
import subprocess
import sys

import pytest

from bench import gates as bench
from bench._worlds import World
from tests.support.project import ROOT
from tests.support.tiers import rest_exhaustive

pytestmark = pytest.mark.slow

SMALL = bench.Plan(2_000, 60, 20, (1000,), (-0.02, 0.0), ((6, "none", 0.90),), 10, 1)


@pytest.mark.parametrize("gap", rest_exhaustive([-0.02, 0.0], -0.02))
@pytest.mark.parametrize("grouping", ["none", "labels"])
def test_small_panel_meets_the_targets(grouping, gap):
    small = bench.Series(World(600, 6, grouping, 0.90, gap), 60)
    small.advance(1.0)
    rows = list(small.rows())

    assert bench.missed(rows) == []
    assert {"panel", "floor", "baseline", "champion", "best_champion", "test_budget", "slices", "calibration"} <= {
        row["gate"] for row in rows
    }
    assert sum(rows[0][name] for name in bench.OUTCOMES) == pytest.approx(1)


def test_closed_forms_meet_targets_and_formula():
    rows = list(bench.closed_forms(SMALL))

    assert bench.missed(rows) == []
    assert len(rows) == 12
    assert all(row["promoted"] == pytest.approx(row["formula"], abs=0.06) for row in rows)


def test_best_champion_and_test_budget_limit_errors():
    without, with_best = bench.creep(SMALL, retrainings=80)
    free, budgeted = bench.many_candidates(SMALL)

    assert without["drift"] < with_best["drift"] - 0.02 < -0.03
    assert budgeted["promoted"] < 0.08 < free["promoted"]


@pytest.mark.parametrize(
    ("gap", "column", "value", "message"),
    [
        (-0.02, "promoted", 0.08, "promotes a model two points worse in 8.0%"),
        (0.0, "rejected", 0.08, "rejects an equal model in 8.0%"),
        (0.01, "coverage", 0.90, "a 95 % interval covers 90.0%"),
    ],
)
def test_missed_target_is_reported(gap, column, value, message):
    row = bench.row("panel", None, World(1000, 6, "none", 0.90, gap), 2_000) | dict.fromkeys(bench.OUTCOMES, 0.0)

    assert bench.missed([row]) == []
    assert [message in line for line in bench.missed([row | {column: value}])] == [True]


def test_simulation_is_reproducible():
    first, second = (bench.Series(World(200, 6, "none", 0.90, 0.0), 6) for _ in range(2))
    first.advance(1.0)
    second.advance(0.5)
    second.advance(0.5)

    assert list(first.rows()) == list(second.rows())


def test_run_writes_rows_and_reports_targets(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "QUICK", dataclasses.replace(SMALL, closed=500, panel=4, sizes=(200,)))

    assert bench.main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    assert "every target is met" in capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert {"gate", "metric", "n", "true_difference", "promoted", "rejected", "inconclusive", "coverage"} <= set(rows[0])
    assert {"panel", "champion", "20 candidates, budget of 5", "100 retrainings with best_champion"} <= {row["gate"] for row in rows}


def test_unknown_benchmark_lists_the_names():
    completed = subprocess.run([sys.executable, "-m", "bench", "speed"], cwd=ROOT, capture_output=True, text=True)

    assert completed.returncode == 2
    assert "gates" in completed.stderr
