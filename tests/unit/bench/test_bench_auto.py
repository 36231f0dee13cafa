"""The figures and answers of the bench of automatic fine-tuning."""

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy
import yaml

from bench import _report
from bench._output import refuse_mixed
from bench._problem import Answers, Clock, Problem, best_on_validation, read_answers, targets, to_answers, write_answers
from bench.auto import SETTINGS, curve, failure, finish, refuse_other_code, unfinished, write_project
from components.artifacts.tuning_result import Candidate, Leaderboard
from flows.project.params import read_params
from tests.support.tickets import make_tickets


def problem(**changes: Any) -> Problem:
    rows = make_tickets()
    rows["split"] = np.repeat(["train", "validation", "test"], [120, 60, 60])
    values: dict[str, Any] = {"task": "text_classification", "options": {}, "metric": "macro_f1", "max_length": 16, "base": "base"}
    return Problem(**values | {"minutes": 1.0, "seed": 0, "rows": rows} | changes)


def answers(right: int) -> Answers:
    """Return answers of which the first `right` of 60 are correct."""
    truth = problem().part("test")["label"].tolist()
    wrong = {label: other for label, other in zip(sorted(set(truth)), sorted(set(truth))[1:] + sorted(set(truth))[:1], strict=True)}
    return Answers([label if at < right else wrong[label] for at, label in enumerate(truth)])


def test_problem_survives_the_disk(tmp_path: Path) -> None:
    problem().write(tmp_path)
    assert Problem.read(tmp_path).rows.equals(problem().rows)
    assert Problem.read(tmp_path).labels == ("billing", "device", "network")


def test_score_is_that_of_evaluation() -> None:
    assert problem(metric="accuracy").score("test", answers(45)) == pytest.approx(0.75)
    assert problem().score("test", answers(60)) == 1.0


def test_missing_answers_are_an_error() -> None:
    with pytest.raises(ValueError, match="1 answers for 60 rows of test"):
        problem().score("test", Answers(["billing"]))


def test_best_on_validation_answers_the_test() -> None:
    truth = problem().part("validation")["label"].tolist()
    candidates = [lambda split, own=own: Answers(own) for own in (["billing"] * 60, truth, ["device"] * 60)]
    assert best_on_validation(problem(), Clock(1.0), candidates)["test"].predicted == truth


def test_first_candidate_is_tried_after_the_deadline() -> None:
    candidates = [lambda split, own=own: Answers([own] * 60) for own in ("billing", "device")]
    assert best_on_validation(problem(), Clock(0.0), candidates)["test"].predicted == ["billing"] * 60


@pytest.mark.parametrize(
    ("kind", "labels", "cells", "outputs"),
    [
        ("single", ("a", "b"), ["b", "a"], [[0.1, 0.9], [2.0, -1.0]]),
        ("multi", ("a", "b"), ['["a", "b"]', "[]"], [[1.0, 2.0], [-1.0, -0.1]]),
        ("regression", (), ["1.5", "-2.0"], [[1.5], [-2.0]]),
    ],
)
def test_outputs_become_answers_of_the_task(kind: str, labels: tuple[str, ...], cells: list[str], outputs: list[list[float]]) -> None:
    assert to_answers(kind, labels, outputs) == cells
    assert len(targets(kind, labels, cells)) == 2


def test_clock_stops_before_the_test_rows() -> None:
    clock, seen = Clock(1.0), []

    def candidate(split: str) -> Answers:
        seen.append((split, clock.seconds()))
        return Answers(["billing"] * 60)

    best_on_validation(problem(), clock, [candidate])
    assert [split for split, _ in seen] == ["validation", "test"]
    assert clock.seconds() == seen[1][1]


def result(file: Path, side: str, right: int, seed: int = 0, **more: Any) -> dict[str, Any]:
    """Write the answers of a side, and return its row."""
    folder = _report.answers_of(file, "tickets", seed)
    problem().write(folder)
    write_answers({"validation": answers(right), "test": answers(right)}, folder / f"{side}.json")
    score = problem().score("test", answers(right))
    common = {"dataset": "tickets", "seed": seed, "metric": "macro_f1", "minutes": 1.0, "reason": ""}
    return common | {"side": side, "seconds": 70.0, "search_seconds": 60.0, "validation": score, "test": score} | more


FAILURE = {"test": None, "validation": None, "reason": "failed: no disk"}


