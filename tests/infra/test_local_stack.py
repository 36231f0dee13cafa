"""The folder of a shared stack, and checks before anything is started."""

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
from infra.local.layout import PORTS, SECRETS, lines, make_stack, open_stack, read_variables
from infra.local.services import environment, mlflow_service, prefect_service, started_by, store_service
from infra.local.supervisor import check_ports
from tests.support.project import ROOT


def test_ports_and_secrets_are_created_once_and_private(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "stack")

    assert make_stack(tmp_path / "stack") == open_stack(tmp_path / "stack") == stack
    assert len(set(stack.secrets.values())) == len(SECRETS)
    assert len(set(stack.ports.values())) == len(PORTS)
    for name in ("secrets.env", "retune.env", "s3.json"):
        assert stat.S_IMODE((tmp_path / "stack" / name).stat().st_mode) == 0o600, name


def test_deleted_secret_is_regenerated(tmp_path: Path) -> None:
    before = make_stack(tmp_path / "stack")
    kept = {name: value for name, value in before.secrets.items() if name != "PREFECT_PASSWORD"}
    (before.folder / "secrets.env").write_text(lines(kept), encoding="utf-8")

    after = make_stack(tmp_path / "stack")

    assert after.secrets["PREFECT_PASSWORD"] != before.secrets["PREFECT_PASSWORD"]
    assert {name: after.secrets[name] for name in kept} == kept
    assert after.secrets["PREFECT_PASSWORD"] in read_variables(after.folder / "retune.env")["RETUNE_PREFECT_AUTH"]


def test_no_command_contains_a_secret(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "stack")
    commands = [service(stack).command for service in (store_service, mlflow_service, prefect_service)]

    assert all(len(command) > 5 for command in commands)
    assert not [secret for secret in stack.secrets.values() for command in commands if secret in " ".join(command)]


def test_shell_variables_of_another_stack_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")

    variables = environment(make_stack(tmp_path / "stack"), {"PREFECT_HOME": "here"})

    assert "elsewhere" not in " ".join(variables.values())
    assert (variables["PREFECT_HOME"], variables["MLFLOW_DISABLE_TELEMETRY"]) == ("here", "true")
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_key_gives_access_to_its_own_bucket_only(tmp_path: Path) -> None:
    actions = {identity["name"]: identity["actions"] for identity in json.loads(make_stack(tmp_path / "stack").identities())["identities"]}

    assert actions["admin"] == ["Admin"]
    assert {action.partition(":")[2] for action in actions["retune"]} == {"retune"}
    assert {action.partition(":")[2] for action in actions["mlflow"]} == {"mlflow"}


def test_stack_with_deleted_secret_can_be_ended(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "stack")
    kept = {name: value for name, value in stack.secrets.items() if name != "S3_ADMIN_KEY"}
    (stack.folder / "secrets.env").write_text(lines(kept), encoding="utf-8")

    with pytest.raises(BadParams, match=r"lacks S3_ADMIN_KEY.* then `up`"):
        open_stack(stack.folder)
    assert control.down(open_stack(stack.folder, whole=False)) is False
    assert not control.is_supervised(stack.folder)


def test_stack_of_another_host_is_not_ended(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "stack")
    elsewhere = json.dumps({"host": "elsewhere.example", "pid": os.getpid(), "started": 1.0})
    (stack.folder / "state.json").write_text(json.dumps({"owner": elsewhere, "project": "/p", "services": {}}), encoding="utf-8")

    with pytest.raises(Unavailable, match=r"was written on elsewhere\.example"):
        control.down(stack)
    assert control.is_supervised(stack.folder)


def test_registry_in_use_is_not_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_lock(tmp_path), pytest.raises(Unavailable, match="another run uses"):
        migrate(tmp_path, dry_run=True)
    state = tmp_path / "var/services/state.json"
    state.parent.mkdir(parents=True)
    running = {"owner": owner(), "prefect": "http://p/api", "mlflow": "http://m", "workers": []}
    state.write_text(json.dumps(running), encoding="utf-8")
    with pytest.raises(BadInput, match="`retune down` first"):
        migrate(tmp_path, dry_run=True)
    state.unlink()
    with pytest.raises(BadInput, match="not set: RETUNE_MLFLOW_URI"):  # no run is active: the next check fails
        migrate(tmp_path, dry_run=True)


def test_folder_with_other_content_is_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…", encoding="utf-8")

    with pytest.raises(BadParams, match="is not empty and not a stack"):
        make_stack(tmp_path)
    with pytest.raises(BadParams, match="is not a stack"):
        open_stack(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_port_in_use_is_named(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "stack")
    with socket.socket() as other:
        other.bind((HOST, stack.ports["mlflow"]))
        other.listen()
        with pytest.raises(Unavailable, match=f"mlflow {stack.ports['mlflow']}"):
            check_ports(stack)
    check_ports(stack)
    assert started_by(stack) == []


def test_location_is_rewritten_by_the_longest_match() -> None:
    roots = ArtifactRoots({"file:///v/a/b": "mlflow-artifacts:/2", "file:///v/a": "mlflow-artifacts:/1"})

    assert roots.on_server("file:///v/a/b/run/artifacts") == "mlflow-artifacts:/2/run/artifacts"
    assert roots.on_server("file:///v/a/run/artifacts") == "mlflow-artifacts:/1/run/artifacts"
    for other in ("file:///v/abc", "models:/m-1", "s3://bucket/a"):
        assert roots.on_server(other) == other
    assert roots.rewrite("runs", {"artifact_uri": "file:///v/a", "name": "file:///v/a"}) == {
        "artifact_uri": "mlflow-artifacts:/1",
        "name": "file:///v/a",
    }


def test_table_hash_is_independent_of_row_order(tmp_path: Path) -> None:
    metadata = sa.MetaData()
    table = sa.Table("t", metadata, sa.Column("n", sa.Integer), sa.Column("yes", sa.Boolean), sa.Column("text", sa.Text))
    rows = [{"n": 1, "yes": True, "text": "a"}, {"n": 2, "yes": False, "text": None}]
    contents = []
    for number, content in enumerate((rows, rows[::-1], [*rows, rows[0]], [rows[0], {**rows[1], "text": ""}])):
        engine = sa.create_engine(f"sqlite:///{tmp_path / str(number)}")
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(table.insert(), content)
            contents.append(tables.contents(connection, metadata, ["t"], metadata, lambda _, row: row)["t"])
        engine.dispose()

    assert contents[0] == contents[1]
    assert len({content.digest for content in contents}) == 3
    assert [content.rows for content in contents] == [2, 2, 3, 2]


def test_sqlite_backup_script_of_the_guide_works(tmp_path: Path) -> None:
    guide = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"<<'EOF'\n(.*?)^EOF$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "var").mkdir()
    for name in ("ledger", "mlflow"):
        with sqlite3.connect(tmp_path / f"var/{name}.db") as connection:
            connection.execute(f"CREATE TABLE {name} (n)")

    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)

    for name in ("ledger", "mlflow"):
        assert sqlite3.connect(tmp_path / f"var/copy/{name}.db").execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)
