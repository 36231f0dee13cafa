"""State is its owner's alone, or its group's where somebody opened it to that; files of earlier releases are closed to others."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.output_dir import close_to_others, closed_to, make_private, open_log
from components.ledger import Ledger
from components.mlflow_store import tracking
from flows.settings import load_into_environment


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_databases_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    var = tmp_path / "var"
    tracking.prepare_store(var)
    Ledger(f"sqlite:///{var}/ledger.db").head("tickets")
    found = {path.name: mode(path) for path in var.glob("*.db*") if path.is_file()}

    assert mode(var) == 0o700
    assert {"mlflow.db", "ledger.db"} <= set(found)
    assert set(found.values()) == {0o600}
    assert os.umask(0o022) == 0o022


def test_logs_and_folders_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    make_private(tmp_path / "var/services")
    os.close(open_log(tmp_path / "var/services/services.log"))

    assert [mode(tmp_path / each) for each in ("var", "var/services", "var/services/services.log")] == [0o700, 0o700, 0o600]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """What an earlier release has left."""
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


def test_what_others_could_read_is_closed_to_them_by_any_command(old: Path) -> None:
    load_into_environment(old)

    assert {mode(path) for path in (old / "var").rglob("*") if path.is_file()} == {0o600}
    assert mode(old / "var") == mode(old / "var/prefect") == 0o700


@pytest.mark.parametrize("sign", ["the set-group-id bit", "a group of its own that may write"])
def test_a_folder_that_was_opened_to_a_group_stays_open_to_it(old: Path, sign: str) -> None:
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


def test_settings_that_everybody_can_read_are_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    env = tmp_path / ".env"
    env.write_text("RETUNE_USER=me\n", encoding="utf-8")
    for _ in range(2):
        load_into_environment(tmp_path)

    assert caplog.text.count(f"{env} can be read by every account of this machine (mode 644)") == 1
    assert f"`chmod 600 {env}`" in caplog.text


def test_settings_of_their_owner_alone_are_not_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".env").touch(mode=0o600)
    load_into_environment(tmp_path)

    assert "can be read" not in caplog.text
