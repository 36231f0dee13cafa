"""The folder of a shared stack, and what is refused before anything is started."""

import json
import os
import re
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from components.core.errors import BadInput, BadParams, Unavailable
from components.core.ports import HOST
from components.core.process import owner
from flows.migrate import tables
from flows.migrate.migrate import migrate
from flows.migrate.registry import ArtifactRoots
from flows.project.run_locks import folder_lock
from infra.local import control
from infra.local.layout import PORTS, SECRETS, make_stack, open_stack, read_variables, write_private
from infra.local.services import environment, mlflow_service, prefect_service, started_by, store_service
from infra.local.supervisor import check_ports
from tests.support.project import ROOT


def test_ports_and_secrets_are_made_up_once_and_read_by_their_owner_alone(tmp_path: Path) -> None:
    made = make_stack(tmp_path / "stack")

    assert make_stack(tmp_path / "stack") == open_stack(tmp_path / "stack") == made
    assert len(set(made.secrets.values())) == len(SECRETS)
    assert len(set(made.ports.values())) == len(PORTS)
    for name in ("secrets.env", "retune.env", "s3.json"):
        assert stat.S_IMODE((tmp_path / "stack" / name).stat().st_mode) == 0o600, name


def test_a_secret_whose_line_was_deleted_is_made_up_anew(tmp_path: Path) -> None:
    before = make_stack(tmp_path / "stack")
    kept = {name: value for name, value in before.secrets.items() if name != "PREFECT_PASSWORD"}
    write_private(before.folder / "secrets.env", "".join(f"{name}={value}\n" for name, value in kept.items()))

    after = make_stack(tmp_path / "stack")

    assert after.secrets["PREFECT_PASSWORD"] != before.secrets["PREFECT_PASSWORD"]
    assert {name: after.secrets[name] for name in kept} == kept
    assert after.secrets["PREFECT_PASSWORD"] in read_variables(after.folder / "retune.env")["RETUNE_PREFECT_AUTH"]


def test_no_command_of_a_service_holds_a_secret(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "stack")
    commands = [service(stack).command for service in (store_service, mlflow_service, prefect_service)]

    assert all(len(command) > 5 for command in commands)
    assert not [secret for secret in stack.secrets.values() for command in commands if secret in " ".join(command)]


def test_what_a_shell_says_of_another_stack_does_not_reach_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")

    found = environment(make_stack(tmp_path / "stack"), {"PREFECT_HOME": "here"})

    assert "elsewhere" not in " ".join(found.values())
    assert (found["PREFECT_HOME"], found["MLFLOW_DISABLE_TELEMETRY"]) == ("here", "true")
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_a_key_opens_its_own_bucket_only(tmp_path: Path) -> None:
    known = {one["name"]: one["actions"] for one in json.loads(make_stack(tmp_path / "stack").identities())["identities"]}

    assert known["admin"] == ["Admin"]
    assert {action.partition(":")[2] for action in known["retune"]} == {"retune"}
    assert {action.partition(":")[2] for action in known["mlflow"]} == {"mlflow"}


def test_a_deleted_secret_keeps_nobody_from_ending_the_stack(tmp_path: Path) -> None:
    whole = make_stack(tmp_path / "stack")
    kept = {name: value for name, value in whole.secrets.items() if name != "S3_ADMIN_KEY"}
    write_private(whole.folder / "secrets.env", "".join(f"{name}={value}\n" for name, value in kept.items()))

    with pytest.raises(BadParams, match=r"lacks S3_ADMIN_KEY.* then `up`"):
        open_stack(whole.folder)
    assert control.down(open_stack(whole.folder, whole=False)) is False
    assert not control.is_kept(whole.folder)


