"""`retune leaderboard` for a workspace, and what it prints."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from components.core.errors import NotFound
from flows.cli import app
from flows.cli import leaderboard as command
from tests.support.leaderboards import candidate, leaderboard


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("components", "flows", "models/tuned"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_text("name: tickets\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["leaderboard", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_workspace_is_the_default(project: Path) -> None:
    leaderboard().write(project / "models/tuned")

    assert json.loads(run("--json"))["metric"] == "macro_f1"


def test_search_that_did_not_run_is_named(project: Path) -> None:
    with pytest.raises(NotFound, match=r"leaderboard\.json is missing"):
        run()


def test_candidate_has_one_line_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    command.show_leaderboard(leaderboard())
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].split()[0] == "candidate"
    assert [line.split(",")[0].split("  ")[0] for line in lines[1:4]] == ["full", "lora", "probe"]
    assert "0.548 (0.498–0.598)" in lines[2]
    assert "winner: 0.003 below the best" in lines[2]
    assert "stopped: macro_f1 0.310 is below the median" in lines[4]
    assert "failed: ran out of memory" in lines[5]
    assert "skipped: needs 9 minutes" in lines[6]


def test_plan_notes_and_optimism_are_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    command.show_leaderboard(leaderboard())
    below = capsys.readouterr().out.split("\n\n")[1]

    assert "3 complete, 1 stopped early, 1 failed, 1 skipped; macro_f1 on 86 validation rows" in below
    assert "First the probe" in below
    assert "full fine-tuning needs about 9 more minutes" in below
    assert "Optimism of the winner's validation score: +0.012" in below


def test_terminal_gets_a_table_with_the_winner_in_bold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=200, color_system="standard", highlight=False)
    monkeypatch.setattr(command, "out", console)
    monkeypatch.setattr("flows.cli.options.out", console)
    command.show_leaderboard(leaderboard(candidate(0, "probe [x]", 0.5, winner=True), candidate(1, "full", 0.4)))

    printed = capsys.readouterr().out
    assert "\x1b[1;32mprobe [x]" in printed
    assert "\x1b[1;32mfull" not in printed


def test_other_strategy_has_no_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    command.show_leaderboard(leaderboard().model_copy(update={"candidates": ()}))

    assert "tune.strategy is not auto" in capsys.readouterr().out


def test_name_and_params_exclude_each_other(project: Path) -> None:
    assert CliRunner().invoke(app, ["leaderboard", "tickets", "--params", "params.yaml"]).exit_code == 2
