"""Temporary folders of killed processes are deleted by the next one; others stay."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from components.core import temporary as room
from components.core.atomic import replacing
from components.core.process import owner
from components.core.temporary import make, remove, sweep, temporary
from tests.support.project import ROOT, started

HOST = socket.gethostname()
HOLD = """
import sys
from components.core.temporary import make
folder = make()
(folder / "package").write_bytes(b"x" * 1000)
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    room._sweep_once.cache_clear()
    return tmp_path


def test_temporary_folder_names_its_owner_and_is_deleted(home: Path) -> None:
    with temporary() as folder:
        who = json.loads(owner())
        assert folder.name.startswith(f"retune-{HOST}-{os.getpid()}-{who['started']}-")
        (folder / "file").write_text("x")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        (f"retune-{HOST}-999999999-1.0-abcdefgh", False),
        (f"retune-{HOST}-{os.getpid()}-1.0-abcdefgh", False),  # the process id was reused
        (f"retune-{HOST}-999999999-1.0.partial", False),
        ("retune-some-other-host-999999999-1.0-abcdefgh", True),
        (f"other-{HOST}-999999999-1.0-abcdefgh", True),
        ("retune-abcdefgh", True),
        ("retune-store-abc123", True),
    ],
    ids=["ended", "reused process id", "partial", "other host", "other prefix", "no owner", "store"],
)
def test_only_abandoned_paths_are_deleted(home: Path, name: str, stays: bool) -> None:
    (home / name).mkdir()
    (home / name / "file").write_text("x")
    make()
    assert (home / name).exists() == stays


def test_folder_of_a_running_process_stays(home: Path) -> None:
    mine = make()
    room._sweep_once.cache_clear()
    make()
    sweep(home)
    assert mine.exists()


def test_link_is_not_followed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    link = home / f"retune-{HOST}-999999999-1.0-abcdefgh"
    link.symlink_to(other)
    sweep(home)
    assert other.exists()


def test_folder_of_another_account_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home / f"retune-{HOST}-999999999-1.0-abcdefgh"
    folder.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    sweep(home)
    assert folder.exists()


def test_next_process_deletes_folders_of_a_killed_one(home: Path) -> None:
    command = [sys.executable, "-c", HOLD]
    with started(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(home)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        sweep(home)
        assert (folder / "package").exists()  # its owner is running
        os.kill(child.pid, signal.SIGKILL)
    make()
    assert not folder.exists()


def test_partial_file_of_a_killed_process_is_deleted(home: Path) -> None:
    abandoned = home / f"retune-{HOST}-999999999-1.0.answers.parquet.partial"
    abandoned.write_bytes(b"half")
    with replacing(home / "answers.parquet") as partial:
        assert (abandoned.exists(), partial.parent, partial.suffix) == (False, home, ".partial")
        partial.write_bytes(b"whole")
    assert [(file.name, file.read_bytes()) for file in home.iterdir()] == [("answers.parquet", b"whole")]


@pytest.mark.parametrize(("name", "days", "stays"), [("x.partial", 8, False), ("x.partial", 6, True), ("x.partial-journal", 8, False)])
def test_old_partial_file_of_another_host_is_deleted(home: Path, name: str, days: float, stays: bool) -> None:
    file = home / f"retune-container-1-1.0.{name}"
    file.write_bytes(b"half")
    os.utime(file, (time.time() - days * 86_400,) * 2)
    with replacing(home / "x") as partial:
        partial.write_bytes(b"whole")
    assert file.exists() is stays


def test_read_only_file_is_replaced(home: Path) -> None:
    with replacing(home / "file", 0o444) as partial:
        assert partial.stat().st_mode & 0o200
        partial.write_text("one")
    assert ((home / "file").read_text(), (home / "file").stat().st_mode & 0o777) == ("one", 0o444)


def test_two_writers_of_a_file_do_not_meet(home: Path) -> None:
    with replacing(home / "file") as first:
        first.write_text("first")
        with replacing(home / "file", 0o600) as second:
            second.write_text("second")
        assert ((home / "file").read_text(), (home / "file").stat().st_mode & 0o777) == ("second", 0o600)
    assert [(file.name, file.read_text()) for file in home.iterdir()] == [("file", "first")]


def test_failed_writer_leaves_the_file_unchanged(home: Path) -> None:
    (home / "file").write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(home / "file") as partial:
        partial.write_text(str(1 / 0))
    assert [(file.name, file.read_text()) for file in home.iterdir()] == [("file", "before")]


def test_locked_folder_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "is_gone", lambda _: True)  # the clock changed, or the owner is in another container
    with temporary() as folder, replacing(home / "answers.parquet") as partial:
        partial.write_bytes(b"whole")
        sweep(home)
        assert (folder.exists(), partial.exists()) == (True, True)


def test_lock_survives_exec(home: Path) -> None:
    become = "from components.core.temporary import keep_after_exec\nimport os\nkeep_after_exec(folder)\n"
    program = "print('up', flush=True); import sys; sys.stdin.read()"
    command = [sys.executable, "-c", HOLD.replace("sys.stdin.read()", f"{become}os.execv(sys.executable, ['python', '-c', {program!r}])")]
    environment = {**os.environ, "TMPDIR": str(home)}
    with started(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        assert child.stdout.readline() == "up\n"
        assert room._is_locked(folder)
        child.stdin.close()
    assert not room._is_locked(folder)


def test_deleted_folder_is_unlocked(home: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    remove(make())
    assert (list(home.iterdir()), len(os.listdir("/proc/self/fd"))) == ([], before)


def test_sweep_needs_psutil(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    abandoned = home / f"retune-{HOST}-999999999-1.0-abcdefgh"
    abandoned.mkdir()
    with temporary() as folder:
        assert (folder.is_dir(), abandoned.is_dir()) == (True, True)


def test_all_temporary_folders_have_an_owner() -> None:
    """Exceptions: error logs, which stay; the password file of one command."""
    known = {"components/core/exits.py", "components/core/temporary.py", "infra/passwords.py"}
    made = re.compile(r"tempfile\.(TemporaryDirectory|mkdtemp|NamedTemporaryFile|mkstemp)\(")
    sources = [path for room in ("components", "flows", "infra") for path in (ROOT / room).rglob("*.py")]
    assert {path.relative_to(ROOT).as_posix() for path in sources if made.search(path.read_text(encoding="utf-8"))} == known
