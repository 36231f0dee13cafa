"""`retune leaderboard` for a workspace, and what it prints."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from components.artifacts.tuning_result import Leaderboard
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


def printed(board: Leaderboard, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the blocks of the output: the table, the reasons, the notes."""
    command.show_leaderboard(board)
    return capsys.readouterr().out.split("\n\n")


def test_candidate_has_one_line_with_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(leaderboard(), capsys)[0].splitlines()

    assert lines[0].split()[:2] == ["#", "candidate"]
    assert [tuple(line.split(",")[0].split()[:2]) for line in lines[1:4]] == [("2", "full"), ("1", "lora"), ("0", "probe")]
    assert "0.548 (0.498–0.598)" in lines[2]


def test_reasons_below_the_table_name_the_candidate_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line.split(",")[0] for line in printed(leaderboard(), capsys)[1].splitlines()] == [
        "1 winner: 0.003 below the best",
        "3 stopped: macro_f1 0.310 is below the median after 200 steps",
        "4 failed: ran out of memory with a batch of 1",
        "5 skipped: needs 9 minutes",
    ]


def test_base_has_a_column_if_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    several = leaderboard(candidate(0, "probe", 0.5), candidate(1, "probe", 0.4, base="domain"))

    assert "base" not in printed(leaderboard(), capsys)[0].split()
    assert {"base", "domain"} < set(printed(several, capsys)[0].split())


def test_candidate_of_an_earlier_search_has_no_share(capsys: pytest.CaptureFixture[str]) -> None:
    table, reasons, *_ = printed(leaderboard(candidate(7, "full", 0.5, carried=True)), capsys)

    assert table.splitlines()[1].endswith("–")
    assert reasons == "7 carried over from an earlier search"


def test_plan_notes_and_optimism_are_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    below = printed(leaderboard(), capsys)[2]

    assert "3 complete, 1 stopped early, 1 failed, 1 skipped; macro_f1 on 86 validation rows" in below
    assert "First the probe" in below
    assert "full fine-tuning needs about 9 more minutes" in below
    assert "Optimism of the winner's validation score: +0.012" in below


def test_terminal_gets_a_table_with_the_winner_in_bold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=200, color_system="standard", highlight=False)
    monkeypatch.setattr(command, "out", console)
    monkeypatch.setattr("flows.cli.options.out", console)
    command.show_leaderboard(leaderboard(candidate(0, "probe [x]", 0.5, winner=True), candidate(1, "full", 0.4)))

    shown = capsys.readouterr().out
    assert "\x1b[1;32mprobe [x]" in shown
    assert "\x1b[1;32mfull" not in shown


def test_other_strategy_has_no_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    command.show_leaderboard(leaderboard().model_copy(update={"candidates": ()}))

    assert "tune.strategy is not auto" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("tickets", "--params", "params.yaml"), ("3", "--model", "tickets"), ("--environment", "staging")])
def test_options_that_would_be_ignored_are_refused(project: Path, arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["leaderboard", *arguments]).exit_code == 2


def test_lone_number_is_a_registered_version(project: Path) -> None:
    leaderboard().write(project / "models/tuned")

    with pytest.raises(NotFound, match="no run has been recorded here"):
        run("3")
