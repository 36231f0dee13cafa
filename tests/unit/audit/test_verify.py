"""`retune verify` names each file of a past or present champion whose hash does not match."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from flows.audit.verify import CHECKS, Inspection, dvc, ledger_chain, ledger_versions, workspaces
from flows.cli import app
from flows.dvc_adapter.cache import object_path
from tests.support.audit_models import model_of, promoted, version
from tests.support.cached import keep, keep_folder
from tests.support.finished import new_store
from tests.support.registered import make_shop


def built(root: Path, number: int, content: bytes) -> Any:
    """Return a version built from a folder with one file."""
    return version(number, retune__dvc_lock=json.dumps({"data/raw": keep_folder(root, {"part": content})}))


def test_only_champions_are_checked(tmp_path: Path) -> None:
    promoted(tmp_path, 1)
    model = model_of(tmp_path, built(tmp_path, 1, b"a"), built(tmp_path, 2, b"b"), version(3))
    (tmp_path / ".dvc/cache").rename(tmp_path / "aside")

    assert {fault.version for fault in dvc(Inspection(model, quick=False))} == {1}
    assert [*dvc(Inspection(model, quick=True))] == []


@pytest.mark.parametrize("lost", [False, True])
def test_damaged_or_missing_object_is_named(tmp_path: Path, lost: bool) -> None:
    promoted(tmp_path, 1)
    model, path = model_of(tmp_path, built(tmp_path, 1, b"a")), object_path(tmp_path, keep(tmp_path, b"a"))
    assert [*dvc(Inspection(model, quick=False))] == []
    path.unlink() if lost else path.write_bytes(b"b")
    (fault,) = dvc(Inspection(model, quick=False))

    assert (fault.store, fault.version) == ("DVC", 1)
    assert fault.message.startswith("data/raw/part: ")
    assert str(path) in fault.message
    assert ("neither in DVC's cache" if lost else "is corrupt") in fault.message


def test_entry_without_version_is_a_fault(tmp_path: Path) -> None:
    promoted(tmp_path, 1, 2)

    assert [(fault.store, fault.version) for fault in ledger_versions(Inspection(model_of(tmp_path, version(2)), quick=True))] == [
        ("ledger", 1)
    ]


@pytest.mark.slow
def test_rewritten_ledger_is_a_fault(tmp_path: Path) -> None:
    promoted(tmp_path, 1)
    new_store(tmp_path / "var")
    inspection = Inspection(model_of(tmp_path, version(1)), quick=False)
    assert [*ledger_chain(inspection)] == []
    connection = sqlite3.connect(tmp_path / "var/ledger.db")
    for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute("UPDATE promotions SET who = 'eve'")
    connection.commit()
    connection.close()

    assert ledger_chain in CHECKS
    assert [(fault.store, fault.version) for fault in ledger_chain(inspection)][:1] == [("ledger", None)]


def test_changed_workspace_file_is_named(tmp_path: Path) -> None:
    root = tmp_path / "var/workspaces/tickets-1"
    root.mkdir(parents=True)
    out = {"path": "out", "hash": "md5", "md5": keep(root, b"made")}
    (root / "dvc.lock").write_text(json.dumps({"stages": {"train": {"outs": [out]}}}), encoding="utf-8")
    (root / "params.yaml").write_text("name: tickets\n", encoding="utf-8")
    inspection = Inspection(model_of(tmp_path, version(1)), quick=False)
    (root / "out").write_bytes(b"made")
    assert [*workspaces(inspection)] == []
    (root / "out").write_bytes(b"other")
    (root / "data/raw").mkdir(parents=True)
    (root / "data/raw/manifest.json").write_text("{broken", encoding="utf-8")

    assert [fault.message.split()[0] for fault in workspaces(inspection)] == [str(root / "out"), str(root / "data/raw/manifest.json")]


@pytest.mark.slow
def test_verify_command_reports_faults(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    make_shop(tmp_path, tiny_base, tickets)
    promoted(tmp_path, 1)
    monkeypatch.chdir(tmp_path)

    (check,), code = verify_json()
    assert (code, check["versions"], [fault["store"] for fault in check["faults"]]) == (1, [1], ["DVC"])
    (weights,) = (tmp_path / "var/mlartifacts").rglob("models/**/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"X")
    (check,), code = verify_json("tickets")
    assert (code, [fault["store"] for fault in check["faults"]]) == (1, ["MLflow", "DVC"])

    result = CliRunner().invoke(app, ["verify"])
    assert result.exit_code == 1
    assert "tickets: 2 faults; version 1" in result.stdout
    assert "DVC: tickets 1: models/trained: " + "0" * 32 in result.stdout


def verify_json(*arguments: str) -> tuple[list[dict[str, Any]], int]:
    result = CliRunner().invoke(app, ["verify", "--json", *arguments])
    return json.loads(result.stdout), result.exit_code
