"""`retune auto` from a data file to a verdict, killed within the search and repeated."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from components.artifacts.tuning_result import Leaderboard, TuneProgress
from tests.support.project import BIN, environment, make_project, retune, wait_for, write_params

pytestmark = pytest.mark.slow

MINUTES = 0.3
COMMAND = ("auto", "tickets.csv", "--minutes", str(MINUTES))


def progress(folder: Path) -> TuneProgress | None:
    return next(filter(None, map(TuneProgress.find, folder.glob("var/progress/*"))), None)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> tuple[Path, TuneProgress]:
    """A project whose `retune auto` was killed after two candidates, and the progress at that time."""
    folder = make_project(tmp_path_factory.mktemp("auto") / "project", tiny_base, tickets)
    params: dict[str, Any] = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["train"] = {"precision": "float32", "threads": 1}
    write_params(folder, params | {"tune": {"strategy": "auto", "minutes": 7}})
    with subprocess.Popen(
        [str(BIN / "retune"), *COMMAND], cwd=folder, env=environment(folder, forks=True), stdout=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: (now := progress(folder)) is not None and now.tried >= 2)
        process.send_signal(signal.SIGKILL)
    time.sleep(1.5)  # the kernel ends the stage, which wrote every second
    before = progress(folder)
    assert before is not None
    assert not before.ended
    return folder, before


@pytest.fixture(scope="module")
def repeated(killed: tuple[Path, TuneProgress]) -> subprocess.CompletedProcess[str]:
    """The output of the same command after the kill."""
    done = retune(killed[0], *COMMAND)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_minutes_replace_those_of_the_file(killed: tuple[Path, TuneProgress]) -> None:
    assert yaml.safe_load((killed[0] / "params.yaml").read_text(encoding="utf-8"))["tune"]["minutes"] == MINUTES


def test_repeated_command_continues_with_the_same_budget(
    killed: tuple[Path, TuneProgress], repeated: subprocess.CompletedProcess[str]
) -> None:
    folder, before = killed
    board = Leaderboard.read(folder / "models/tuned")

    assert board.seconds >= MINUTES * 60 - before.seconds_left
    trained = [entry for entry in board.candidates if entry.state != "skipped" and entry.method != "weight average"]
    assert max(entry.ended_at - entry.seconds for entry in trained) <= MINUTES * 60  # none starts after the end
    assert min(entry.ended_at for entry in board.candidates) < MINUTES * 60 - before.seconds_left


def test_progress_leaderboard_and_verdict_are_printed(repeated: subprocess.CompletedProcess[str]) -> None:
    order = ["uses ", "searching: ", "best so far: macro_f1", "tickets version 1", "Report: ", "candidate ", "winner", "Optimism of"]

    places = [repeated.stdout.find(words) for words in order]
    assert -1 not in places, dict(zip(order, places, strict=True))
    assert places == sorted(places)


def test_page_shows_the_leaderboard(killed: tuple[Path, TuneProgress], repeated: subprocess.CompletedProcess[str]) -> None:
    page = (killed[0] / "reports/index.html").read_text(encoding="utf-8")

    assert all(entry.name in page for entry in Leaderboard.read(killed[0] / "models/tuned").candidates[:10])
    assert "Best macro-F1 on the validation split over time" in page


def test_version_has_the_leaderboard_of_its_search(killed: tuple[Path, TuneProgress], repeated: subprocess.CompletedProcess[str]) -> None:
    of_version = retune(killed[0], "leaderboard", "tickets", "1", "--json")
    of_number = retune(killed[0], "leaderboard", "1", "--json")
    of_workspace = retune(killed[0], "leaderboard", "--json")

    assert of_version.returncode == 0, of_version.stderr
    assert json.loads(of_version.stdout) == json.loads(of_number.stdout) == json.loads(of_workspace.stdout)


def test_finished_search_is_up_to_date(killed: tuple[Path, TuneProgress], repeated: subprocess.CompletedProcess[str]) -> None:
    folder, _ = killed
    written = (folder / "models/tuned/leaderboard.json").stat().st_mtime_ns
    again = retune(folder, *COMMAND, "--json")

    assert json.loads(again.stdout)["result"]["up_to_date"], again.stdout + again.stderr
    assert (folder / "models/tuned/leaderboard.json").stat().st_mtime_ns == written


def test_other_data_needs_force(killed: tuple[Path, TuneProgress], tickets: pd.DataFrame) -> None:
    folder, _ = killed
    tickets.to_csv(folder / "mails.csv", index=False)
    refused = retune(folder, "auto", "mails.csv", "--params", "params.yaml")

    assert refused.returncode == 2
    assert "has another snapshot.source than mails.csv" in refused.stderr
