"""Outcomes of scheduled runs are recorded in the ledger and notified without secrets."""

from pathlib import Path

import pytest

from components.core.errors import RetuneError, Unavailable
from components.ledger import Ledger
from flows.orchestrator.prefect_adapter import Mode
from flows.project.workspace import Workspace
from flows.schedule import run_outcome, scheduled_retrain
from tests.support.project import ROOT
from tests.support.webhook import Webhook, listening


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(Mode, "inline", True)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("name: diagnosis", "name: tickets")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "var").mkdir()
    return Workspace(tmp_path, tmp_path, tmp_path / "params.yaml", commit="c0ffee")


def test_failure_is_recorded_and_notified(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as webhook:
        monkeypatch.setenv("RETUNE_NOTIFY", webhook)
        run_outcome.record_failure(workspace, "the disk is full")

    (message,) = Webhook.requests
    assert (message["title"], "the disk is full" in message["message"]) == ("failed: tickets", True)
    assert "`retune status --all`" in message["message"]
    (record,) = Ledger(workspace.ledger).retrainings("tickets")
    assert (record.outcome, record.reason, record.version, record.git_commit) == ("failed", "the disk is full", None, "c0ffee")


def test_failure_is_notified_if_the_ledger_is_unreachable(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RETUNE_DATABASE", "postgresql+psycopg://u:hidden@127.0.0.1:9/d")
    with listening() as webhook:
        monkeypatch.setenv("RETUNE_NOTIFY", webhook)
        run_outcome.record_failure(workspace, "the database is gone")

    assert [message["title"] for message in Webhook.requests] == ["failed: tickets"]
    assert "could not record the failed run in the ledger" in caplog.text
    assert "hidden" not in caplog.text


def test_unreachable_mlflow_does_not_fail_the_outcome(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable(*_: object) -> None:
        raise Unavailable("MLflow is unreachable")

    monkeypatch.setattr(run_outcome, "champion_of", unreachable)
    outcome = run_outcome.record_outcome(workspace, "skipped", "no news")
    assert Ledger(workspace.ledger).retrainings("tickets") == [outcome]
    assert "its head could not be stored in MLflow; the next run will do it: MLflow is unreachable" in caplog.text


def test_invalid_settings_are_notified_by_folder_name(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.params.write_text("- a list\n", encoding="utf-8")
    with listening() as webhook:
        monkeypatch.setenv("RETUNE_NOTIFY", webhook)
        run_outcome.record_failure(workspace, "params.yaml is a list")

    assert [message["title"] for message in Webhook.requests] == [f"failed: {workspace.origin.name}"]


def test_link_leads_to_the_version_or_the_run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_MLFLOW_URI", "http://mlflow:5000")
    monkeypatch.setenv("RETUNE_PREFECT_API_URL", "http://prefect:4200/api")
    monkeypatch.setattr(Mode, "flow_run", "the-run")

    assert (
        run_outcome.details_link(workspace.project, run_outcome.outcome_of(workspace, "tickets", "PASS", "", 3))
        == "http://mlflow:5000/#/models/tickets/versions/3"
    )
    assert (
        run_outcome.details_link(workspace.project, run_outcome.outcome_of(workspace, "tickets", "failed", ""))
        == "http://prefect:4200/runs/flow-run/the-run"
    )


@pytest.mark.parametrize(("flow_run", "titles"), [("the-run", ["failed: tickets"]), (None, [])])
def test_missing_model_is_notified_in_a_flow_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow_run: str | None, titles: list[str]
) -> None:
    monkeypatch.setattr(Mode, "flow_run", flow_run)
    monkeypatch.setenv("RETUNE_PROJECT", str(ROOT))
    monkeypatch.chdir(tmp_path)
    with listening() as webhook:
        monkeypatch.setenv("RETUNE_NOTIFY", webhook)
        with pytest.raises(RetuneError, match="is not a checkout"):
            scheduled_retrain.retrain("tickets")

    assert [message["title"] for message in Webhook.requests] == titles
