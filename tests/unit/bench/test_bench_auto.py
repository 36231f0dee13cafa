"""The figures and answers of the bench of automatic fine-tuning."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bench import _report
from bench._problem import Answers, Problem, best_on_validation, read_answers, targets, to_answers, write_answers
from bench.auto import write_project
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
    assert best_on_validation(problem(), float("inf"), candidates)["test"].predicted == truth


def test_first_candidate_is_tried_after_the_deadline() -> None:
    candidates = [lambda split, own=own: Answers([own] * 60) for own in ("billing", "device")]
    assert best_on_validation(problem(), 0.0, candidates)["test"].predicted == ["billing"] * 60


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


def result(file: Path, side: str, right: int, **more: Any) -> dict[str, Any]:
    """Write the answers of a side, and return its row."""
    folder = _report.answers_of(file, "tickets", 0)
    problem().write(folder)
    write_answers({"validation": answers(right), "test": answers(right)}, folder / f"{side}.json")
    score = problem().score("test", answers(right))
    common = {"dataset": "tickets", "seed": 0, "metric": "macro_f1", "minutes": 1.0, "reason": ""}
    return common | {"side": side, "seconds": 60.0, "validation": score, "test": score} | more


def test_best_other_side_is_compared(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, "tfidf", 20), result(file, "probe", 40), result(file, "auto", 59, curve=[[5.0, 0.1], [15.0, 0.99]])]
    found = _report.figures(rows, file)
    own = found["sets"]["tickets"]
    assert own["best_other"] == "probe"
    assert own["difference"]["low"] > 0
    assert own["share_of_its_time"] == 0.25
    assert (found["all"]["better"], found["all"]["worse"], found["all"]["within_a_third"]) == (1, 0, 1)
    assert "| tickets | macro_f1 | 0.983 | probe |" in _report.tables(found)


def test_side_without_answers_is_listed(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, "auto", 59), result(file, "setfit", 1, test=None, validation=None, reason="failed: no disk")]
    assert _report.figures(rows, file)["sets"]["tickets"]["not_answered"] == {"setfit": "failed: no disk"}


def test_repeated_search_is_not_an_alternative(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [result(file, side, 50, order=["a", "b"]) for side in ("auto", "auto_again")]
    own = _report.figures(rows, file)["sets"]["tickets"]
    assert own["same_order"]
    assert "best_other" not in own


def test_time_to_a_score_is_the_first() -> None:
    assert _report.seconds_to([[9.0, 0.9], [3.0, 0.5], [6.0, 0.8]], 0.8) == 6.0
    assert _report.seconds_to([[3.0, 0.5]], 0.8) is None


def test_intervals_of_seeds_are_averaged() -> None:
    pairs = [{"value": 0.1, "low": 0.0, "high": 0.2}, {"value": 0.3, "low": 0.2, "high": 0.4}]
    assert _report.combined(pairs) == {"value": 0.2, "low": 0.1, "high": 0.3}


def test_optimism_has_an_interval_over_data_sets() -> None:
    sets = {str(value): {"optimism": value, "budget": [1.0]} for value in (0.01, 0.03)}
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
