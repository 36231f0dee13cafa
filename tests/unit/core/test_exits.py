"""Every command ends with one message and an exit code; unexpected errors leave a private trace file."""

import errno
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core import exits
from components.core.errors import BadInput, BadParams, Cancelled, RetuneError, Unavailable
from components.core.exits import run_command
from flows.cli import _application_options_first
from tests.support.project import started

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["retune"])
    monkeypatch.delenv(exits.DEBUG, raising=False)


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(("error", "code"), [(RetuneError("no"), 1), (BadParams("no"), 2), (Unavailable("no"), 75), (Cancelled("no"), 130)])
def test_known_error_prints_its_message(error: RetuneError | Cancelled, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(failing(error)) == code
    assert capsys.readouterr().err == "error: no\n"


def test_cancellation_is_not_handled_as_an_error() -> None:
    def command() -> None:
        try:
            raise Cancelled("ended by SIGTERM")  # as the signal handler does, at any point
        except Exception as error:
            raise BadParams("this step failed") from error

    assert run_command(command) == Cancelled.exit_code == 130


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (errno.ENOSPC, 75, "some/file: the disk is full; free some space, then run again"),
        (errno.EROFS, 1, "some/file: the file system is read-only"),
        (errno.EACCES, 1, "some/file: permission denied"),
        (errno.ENAMETOOLONG, 2, "some/file: the name is too long"),
        (errno.ELOOP, 2, "some/file: its symbolic links form a loop"),
        (errno.EISDIR, 2, "some/file: it is a folder, expected a file"),
    ],
)
def test_system_error_names_the_file(number: int, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(failing(OSError(number, os.strerror(number), "some/file"))) == code
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), KeyError("x"), RecursionError(), OSError(errno.EBADF, "bad"), AssertionError("\x1b[2J")]
)
def test_unexpected_error_is_one_line_with_a_trace_file(error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "components").mkdir()

    assert run_command(failing(error)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = (tmp_path / "var/log").iterdir()
    assert line.startswith(f"error: unexpected {type(error).__name__}: ")
    assert line.endswith(f"(trace: {log})")
    assert "\x1b" not in line
    assert "Traceback (most recent call last)" in log.read_text(encoding="utf-8")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_deleted_working_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "deleted"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()

    assert run_command(Path.cwd) == 2  # type: ignore[arg-type]
    assert capsys.readouterr().err == "error: the working folder no longer exists; change to another one\n"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert exits.write_trace(ValueError("x")).parent == tmp_path


def test_trace_outside_a_project_is_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert run_command(failing(ZeroDivisionError("x"))) == 1
    (log,) = tmp_path.glob("retune-error-*.log")
    assert str(log) in capsys.readouterr().err


def test_old_traces_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(exits, "KEPT", 3)
    kept = [exits.write_trace(ValueError(str(number))) for number in range(5)]

    assert len(list(tmp_path.iterdir())) == 3
    assert kept[-1].exists()


def test_debug_prints_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(exits.DEBUG, "1")

    assert run_command(failing(BadInput("no"))) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_prints_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "error: interrupted; run the same command again to resume\n"


def test_failing_thread_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        thread = threading.Thread(target=failing(ValueError("in a thread")))
        thread.start()
        thread.join()

    assert run_command(command) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unexpected ValueError: in a thread (trace: ")


def test_logged_traceback_becomes_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def command() -> None:
        for error in (ValueError("first"), BadInput("second")):
            try:
                raise error
            except Exception:
                for _ in range(2):
                    logging.getLogger("library").exception("failed: %s", error)

    assert run_command(command) == 0
    (trace,) = tmp_path.iterdir()
    first = f"failed: first: unexpected ValueError: first (trace: {trace})"
    assert caplog.messages == [first, first, "failed: second", "failed: second"]
    assert "Traceback" not in caplog.text


def test_undecodable_argument_is_rejected(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["retune", "predict", "a\udcff"])

    assert run_command(lambda: 0) == 2
    assert "argument 2 is not UTF-8: 'a\\udcff'" in capsys.readouterr().err


def test_closed_pipe_is_no_error() -> None:
    script = "import sys; from components.core.exits import run_command; sys.exit(run_command(lambda: print('x\\n' * 1000000)))"
    child = [sys.executable, "-c", script]
    with started(child, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.readline()
        writer.stdout.close()

        assert writer.stderr.read() == ""
        assert writer.wait(30) == exits.PIPE_CLOSED


@pytest.mark.slow
def test_message_is_short_and_printable() -> None:
    long = str(RetuneError("\n".join(["columns: " + "x" * 100_000 + "; set snapshot.delimiter"] * 3_000)))

    assert len(long) < 100_000
    assert long.splitlines()[0].endswith("; set snapshot.delimiter")
    assert long.endswith("and 2,941 more lines")
    assert str(RetuneError("a\x1b[2Jb\u200bc\udcffd")) == "a\\x1b[2Jb\\u200bc\\udcffd"
    assert str(RetuneError("plain – ‘text’ of 東京")) == "plain – ‘text’ of 東京"


OWN_ENDS = {
    "components/core/process.py": "becomes another command",
    "components/mlflow_store/registry/model_worker.py": "what ends it is the answer of a version, which its caller tells",
    "components/serving/http/__main__.py": "is packaged without the rest",
    "bench/_setfit.py": "runs in an environment without the project",
    "bench/_sides.py": "ends with a code that the benchmark reads",
}
ENTRIES = sorted(
    file.relative_to(ROOT).as_posix()
    for folder in ("components", "flows", "infra", "bench")
    for file in (ROOT / folder).rglob("*.py")
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("file", [file for file in ENTRIES if file not in OWN_ENDS])
def test_every_entry_point_uses_run_command(file: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")

    assert "(run_command(" in source or "return run_command(" in source
    assert "except RetuneError as error:\n        print" not in source


def test_closed_stderr_writes_nothing_to_stdout() -> None:
    script = "from components.core.exits import run_command; import sys; sys.exit(run_command(lambda: 1 / 0))"
    child = ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, script]

    done = subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    assert (done.stdout, done.returncode) == ("", 1)


def test_trace_is_named_if_old_ones_cannot_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shared temporary folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for number in range(exits.KEPT):
        (tmp_path / f"retune-error-0{number:02}.log").mkdir()  # cannot be unlinked

    assert "ZeroDivisionError" in exits.write_trace(ZeroDivisionError()).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "ordered"),
    [
        (["tasks", "--debug", "--json"], ["--debug", "tasks", "--json"]),
        (["--debug", "tasks", "--quiet"], ["--debug", "--quiet", "tasks"]),
        (["predict", "--", "--debug"], ["predict", "--", "--debug"]),
    ],
)
def test_application_options_may_follow_the_command(arguments: list[str], ordered: list[str]) -> None:
    assert _application_options_first(arguments) == ordered