def test_what_another_machine_runs_is_not_ended_here(tmp_path: Path) -> None:
    whole = make_stack(tmp_path / "stack")
    elsewhere = json.dumps({"host": "elsewhere.example", "pid": os.getpid(), "started": 1.0})
    (whole.folder / "state.json").write_text(json.dumps({"owner": elsewhere, "project": "/p", "services": {}}), encoding="utf-8")

    with pytest.raises(Unavailable, match=r"was written on elsewhere\.example"):
        control.down(whole)
    assert control.is_kept(whole.folder)


def test_a_registry_is_not_moved_under_what_writes_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_lock(tmp_path), pytest.raises(Unavailable, match="another run is working"):
        migrate(tmp_path, dry_run=True)
    state = tmp_path / "var/services/state.json"
    state.parent.mkdir(parents=True)
    running = {"owner": owner(), "prefect": "http://p/api", "mlflow": "http://m", "workers": []}
    state.write_text(json.dumps(running), encoding="utf-8")
    with pytest.raises(BadInput, match="`retune down` first"):
        migrate(tmp_path, dry_run=True)
    state.unlink()
    with pytest.raises(BadInput, match="not set: RETUNE_MLFLOW_URI"):  # nobody is at work: the next thing that is missing
        migrate(tmp_path, dry_run=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…", encoding="utf-8")

    with pytest.raises(BadParams, match="holds something, but no stack"):
        make_stack(tmp_path)
    with pytest.raises(BadParams, match="holds no stack"):
        open_stack(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_port_that_another_program_uses_is_named(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "stack")
    with socket.socket() as other:
        other.bind((HOST, stack.ports["mlflow"]))
        other.listen()
        with pytest.raises(Unavailable, match=f"mlflow {stack.ports['mlflow']}"):
            check_ports(stack)
    check_ports(stack)
    assert started_by(stack) == []


def test_a_place_is_renamed_by_the_longest_experiment_that_holds_it() -> None:
    places = ArtifactRoots({"file:///v/a/b": "mlflow-artifacts:/2", "file:///v/a": "mlflow-artifacts:/1"})

    assert places.of("file:///v/a/b/run/artifacts") == "mlflow-artifacts:/2/run/artifacts"
    assert places.of("file:///v/a/run/artifacts") == "mlflow-artifacts:/1/run/artifacts"
    for other in ("file:///v/abc", "models:/m-1", "s3://bucket/a"):
        assert places.of(other) == other
    assert places.rewrite("runs", {"artifact_uri": "file:///v/a", "name": "file:///v/a"}) == {
        "artifact_uri": "mlflow-artifacts:/1",
        "name": "file:///v/a",
    }


def test_the_hash_of_a_table_hangs_on_its_rows_and_not_on_their_order(tmp_path: Path) -> None:
    metadata = sa.MetaData()
    table = sa.Table("t", metadata, sa.Column("n", sa.Integer), sa.Column("yes", sa.Boolean), sa.Column("text", sa.Text))
    rows = [{"n": 1, "yes": True, "text": "a"}, {"n": 2, "yes": False, "text": None}]
    found = []
    for number, content in enumerate((rows, rows[::-1], [*rows, rows[0]], [rows[0], {**rows[1], "text": ""}])):
        engine = sa.create_engine(f"sqlite:///{tmp_path / str(number)}")
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(table.insert(), content)
            found.append(tables.contents(connection, metadata, ["t"], metadata, lambda _, row: row)["t"])
        engine.dispose()

    assert found[0] == found[1]
    assert len({one.digest for one in found}) == 3
    assert [one.rows for one in found] == [2, 2, 3, 2]


def test_sqlite_copies_itself_as_the_guide_says(tmp_path: Path) -> None:
    guide = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"<<'EOF'\n(.*?)^EOF$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "var").mkdir()
    for name in ("ledger", "mlflow"):
        with sqlite3.connect(tmp_path / f"var/{name}.db") as connection:
            connection.execute(f"CREATE TABLE {name} (n)")

    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)

    for name in ("ledger", "mlflow"):
        assert sqlite3.connect(tmp_path / f"var/copy/{name}.db").execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)
