"""State is private to its owner or a group that it was opened to; files of earlier releases are closed too."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.output_dir import close_to_others, closed_to, make_private, open_log
from components.ledger import Ledger
from components.mlflow_store import tracking
from flows.migrate import files
from flows.settings import load_into_environment


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.slow
def test_databases_are_private(tmp_path: Path) -> None:
    var = tmp_path / "var"
    tracking.prepare_store(var)
    Ledger(f"sqlite:///{var}/ledger.db").head("tickets")
    modes = {path.name: mode(path) for path in var.glob("*.db*") if path.is_file()}

    assert mode(var) == 0o700
    assert {"mlflow.db", "ledger.db"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert os.umask(0o022) == 0o022


def test_logs_and_folders_are_private(tmp_path: Path) -> None:
    make_private(tmp_path / "var/services")
    os.close(open_log(tmp_path / "var/services/services.log"))

    assert [mode(tmp_path / each) for each in ("var", "var/services", "var/services/services.log")] == [0o700, 0o700, 0o600]


def test_list_of_migrated_files_is_private(tmp_path: Path) -> None:
    files.send_all(files.Store("http://mlflow", "", ""), "http://mlflow", [], tmp_path)

    assert mode(tmp_path / files.SENT) == 0o600


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The state of an earlier release."""
    for name in (
        "mlflow.db",
        "mlflow.db-wal",
        "ledger.db",
        "approvals.log",
        "prefect/prefect.db",
        "prefect/server.json",
        "services/worker-0.log",
    ):
        path = tmp_path / "var" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_any_command_closes_readable_state(old: Path) -> None:
    load_into_environment(old)

    assert {mode(path) for path in (old / "var").rglob("*") if path.is_file()} == {0o600}
    assert mode(old / "var") == mode(old / "var/prefect") == 0o700


@pytest.mark.parametrize("sign", ["the set-group-id bit", "a group of its own that may write"])
def test_group_access_is_kept(old: Path, sign: str) -> None:
    var = old / "var"
    if sign == "the set-group-id bit":
        var.chmod(0o2775)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root may give a folder to any group")
        os.chown(var, -1, 1)
        var.chmod(0o775)
    (var / "ledger.db").chmod(0o664)
    close_to_others(var)
    os.close(open_log(var / "new.log"))

    assert closed_to(var) == 0o007
    assert [mode(var) & 0o777, mode(var / "ledger.db"), mode(var / "new.log")] == [0o770, 0o660, 0o660]


def test_readable_settings_are_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    env = tmp_path / ".env"
    env.write_text("RETUNE_USER=me\n", encoding="utf-8")
    for _ in range(2):
        load_into_environment(tmp_path)

    assert caplog.text.count(f"{env} is readable by every account of this host (mode 644)") == 1
    assert f"`chmod 600 {env}`" in caplog.text


def test_private_settings_are_not_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".env").touch(mode=0o600)
    load_into_environment(tmp_path)

    assert "can be read" not in caplog.text
