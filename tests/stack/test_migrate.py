"""An embedded registry carried into a stack of its own, copied, and restored into another: nothing is lost on either way."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.ledger import Ledger
from infra.local.layout import MIGRATE_TO, Stack, open_stack, read_variables
from infra.local.services import started_by
from tests.project import BIN, environment, make_project, retune, wait_for
from tests.stack.served import local, make_folder, use


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    place = make_folder()
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    """A project with a champion in var/, found by a search."""
    project = make_project(tmp_path_factory.mktemp("embedded") / "project", tiny_base, tickets, tuned=True)
    done = retune(project, "run", "--inline")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture(scope="module")
def empty(folder: Path, embedded: Path) -> Iterator[Stack]:
    """A stack that nobody has used."""
    done = local(embedded, "up", str(folder / "stack"), "--workers", "0")
    assert done.returncode == 0, done.stderr
    stack = open_stack(folder / "stack")
    yield stack
    assert local(embedded, "down", str(folder / "stack")).returncode == 0
    assert not started_by(stack)


@pytest.fixture(scope="module")
def before(embedded: Path) -> dict[str, str]:
    """Every file of the embedded state, and what the project said of it."""
    return hashes(embedded / "var") | asked(embedded)


@pytest.fixture(scope="module")
def migrated(embedded: Path, empty: Stack, before: dict[str, str]) -> dict[str, Any]:
    """What the migration said at last; the first try was killed while it sent artifacts."""
    use(empty, embedded)
    target = {MIGRATE_TO: read_variables(empty.folder / "secrets.env")[MIGRATE_TO]}
    planned = retune(embedded, "migrate", "--dry-run", "--json", **target)
    assert planned.returncode == 0, planned.stderr
    assert not (embedded / "var/migrated.jsonl").exists()
    kill_midway(embedded, target)
    done = retune(embedded, "migrate", "--json", **target)
    assert done.returncode == 0, done.stderr
    assert json.loads(planned.stdout) | {"done": True} == json.loads(done.stdout)
    again = retune(embedded, "migrate", "--json", **target)
    assert again.stdout == done.stdout, again.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kill_midway(project: Path, target: dict[str, str]) -> None:
    first = subprocess.Popen([str(BIN / "retune"), "migrate"], cwd=project, env=environment(project, **target), stderr=subprocess.DEVNULL)
    notes = project / "var/migrated.jsonl"
    wait_for(lambda: notes.exists() and notes.read_bytes().count(b"\n") > 5, 120, every=0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL


def hashes(folder: Path) -> dict[str, str]:
    """What is kept there, but for locks and what says how far a migration came."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock" and path.name != "migrated.jsonl"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def asked(project: Path) -> dict[str, str]:
    """What a person is told of the champion."""
    commands = (("status", "--json"), ("history", "tickets", "--json"), ("why", "tickets", "1", "--json"))
    answers = {command: retune(project, *command) for command in commands}
    assert all(answer.returncode == 0 for answer in answers.values()), [answer.stderr for answer in answers.values()]
    return {" ".join(command): answer.stdout for command, answer in answers.items()}


def test_a_registry_is_carried_with_nothing_lost(migrated: dict[str, Any], embedded: Path, before: dict[str, str]) -> None:
    assert migrated["versions"] == 1
    assert migrated["studies"] == 1
    assert migrated["ledger"] > 0
    assert migrated["artifacts"] > 20
    assert asked(embedded).items() <= before.items()
    assert hashes(embedded / "var").items() >= {name: digest for name, digest in before.items() if name in hashes(embedded / "var")}.items()
    assert {name for name in before if not name.startswith(("status", "history", "why"))} <= hashes(embedded / "var").keys()


def test_the_next_run_finds_everything_done(migrated: dict[str, Any], embedded: Path) -> None:
    shutil.rmtree(embedded / "var/mlartifacts")  # nothing is read from here any more
    (embedded / "var/mlflow.db").rename(embedded / "var/mlflow.db.earlier")

    done = retune(embedded, "run", "--inline", "--json")
    answer = retune(embedded, "predict", "invoice refund card money")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["up_to_date"] is True
    assert answer.returncode == 0, answer.stderr


def test_what_is_there_is_never_written_over(migrated: dict[str, Any], embedded: Path, empty: Stack, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(embedded, other, ignore=shutil.ignore_patterns("cache", "prefect", "mlartifacts"))
    (other / "var/mlflow.db.earlier").rename(other / "var/mlflow.db")
    edit = subprocess.run(
        ["python", "-c", "import sqlite3; c = sqlite3.connect('var/mlflow.db'); c.execute('DELETE FROM model_version_tags'); c.commit()"],
        cwd=other,
        check=True,
    )
    assert edit.returncode == 0

    done = retune(other, "migrate", **{MIGRATE_TO: empty.database("mlflow")})

    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert empty.secrets["MLFLOW_DATABASE_PASSWORD"] not in done.stderr


def test_a_copy_is_restored_into_a_second_stack(migrated: dict[str, Any], embedded: Path, empty: Stack, folder: Path) -> None:
    copied = local(embedded, "backup", str(folder / "copy"), str(empty.folder))
    assert copied.returncode == 0, copied.stderr

    restored = local(embedded, "restore", str(folder / "copy"), str(folder / "second"))

    assert restored.returncode == 0, restored.stderr  # rows and objects were compared with the copy by their hashes
    assert re.findall(r"[\d,]+ \w+", copied.stdout.partition(": ")[2]) == re.findall(r"[\d,]+ \w+", restored.stdout.partition(": ")[2])
    second = open_stack(folder / "second")
    assert not started_by(second)
    assert not set(second.secrets.values()) & set(empty.secrets.values())
    manifest = json.loads((folder / "copy/manifest.json").read_text(encoding="utf-8"))
    assert manifest["databases"]["mlflow"]["runs"][0] == migrated["runs"]
    assert len(manifest["objects"]["mlflow"]) >= migrated["artifacts"]
    assert os.stat(folder / "copy").st_mode & 0o077 == 0


def test_a_damaged_copy_is_refused_and_leaves_nothing(migrated: dict[str, Any], embedded: Path, folder: Path) -> None:
    damaged = folder / "damaged"
    shutil.copytree(folder / "copy", damaged)
    victim = next(path for path in (damaged / "s3/mlflow").rglob("*") if path.is_file())
    victim.write_bytes(victim.read_bytes() + b"!")

    done = local(embedded, "restore", str(damaged), str(folder / "third"))

    assert done.returncode != 0
    assert "damaged" in done.stderr
    assert not (folder / "third").exists()


def test_the_ledger_refuses_changes_after_it_was_carried(migrated: dict[str, Any], empty: Stack) -> None:
    import sqlalchemy as sa

    ledger = Ledger(empty.database("retune"))
    assert [entry.version for entry in ledger.entries("tickets")] == [1]
    engine = sa.create_engine(empty.database("retune"))
    with pytest.raises(sa.exc.DatabaseError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM promotions"))
    engine.dispose()
