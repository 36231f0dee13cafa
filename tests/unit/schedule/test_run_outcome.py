"""However a scheduled run fails, people are told, and no more than they should be; the ledger keeps it where it can be reached."""

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


def test_a_failure_is_written_down_and_told(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as webhook:
        monkeypatch.setenv("RETUNE_NOTIFY", webhook)
        run_outcome.record_failure(workspace, "the disk is full")

    (said,) = Webhook.told
    assert (said["title"], "the disk is full" in said["message"]) == ("failed: tickets", True)
    assert "`retune status --all`" in said["message"]
    (kept,) = Ledger(workspace.ledger).retrainings("tickets")
    assert (kept.outcome, kept.reason, kept.version, kept.git_commit) == ("failed", "the disk is full", None, "c0ffee")


def test_people_are_told_also_where_the_ledger_is_out_of_reach(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RETUNE_DATABASE", "postgresql+psycopg://u:hidden@127.0.0.1:9/d")
    with listening() as webhook:
        monkeypatch.setenv("RETUNE_NOTIFY", webhook)
        run_outcome.record_failure(workspace, "the database is gone")

    assert [one["title"] for one in Webhook.told] == ["failed: tickets"]
    assert "could not record the failed run in the ledger" in caplog.text
    assert "hidden" not in caplog.text


def test_a_run_does_not_fail_where_mlflow_is_gone_at_its_end(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object) -> None:
        raise Unavailable("MLflow is out of reach")

    monkeypatch.setattr(run_outcome, "champion_of", gone)
    ended = run_outcome.record_outcome(workspace, "skipped", "no news")
    assert Ledger(workspace.ledger).retrainings("tickets") == [ended]
    assert "whose head MLflow does not keep yet; the next run does it: MLflow is out of reach" in caplog.text


def test_settings_that_cannot_be_read_are_told_by_the_folder(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.params.write_text("- a list\n", encoding="utf-8")
    with listening() as webhook:
        monkeypatch.setenv("RETUNE_NOTIFY", webhook)
        run_outcome.record_failure(workspace, "params.yaml is a list")

    assert [one["title"] for one in Webhook.told] == [f"failed: {workspace.origin.name}"]


def test_a_link_leads_to_the_version_or_to_the_run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_MLFLOW_URI", "http://mlflow:5000")
    monkeypatch.setenv("RETUNE_PREFECT_API_URL", "http://prefect:4200/api")
    monkeypatch.setattr(Mode, "flow_run", "the-run")

    assert (
        run_outcome.where(workspace.project, run_outcome.outcome_of(workspace, "tickets", "PASS", "", 3))
        == "http://mlflow:5000/#/models/tickets/versions/3"
    )
    assert (
        run_outcome.where(workspace.project, run_outcome.outcome_of(workspace, "tickets", "failed", ""))
        == "http://prefect:4200/runs/flow-run/the-run"
    )


@pytest.mark.parametrize(("flow_run", "titles"), [("the-run", ["failed: tickets"]), (None, [])])
def test_a_run_that_finds_no_model_is_told_where_nobody_reads_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow_run: str | None, titles: list[str]
) -> None:
    monkeypatch.setattr(Mode, "flow_run", flow_run)
    monkeypatch.setenv("RETUNE_PROJECT", str(ROOT))
    monkeypatch.chdir(tmp_path)
    with listening() as webhook:
        monkeypatch.setenv("RETUNE_NOTIFY", webhook)
        with pytest.raises(RetuneError, match="is no checkout"):
            scheduled_retrain.retrain("tickets")

    assert [one["title"] for one in Webhook.told] == titles
