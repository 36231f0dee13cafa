"""Files from DVC's cache or a remote are hashed once before use; damaged ones are named and removed."""

import json
from pathlib import Path

import pandas as pd
import pytest

from components.data.snapshot import take_snapshot
from components.data.snapshot.settings import SnapshotParams
from flows.dvc_adapter.cache import object_path
from flows.dvc_adapter.file_integrity import RECORD, damaged_input, damaged_outputs, drop
from flows.pipeline.actions import repair_input
from flows.project.workspace import Workspace
from tests.support.cached import keep, keep_folder

FILES = {"test.parquet": b"rows", "sub/deep.txt": b"deep"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a workspace whose stage wrote a folder and a file."""
    folder, file = keep_folder(tmp_path, FILES), keep(tmp_path, b"alone")
    outs = [{"path": "data/prepared", "hash": "md5", "md5": folder}, {"path": "alone.txt", "hash": "md5", "md5": file}]
    outs += [{"path": "elsewhere", "md5": "0" * 32}]  # a text hash of DVC 2
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": {"preprocess": {"outs": outs}}}), encoding="utf-8")
    for name, content in {
        "alone.txt": b"alone",
        "elsewhere": b"x",
        **{f"data/prepared/{name}": text for name, text in FILES.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def damaged(root: Path) -> set[str]:
    return set(damaged_outputs(root, ["preprocess"]))


@pytest.mark.parametrize("name", ["data/prepared/test.parquet", "data/prepared/sub/deep.txt", "alone.txt"])
def test_flipped_byte_is_detected_and_object_dropped(root: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert damaged(root) == set()
    content = (root / name).read_bytes()
    (md5,) = {
        path.parent.name + path.name
        for path in (root / ".dvc/cache/files/md5").rglob("*")
        if path.is_file() and path.read_bytes() == content
    }
    for path in (root / name, object_path(root, md5)):
        path.write_bytes(b"X" + content[1:])
    bad = damaged_outputs(root, ["preprocess"])
    drop(root, bad)

    assert bad == {name: md5}
    assert not (root / name).exists()
    assert not object_path(root, md5).exists()
    assert md5 in caplog.text
    assert damaged(root) == set(), "DVC detects missing files"


def test_intact_object_is_kept_if_only_the_file_is_damaged(root: Path) -> None:
    (root / "alone.txt").write_bytes(b"Xlone")
    bad = damaged_outputs(root, ["preprocess"])
    drop(root, bad)

    assert object_path(root, bad["alone.txt"]).read_bytes() == b"alone"


def test_damaged_listing_marks_folder_as_damaged(root: Path) -> None:
    md5 = keep_folder(root, FILES)
    object_path(root, md5).write_text("[]", encoding="utf-8")
    bad = damaged_outputs(root, ["preprocess"])
    drop(root, bad)

    assert bad == {"data/prepared": md5}
    assert not (root / "data/prepared").exists()
    assert not object_path(root, md5).exists()


def test_verified_file_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert damaged(root) == set()
    before = (root / RECORD).stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("flows.dvc_adapter.file_integrity.VerifiedFiles._hash", lambda *_: pytest.fail("a file was read"))
        assert damaged(root) == set()
    assert (root / RECORD).stat().st_mtime_ns == before
    assert damaged_outputs(root, ["preprocess"], rehash=True) == {}


@pytest.mark.parametrize("content", ["", "[]", "{broken", '{"alone.txt": 1}'])
def test_invalid_record_is_replaced(root: Path, content: str) -> None:
    (root / "var").mkdir(exist_ok=True)
    (root / RECORD).write_text(content, encoding="utf-8")
    (root / "alone.txt").write_bytes(b"Xlone")

    assert damaged(root) == {"alone.txt"}


@pytest.mark.parametrize("missing", [False, True])
def test_damaged_snapshot_is_removed(tmp_path: Path, tickets: pd.DataFrame, missing: bool) -> None:
    tickets.to_csv(tmp_path / "rows.csv", index=False)
    workspace = Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")
    take_snapshot(tmp_path, workspace.raw, snapshot=SnapshotParams(source="rows.csv"), required=("text", "label"))
    repair_input(workspace, workspace.raw)
    assert workspace.raw.is_dir()

    (part,) = workspace.raw.glob("*.parquet")
    part.unlink() if missing else part.write_bytes(part.read_bytes()[:-1] + b"X")
    assert damaged_input(tmp_path, workspace.raw) == [f"data/raw/{part.name}"]
    repair_input(workspace, workspace.raw)
    assert not workspace.raw.exists()
