"""The output of `retune auto` after the run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.artifacts.verdict import Outcome
from flows.cli import app
from flows.pipeline.actions import Result
from tests.support.leaderboards import leaderboard
from tests.support.tickets import make_tickets


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose runs end with a verdict at once."""
    for folder in ("components", "flows", "models/tuned"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    make_tickets().to_csv(tmp_path / "tickets.csv", index=False)
    result = Result("tickets", 3, Outcome.PASS, "all gates pass", 3, True, False, Path("index.html"), "f" * 32)
    monkeypatch.setattr("flows.run.run_retrain", lambda workspace, inline: result)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run() -> str:
    result = CliRunner().invoke(app, ["auto", "tickets.csv"], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_verdict_comes_before_the_leaderboard(project: Path) -> None:
    leaderboard().write(project / "models/tuned")
    printed = run()

    assert printed.index("all gates pass") < printed.index("Report: ") < printed.index("lora, rank 16")


def test_damaged_leaderboard_hides_no_verdict(project: Path) -> None:
    (project / "models/tuned/leaderboard.json").write_text("{", encoding="utf-8")

    assert "all gates pass" in (printed := run())
    assert "the leaderboard of the search cannot be read" in printed
