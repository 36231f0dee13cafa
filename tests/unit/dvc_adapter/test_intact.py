"""What came from DVC's cache or a remote is hashed once before it is used, and what is damaged is named and dropped."""

import json
from pathlib import Path

import pandas as pd
import pytest

from components.data.snapshot import take_snapshot
from components.data.snapshot.settings import SnapshotParams
from flows.dvc_adapter.file_integrity import RECORD, damaged_input, damaged_outputs, drop
from flows.dvc_adapter.repro import object_path
from flows.pipeline.actions import repair_input
from flows.project.workspace import Workspace
from tests.support.cached import keep, keep_folder

FILES = {"test.parquet": b"rows", "sub/deep.txt": b"deep"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace whose stage wrote a folder and a file."""
    folder, file = keep_folder(tmp_path, FILES), keep(tmp_path, b"alone")
    outs = [{"path": "data/prepared", "hash": "md5", "md5": folder}, {"path": "alone.txt", "hash": "md5", "md5": file}]
    outs += [{"path": "elsewhere", "md5": "0" * 32}]  # as DVC 2 hashed texts
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
def test_a_flipped_byte_is_found_and_its_object_dropped(root: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert damaged(root) == set()
    content = (root / name).read_bytes()
    (md5,) = {
        path.parent.name + path.name
        for path in (root / ".dvc/cache/files/md5").rglob("*")
        if path.is_file() and path.read_bytes() == content
    }
    for path in (root / name, object_path(root, md5)):
        path.write_bytes(b"X" + content[1:])
    found = damaged_outputs(root, ["preprocess"])
    drop(root, found)

    assert found == {name: md5}
    assert not (root / name).exists()
    assert not object_path(root, md5).exists()
    assert md5 in caplog.text
    assert damaged(root) == set(), "what is missing is left to DVC"


def test_a_whole_object_stays_where_only_the_file_is_damaged(root: Path) -> None:
    (root / "alone.txt").write_bytes(b"Xlone")
    found = damaged_outputs(root, ["preprocess"])
    drop(root, found)

    assert object_path(root, found["alone.txt"]).read_bytes() == b"alone"


def test_a_damaged_listing_stands_for_its_folder(root: Path) -> None:
    md5 = keep_folder(root, FILES)
    object_path(root, md5).write_text("[]", encoding="utf-8")
    found = damaged_outputs(root, ["preprocess"])
    drop(root, found)

    assert found == {"data/prepared": md5}
    assert not (root / "data/prepared").exists()
    assert not object_path(root, md5).exists()


def test_what_was_found_whole_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert damaged(root) == set()
    before = (root / RECORD).stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("flows.dvc_adapter.file_integrity.VerifiedFiles._hash", lambda *_: pytest.fail("a file was read"))
        assert damaged(root) == set()
    assert (root / RECORD).stat().st_mtime_ns == before
    assert damaged_outputs(root, ["preprocess"], anew=True) == {}


@pytest.mark.parametrize("content", ["", "[]", "{broken", '{"alone.txt": 1}'])
def test_a_broken_record_is_made_anew(root: Path, content: str) -> None:
    (root / "var").mkdir(exist_ok=True)
    (root / RECORD).write_text(content, encoding="utf-8")
    (root / "alone.txt").write_bytes(b"Xlone")

    assert damaged(root) == {"alone.txt"}


@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_snapshot_is_removed_so_that_it_is_taken_anew(tmp_path: Path, tickets: pd.DataFrame, gone: bool) -> None:
    tickets.to_csv(tmp_path / "rows.csv", index=False)
    place = Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")
    take_snapshot(tmp_path, place.raw, snapshot=SnapshotParams(source="rows.csv"), required=("text", "label"))
    repair_input(place, place.raw)
    assert place.raw.is_dir()

    (part,) = place.raw.glob("*.parquet")
    part.unlink() if gone else part.write_bytes(part.read_bytes()[:-1] + b"X")
    assert damaged_input(tmp_path, place.raw) == [f"data/raw/{part.name}"]
    repair_input(place, place.raw)
    assert not place.raw.exists()