def test_best_other_side_is_compared(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, "tfidf", 20), result(file, "probe", 40), result(file, "auto", 59, curve=[[5.0, 0.1], [15.0, 0.99]])]
    found = _report.figures(rows, file)
    own = found["sets"]["tickets"]
    assert own["best_other"] == "probe"
    assert own["difference"]["low"] > 0
    assert own["share_of_its_time"] == 0.25
    assert (found["all"]["better"], found["all"]["worse"], found["all"]["within_a_third"]) == (1, 0, 1)
    assert "| tickets | macro_f1 | 1 | 0.983 | probe | 0.665 |" in _report.tables(found)


def test_side_without_answers_is_listed(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, "auto", 59), result(file, "setfit", 1, **FAILURE)]
    table = _report.tables(_report.figures(rows, file))
    assert "| data set | auto | setfit |\n|---|---|---|\n| tickets | 0.983 (70 s) | failed |" in table
    assert "tickets, setfit, seed 0: failed: no disk" in table


def test_failed_search_counts_as_worse(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, "auto", 1, **FAILURE), result(file, "probe", 40)]
    found = _report.figures(rows, file)
    assert found["sets"]["tickets"]["verdict"] == "worse"
    assert (found["all"]["sets"], found["all"]["worse"], found["all"]["failed"]) == (1, 1, 1)
    assert "| tickets | macro_f1 | 1 (auto failed on 1) | – | – | – | – | – | worse |" in _report.tables(found)
    assert "| tickets | failed | 0.665 (70 s) |" in _report.tables(found)


def test_reason_is_the_error_of_the_stage(tmp_path: Path) -> None:
    (tmp_path / "auto.log").write_text("error: tune.minutes are too few\nERROR: failed to reproduce 'tune'\n", encoding="utf-8")
    (tmp_path / "probe.log").write_text("Traceback\nKeyError: 3\n", encoding="utf-8")
    assert failure(tmp_path, "auto") == "failed: error: tune.minutes are too few"
    assert failure(tmp_path, "probe") == "failed: KeyError: 3"


def test_one_failed_seed_outweighs_a_better_one(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, "auto", 59), result(file, "probe", 20), result(file, "auto", 1, 1, **FAILURE), result(file, "probe", 20, 1)]
    own = _report.figures(rows, file)["sets"]["tickets"]
    assert own["difference"]["low"] > 0
    assert own["verdict"] == "worse"


def test_means_are_over_seeds_that_all_have(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, side, right + seed, seed) for side, right in (("auto", 50), ("probe", 40), ("tfidf", 30)) for seed in (0, 1)]
    own = _report.figures(rows[:-1], file)["sets"]["tickets"]  # tfidf has no second seed
    assert own["seeds"] == [0]
    assert own["scores"] == {row["side"]: round(row["test"], 4) for row in rows if row["seed"] == 0}


def test_only_killed_searches_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, "auto", 50), result(file, "auto_killed", 50, killed=True), result(file, "auto_killed", 50, 1, killed=False)]
    assert "auto_killed: 1 of 2 searches were killed" in _report.tables(_report.figures(rows, file))


def test_search_time_is_compared_not_process_time(tmp_path: Path) -> None:
    rows = [result(tmp_path / "rows.jsonl", side, 40, curve=[[15.0, 0.99]]) for side in ("auto", "probe")]
    assert _report.share_of_time(rows[0], rows[1]) == 0.25
    assert _report.share_of_time(rows[0], rows[1] | {"search_seconds": 30.0, "seconds": 300.0}) == 0.5


