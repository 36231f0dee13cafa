"""The progress of a search, shown while it runs."""

import io
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from components.artifacts.tuning_result import TuneProgress
from flows.cli import live_progress as display
from flows.cli.live_progress import SearchProgress, best, headline, live_progress, running

NOW: dict[str, Any] = {
    "metric": "macro_f1", "minutes": 15.0, "seconds_left": 452.0, "phase": "portfolio", "running": "lora, rank 16", "step": 120,
    "steps": 1_400, "tried": 3, "best_name": "probe", "best_score": 0.519,
}  # fmt: skip


def write(root: Path, age: float = 0.0, **changes: Any) -> None:
    folder = root / "var/progress/abc"
    folder.mkdir(parents=True, exist_ok=True)
    file = TuneProgress.model_validate(NOW | changes).write(folder)
    os.utime(file, (time.time() - age,) * 2)


def test_progress_in_words() -> None:
    progress = TuneProgress.model_validate(NOW)

    assert headline(progress) == "searching: 7:32 of 15:00 minutes left, portfolio"
    assert running(progress) == "running: lora, rank 16, step 120 of 1,400"
    assert best(progress) == "best so far: macro_f1 0.519, probe (3 tried)"


def test_progress_before_the_first_candidate() -> None:
    progress = TuneProgress(metric="macro_f1", minutes=15, seconds_left=900, phase="measuring")

    assert (running(progress), best(progress)) == ("running: –", "best so far: –")


def test_time_goes_on_between_two_records(tmp_path: Path) -> None:
    progress = SearchProgress(tmp_path)
    progress.started -= 100
    write(tmp_path, age=10)

    now = progress.read()
    assert now is not None
    assert now.seconds_left == pytest.approx(442, abs=3)


def test_record_of_an_earlier_run_is_ignored(tmp_path: Path) -> None:
    write(tmp_path, age=10)

    assert SearchProgress(tmp_path).read() is None


@pytest.mark.parametrize("content", [None, "", "{"])
def test_missing_or_partial_record_is_no_progress(tmp_path: Path, content: str | None) -> None:
    progress = SearchProgress(tmp_path)
    if content is not None:
        write(tmp_path)
        (tmp_path / "var/progress/abc/progress.json").write_text(content, encoding="utf-8")

    assert progress.read() is None


def test_ended_search_is_no_progress(tmp_path: Path) -> None:
    progress = SearchProgress(tmp_path)
    write(tmp_path, ended=True)

    assert progress.read() is None


def test_file_gets_a_line_per_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "SECONDS", 0.02)
    printed = io.StringIO()
    with live_progress(tmp_path, Console(file=printed, width=300)):
        for step in (1, 2, 3):
            write(tmp_path, age=-1, step=step)
            time.sleep(0.1)
        write(tmp_path, age=-1, tried=4)
        time.sleep(0.3)

    lines = printed.getvalue().splitlines()
    assert [("3 tried" in line, "4 tried" in line) for line in lines] == [(True, False), (False, True)]


def test_terminal_shows_a_display_and_removes_it(tmp_path: Path) -> None:
    printed = io.StringIO()
    write(tmp_path, age=-1)
    with live_progress(tmp_path, Console(file=printed, force_terminal=True, width=120)):
        time.sleep(0.7)

    assert "best so far: macro_f1 0.519, probe (3 tried)" in printed.getvalue()
    assert printed.getvalue().endswith("\x1b[2K")


def test_log_goes_back_to_its_stream(tmp_path: Path) -> None:
    handler = logging.StreamHandler(stream := io.StringIO())
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt), live_progress(tmp_path, Console(file=io.StringIO(), force_terminal=True)):
            raise KeyboardInterrupt
        assert handler.stream is stream
    finally:
        logging.getLogger().removeHandler(handler)
