"""A backup of the running stack, and a second stack restored from it."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from infra.local.layout import Stack, open_stack
from infra.local.services import started_by
from tests.support.stack_services import Migration, ask, local


@pytest.fixture(scope="module")
def backup(migrated: Migration, stack: Stack, project: Path, folder: Path) -> tuple[Path, str]:
    """The backup and the output of its command, made while a run known to Prefect holds a slot."""
    slot = {"names": ["of a test"], "slots": 1, "mode": "concurrency"}
    ask(stack, "/v2/concurrency_limits/", {"name": "of a test", "limit": 1})
    assert ask(stack, "/v2/concurrency_limits/increment", slot)
    done = local(project, "backup", str(folder / "copy"), str(stack.folder))
    assert ask(stack, "/v2/concurrency_limits/decrement", slot)
    assert done.returncode == 0, done.stderr
    return folder / "copy", done.stdout


def test_backup_is_restored_into_a_second_stack(backup: tuple[Path, str], migrated: Migration, stack: Stack, project: Path) -> None:
    path, output = backup
    second = path.with_name("second")

    done = local(project, "restore", str(path), str(second))

    assert done.returncode == 0, done.stderr  # it compares rows and objects with the backup by their hashes
    assert re.findall(r"[\d,]+ \w+", done.stdout.partition(": ")[2]) == re.findall(r"[\d,]+ \w+", output.partition(": ")[2])
    assert not started_by(open_stack(second))
    assert not set(open_stack(second).secrets.values()) & set(stack.secrets.values())

    up = local(project, "up", str(second), "--workers", "0")
    try:
        assert up.returncode == 0, up.stderr
        limits = ask(open_stack(second), "/v2/concurrency_limits/filter", {})
        assert [limit["active_slots"] for limit in limits if limit["name"] == "of a test"] == [0]  # its holder is not in this stack
        assert local(project, "status", str(second)).returncode == 0
    finally:
        assert local(project, "down", str(second)).returncode == 0


def test_backup_is_complete_and_private(backup: tuple[Path, str], migrated: Migration) -> None:
    manifest = json.loads((backup[0] / "manifest.json").read_text(encoding="utf-8"))

    assert manifest["databases"]["mlflow"]["tables"]["runs"][0] >= migrated.done["runs"]
    assert len(manifest["objects"]["mlflow"]) >= migrated.done["artifacts"]
    assert len(manifest["objects"]["retune"]) >= migrated.done["objects"]
    assert os.stat(backup[0]).st_mode & 0o077 == 0


@pytest.mark.parametrize("victim", ["s3/mlflow/**/*", "mlflow.dump"])
def test_damaged_backup_is_rejected_without_leftovers(
    backup: tuple[Path, str], project: Path, folder: Path, tmp_path: Path, victim: str
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(backup[0], damaged)
    file = next(path for path in damaged.glob(victim) if path.is_file())
    file.write_bytes(file.read_bytes() + b"!")

    done = local(project, "restore", str(damaged), str(folder / "third"))

    assert done.returncode == 1
    assert f"{file} is missing or changed" in done.stderr
    assert not [path for path in folder.iterdir() if "third" in path.name]