def test_kill_after_the_limit_is_seen(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        assert finish([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 0.1, log) == -signal.SIGKILL
        assert finish([sys.executable, "-c", ""], tmp_path, 60, log) == 0


class Later(Candidate):
    """A candidate with its score on the usual validation rows."""

    first_score: float | None = None


def test_curve_has_scores_of_complete_candidates() -> None:
    common = {"base": "b", "method": "full", "settings": {}, "task_options": {}, "reason": "", "low": None, "high": None}
    common |= {"holdouts": 1, "seconds": 1.0, "share": 0.1}
    candidates = (
        Later(number=0, name="a", state="complete", score=0.8, first_score=0.7, ended_at=9.0, **common),
        Later(number=1, name="b", state="complete", score=0.6, ended_at=5.0, **common),
        Later(number=2, name="c", state="stopped", score=0.9, ended_at=2.0, **common),
    )
    board = Leaderboard(metric="macro_f1", minutes=1.0, seconds=9.0, validation_rows=9, candidates=candidates)
    assert curve(board) == [(5.0, 0.6), (9.0, 0.7)]


def test_failed_sides_run_again_on_demand() -> None:
    reasons = {"tfidf": "", "probe": "failed: no disk", "optuna": "does not apply"}
    rows = [{"dataset": "bbc", "seed": 0, "side": side, "reason": reason} for side, reason in reasons.items()]
    sides = [*reasons, "auto"]
    assert unfinished(rows, "bbc", 0, sides, again=False) == ["auto"]
    assert unfinished(rows, "bbc", 0, sides, again=True) == ["probe", "auto"]
    assert unfinished(rows, "bbc", 1, sides, again=False) == sides


def test_rows_of_other_settings_are_refused() -> None:
    row = {"minutes": 3.0, "base": "b"}
    refuse_mixed([row, row | {"seed": 1}], SETTINGS, Path("a.jsonl"))
    for name, value in (("minutes", 5.0), ("base", "other")):
        with pytest.raises(SystemExit, match=f"a.jsonl: rows with different {name} cannot be compared"):
            refuse_mixed([row, row | {name: value}], SETTINGS, Path("a.jsonl"))


def test_rows_of_other_code_are_refused_unless_they_are_of_the_other_kind() -> None:
    rows = [{"side": "tfidf", "code": "old"}, {"side": "auto", "code": "new"}]
    refuse_other_code(rows, Path("a.jsonl"))
    for side in ("probe", "auto_again"):
        with pytest.raises(SystemExit, match=r"a\.jsonl: rows with different code cannot be compared"):
            refuse_other_code([*rows, {"side": side, "code": "other"}], Path("a.jsonl"))


def test_repeated_search_is_not_an_alternative(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, side, 50, order=["a", "b"]) for side in ("auto", "auto_again")]
    own = _report.figures(rows, file)["sets"]["tickets"]
    assert own["same_order"]
    assert "best_other" not in own


def test_time_to_a_score_is_the_first() -> None:
    assert _report.seconds_to([[9.0, 0.9], [3.0, 0.5], [6.0, 0.8]], 0.8) == 6.0
    assert _report.seconds_to([[3.0, 0.5]], 0.8) is None


def difference(value: float, half: float = 0.1, n: int = 10_000) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "n": n}


def test_interval_of_one_seed_is_that_of_its_rows() -> None:
    assert _report.combined([difference(0.1)]) == {"value": 0.1, "low": 0.0, "high": 0.2}


def test_equal_seeds_keep_the_interval_of_the_rows() -> None:
    assert _report.combined([difference(0.1), difference(0.1), difference(0.1)]) == {"value": 0.1, "low": 0.0, "high": 0.2}


def test_variance_between_seeds_widens_the_interval() -> None:
    found = _report.combined([difference(value) for value in (0.0, 0.1, 0.2)])
    assert found["value"] == 0.1
    assert found["low"] < 0.0


def test_without_noise_of_rows_the_t_interval_remains() -> None:
    values = [0.05, 0.1, 0.18]
    expected = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    found = _report.combined([difference(value, half=0.0) for value in values])
    assert (found["low"], found["high"]) == pytest.approx(expected, abs=1e-4)


def test_optimism_has_an_interval_over_data_sets() -> None:
    sets = {str(value): {"optimism": value, "budget": [1.0], "failed": [], "verdict": "better"} for value in (0.01, 0.03)}
    mean, low, high = _report.over_sets(sets)["optimism"]
    assert mean == pytest.approx(0.02)
    assert low < 0 < high


@pytest.mark.parametrize("side", ["auto", "search"])
def test_written_project_has_valid_settings(side: str, tmp_path: Path) -> None:
    write_project(problem(), tmp_path, side, "package:a/b")
    assert read_params(tmp_path / "params.yaml").tune.strategy == side
    assert yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))["tune"]["minutes"] == 1.0
    assert list(pd.read_parquet(tmp_path / "rows.parquet").columns) == ["id", "group", "text", "label", "split"]


def test_answers_survive_the_disk(tmp_path: Path) -> None:
    write_answers({"validation": Answers(["a"]), "test": Answers(["b"], {"rank": [0.5]})}, tmp_path / "a.json", seconds=3)
    found, more = read_answers(tmp_path / "a.json")
    assert (found["test"].measured, more) == ({"rank": [0.5]}, {"seconds": 3})
