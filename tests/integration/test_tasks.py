"""Every task through the whole pipeline: from a table to a judged version that is served, on a tiny model."""

import json
import shutil
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
from components.report import CARD, write_card, write_report
from flows.pipeline.judge import judge
from flows.project.params import Params
from flows.project.workspace import Workspace
from tests.support import cases, pipeline
from tests.support.finished import LINEAGE
from tests.support.killed import train_with_a_kill
from tests.support.pipeline import Case

pytestmark = pytest.mark.slow


class Line(NamedTuple):
    """One task's line, run once for all tests of the task."""

    case: Case
    place: Workspace
    params: Params
    uri: str
    version: Version


@pytest.fixture(scope="module", params=tasks.available())
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "base").mkdir()
    case = cases.make(request.param, folder / "base")
    place, params = pipeline.open_line(folder / "project", case)
    pipeline.prepare(place, params)
    pipeline.learn(place, params)
    pipeline.assess(place, params)
    return Line(case, place, params, *pipeline.enter(place, params))


def test_every_row_is_accounted_for(run: Line) -> None:
    report = ValidationReport.read(run.place.root / "data/validated")

    assert report.rows_in == report.kept + report.quarantined == len(run.case.rows)
    assert report.kept > 0.8 * report.rows_in


def test_every_bad_row_is_quarantined_with_its_reason(run: Line) -> None:
    report = ValidationReport.read(run.place.root / "data/validated")

    assert report.reasons == run.case.bad != {}
    assert report.quarantined == sum(run.case.bad.values())  # each was given one fault


def losses_of(place: Workspace) -> list[float]:
    history = [json.loads(text) for text in place.history.read_text(encoding="utf-8").splitlines()]
    return [one["loss"] for one in history if "loss" in one]


def assert_falling(losses: list[float]) -> None:
    assert len(losses) >= 8
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_the_loss_falls(run: Line) -> None:
    assert_falling(losses_of(run.place))


def test_every_measure_has_an_interval_beside_every_baseline(run: Line) -> None:
    metrics, task = Metrics.read(run.place.root / "reports/evaluation"), run.params.made_task

    assert set(metrics.baselines) == set(task.baselines)
    assert set(task.test_metrics) <= set(metrics.headline)
    for found in (metrics.headline, *metrics.baselines.values(), *metrics.differences.values()):
        assert all(one.low <= one.value <= one.high and np.isfinite(one.value) for one in found.values())


def test_model_learnt_what_no_baseline_can(run: Line) -> None:
    metrics, measure = Metrics.read(run.place.root / "reports/evaluation"), run.case.measure
    others = {name: found[measure].value for name, found in metrics.baselines.items()}

    assert metrics.headline[measure].value > max(others.values()) + run.case.margin, others


@pytest.mark.exhaustive
def test_the_registered_version_answers_as_it_was_evaluated(run: Line) -> None:
    assert verify(run.uri, run.version.name, run.version.number).rows == min(10, len(pipeline.tested_rows(run.place)))


@pytest.mark.exhaustive
def test_the_scoring_server_is_asked_without_a_gate(run: Line) -> None:
    rows, evaluated = pipeline.tested_rows(run.place), Predictions.read(run.place.predictions / "candidate.parquet")
    served = probe_server(run.uri, run.version.name, run.version.number, rows.head(12), example=run.params.made_task.example)

    assert served.fault is None
    assert served.refused == ()
    assert all(status is not None and 400 <= status < 500 for status in served.malformed.values()), served.malformed
    expected = dict(zip(evaluated.ids.tolist(), evaluated.predicted.tolist(), strict=True))
    assert max(answer_distance(one.label, expected[one.id]) for one in served.answers) < 1e-3


def test_gates_decide_and_the_server_answers_as_evaluated(run: Line) -> None:
    found = judge(run.place, run.uri, run.version).verdict

    (served,) = [one for one in found.gates if one.gate == "servability"]
    assert (served.outcome, served.n) == (Outcome.PASS, min(12, len(pipeline.tested_rows(run.place)))), served.reason
    (refused,) = [table for table in served.tables if table.title == "Malformed requests"]
    assert len(refused.rows) >= 5
    assert found.tested
    assert judge(run.place, run.uri, run.version).fresh is False


def test_page_and_card_show_what_was_measured(run: Line) -> None:
    known = {
        "lineage": LINEAGE.model_copy(update={"model": run.params.name}),
        "verdict": judge(run.place, run.uri, run.version).verdict,
        "version": "1",
        "champion": None,
        "made_at": datetime(2026, 11, 22, tzinfo=UTC),
    }
    params = yaml.safe_load(run.place.params.read_text(encoding="utf-8"))
    page = write_report(run.place.root, run.place.reports / "report.html", seconds={}, params=params, **known).read_text(encoding="utf-8")
    write_card(run.place.root, run.place.reports, **known)

    card = (run.place.reports / CARD).read_text(encoding="utf-8")
    for name in run.params.made_task.test_metrics:
        assert name.replace("_", " ") in page.replace("_", " ")
        assert name.replace("_", " ") in card.replace("_", " ")
    for table in Metrics.read(run.place.root / "reports/evaluation").tables:
        assert escape(table.title) in page


@pytest.mark.exhaustive
def test_predict_answers_texts(run: Line) -> None:
    task = run.params.made_task
    answers = predict(run.uri, f"{run.version.name}/{run.version.number}", pd.DataFrame([task.example] * 2))

    assert len(answers) == 2
    assert len(set(answers["label" if task.classes else "answer"])) == 1


METHODS = {"freeze": {"frozen_layers": 1}, "lora": {"lora_rank": 4, "lora_targets": "all-linear", "learning_rate": 1.0e-2}}


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ["lora", pytest.param("freeze", marks=pytest.mark.exhaustive)])
def test_method_runs_the_pipeline(run: Line, method: str, tmp_path: Path) -> None:
    place, params = pipeline.open_line(tmp_path / "project", run.case, method=method, **METHODS[method])
    for folder in ("data", "models/tuned"):  # what no method changes
        shutil.copytree(run.place.root / folder, place.root / folder)
    before = digest_folder(pipeline.learn(place, params))
    pipeline.assess(place, params)
    uri, version = pipeline.enter(place, params)

    assert_falling(losses_of(place))
    rows, evaluated = pipeline.tested_rows(place).head(4), Predictions.read(place.predictions / "candidate.parquet")
    served = probe_server(uri, version.name, version.number, rows, example=params.made_task.example)
    expected = dict(zip(evaluated.ids.tolist(), evaluated.predicted.tolist(), strict=True))
    assert served.fault is None
    assert max(answer_distance(one.label, expected[one.id]) for one in served.answers) < 1e-3
    check_a_killed_training(place, before)


def test_killed_training_resumes_to_the_same_weights(run: Line) -> None:
    check_a_killed_training(run.place, digest_folder(run.place.model))


def check_a_killed_training(place: Workspace, expected: str) -> None:
    record = train_with_a_kill(place)

    assert 0 < record.resumed < record.steps
    assert digest_folder(place.model) == expected
