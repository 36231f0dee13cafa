"""Every task through the whole pipeline: from a table to a judged version that is served, on a tiny model."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml

from components.artifacts.metrics import Metrics
from components.artifacts.predictions import Predictions, answer_distance
from components.artifacts.validation import ValidationReport
from components.artifacts.verdict import Outcome
from components.core.hashing import digest_folder
from components.mlflow_store.registry import Version, predict, probe_server, verify
from components.model import tasks
from components.report import CARD, Run, write_card, write_report
from flows.pipeline.judge import judge
from flows.project.params import Params
from flows.project.workspace import Workspace
from tests.support import cases, pipeline
from tests.support.finished import LINEAGE
from tests.support.killed import train_with_a_kill
from tests.support.pipeline import Case
from tests.support.tiers import rest_exhaustive

pytestmark = pytest.mark.slow


class TaskRun(NamedTuple):
    """The pipeline of one task, run once for all tests of the task."""

    case: Case
    workspace: Workspace
    params: Params
    uri: str
    version: Version


KEPT = ("causal_lm", "token_classification")


@pytest.fixture(scope="module", params=rest_exhaustive(tasks.available(), *KEPT))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TaskRun:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "base").mkdir()
    case = cases.make(request.param, folder / "base")
    workspace, params = pipeline.open_line(folder / "project", case)
    pipeline.prepare(workspace, params)
    pipeline.learn(workspace, params)
    pipeline.assess(workspace, params)
    return TaskRun(case, workspace, params, *pipeline.enter(workspace, params))


def test_every_row_is_accounted_for(run: TaskRun) -> None:
    report = ValidationReport.read(run.workspace.root / "data/validated")

    assert report.rows_in == report.kept + report.quarantined == len(run.case.rows)
    assert report.kept > 0.8 * report.rows_in


def test_every_bad_row_is_quarantined_with_its_reason(run: TaskRun) -> None:
    report = ValidationReport.read(run.workspace.root / "data/validated")

    assert report.reasons == run.case.bad != {}
    assert report.quarantined == sum(run.case.bad.values())  # each was given one fault


def losses_of(workspace: Workspace) -> list[float]:
    history = [json.loads(text) for text in workspace.history.read_text(encoding="utf-8").splitlines()]
    return [one["loss"] for one in history if "loss" in one]


def assert_falling(losses: list[float]) -> None:
    assert len(losses) >= 8
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_loss_falls(run: TaskRun) -> None:
    assert_falling(losses_of(run.workspace))


def test_metrics_have_intervals_for_every_baseline(run: TaskRun) -> None:
    metrics, task = Metrics.read(run.workspace.root / "reports/evaluation"), run.params.made_task

    assert set(metrics.baselines) == set(task.baselines)
    assert set(task.test_metrics) <= set(metrics.headline)
    for scores in (metrics.headline, *metrics.baselines.values(), *metrics.differences.values()):
        assert all(score.low <= score.value <= score.high and np.isfinite(score.value) for score in scores.values())


def test_model_is_better_than_every_baseline(run: TaskRun) -> None:
    metrics, measure = Metrics.read(run.workspace.root / "reports/evaluation"), run.case.measure
    others = {name: scores[measure].value for name, scores in metrics.baselines.items()}

    assert metrics.headline[measure].value > max(others.values()) + run.case.margin, others


@pytest.mark.exhaustive
def test_registered_version_answers_as_evaluated(run: TaskRun) -> None:
    assert verify(run.uri, run.version.name, run.version.number).rows == min(10, len(pipeline.tested_rows(run.workspace)))


@pytest.mark.exhaustive
def test_scoring_server_answers_as_evaluated(run: TaskRun) -> None:
    rows, evaluated = pipeline.tested_rows(run.workspace), Predictions.read(run.workspace.predictions / "candidate.parquet")
    served = probe_server(run.uri, run.version.name, run.version.number, rows.head(12), example=run.params.made_task.example)

    assert served.fault is None
    assert served.refused == ()
    assert all(status is not None and 400 <= status < 500 for status in served.malformed.values()), served.malformed
    expected = dict(zip(evaluated.ids.tolist(), evaluated.predicted.tolist(), strict=True))
    assert max(answer_distance(one.label, expected[one.id]) for one in served.answers) < 1e-3


def test_gates_decide_and_the_server_answers_as_evaluated(run: TaskRun) -> None:
    verdict = judge(run.workspace, run.version).verdict

    (served,) = [result for result in verdict.gates if result.gate == "servability"]
    assert (served.outcome, served.n) == (Outcome.PASS, min(12, len(pipeline.tested_rows(run.workspace)))), served.reason
    (refused,) = [table for table in served.tables if table.title == "Malformed requests"]
    assert len(refused.rows) >= 5
    assert verdict.tested
    assert judge(run.workspace, run.version).fresh is False


def test_page_and_card_show_the_metrics(run: TaskRun) -> None:
    lineage = LINEAGE.model_copy(update={"model": run.params.name})
    known = Run(lineage, judge(run.workspace, run.version).verdict, "1", made_at=datetime(2026, 11, 22, tzinfo=UTC))
    params = yaml.safe_load(run.workspace.params.read_text(encoding="utf-8"))
    page = write_report(run.workspace.root, run.workspace.reports / "report.html", replace(known, params=params)).read_text(
        encoding="utf-8"
    )
    write_card(run.workspace.root, run.workspace.reports, known)

    card = (run.workspace.reports / CARD).read_text(encoding="utf-8")
    for name in run.params.made_task.test_metrics:
        assert name.replace("_", " ") in page.replace("_", " ")
        assert name.replace("_", " ") in card.replace("_", " ")
    for table in Metrics.read(run.workspace.root / "reports/evaluation").tables:
        assert escape(table.title) in page


@pytest.mark.exhaustive
def test_predict_answers_texts(run: TaskRun) -> None:
    task = run.params.made_task
    answers = predict(run.uri, f"{run.version.name}/{run.version.number}", pd.DataFrame([task.example] * 2))

    assert len(answers) == 2
    assert len(set(answers["label" if task.classes else "answer"])) == 1


METHODS = {"freeze": {"frozen_layers": 1}, "lora": {"lora_rank": 4, "lora_targets": "all-linear", "learning_rate": 1.0e-2}}


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ["lora", "freeze"])
def test_method_runs_the_pipeline(run: TaskRun, method: str, tmp_path: Path) -> None:
    workspace, params = pipeline.open_line(tmp_path / "project", run.case, method=method, **METHODS[method])
    for folder in ("data", "models/tuned"):  # the same for every method
        shutil.copytree(run.workspace.root / folder, workspace.root / folder)
    before = digest_folder(pipeline.learn(workspace, params))
    pipeline.assess(workspace, params)
    uri, version = pipeline.enter(workspace, params)

    assert_falling(losses_of(workspace))
    rows, evaluated = pipeline.tested_rows(workspace).head(4), Predictions.read(workspace.predictions / "candidate.parquet")
    served = probe_server(uri, version.name, version.number, rows, example=params.made_task.example)
    expected = dict(zip(evaluated.ids.tolist(), evaluated.predicted.tolist(), strict=True))
    assert served.fault is None
    assert max(answer_distance(one.label, expected[one.id]) for one in served.answers) < 1e-3
    check_a_killed_training(workspace, before)


@pytest.mark.exhaustive
def test_killed_training_resumes_to_the_same_weights(run: TaskRun) -> None:
    check_a_killed_training(run.workspace, digest_folder(run.workspace.model))


def check_a_killed_training(workspace: Workspace, expected: str) -> None:
    record = train_with_a_kill(workspace)

    assert 0 < record.resumed < record.steps
    assert digest_folder(workspace.model) == expected
