"""A source that changes while it is read is read again, and refused if it changes again."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import components.data.snapshot.take as take_module
from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import read_snapshot
from components.core.errors import Unavailable
from components.data.snapshot import SnapshotParams, read_file, source_changes, take_snapshot
from components.data.snapshot.bucket_sort import Buckets
from components.data.snapshot.sources import SourceRequest, files
from components.serving.batch.files import Files

HEADER = "id,text,label\n"
LINES = [f"{number},text number {number},{'ab'[number % 2]}\n" for number in range(50)]


def write_source(root: Path) -> Path:
    path = root / "parts" / "a.csv"
    path.parent.mkdir()
    path.write_text(HEADER + "".join(LINES), encoding="utf-8")
    return path


def append(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("more,a text more,a\n")


def append_half_a_row(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("more,a te")


def rewrite(path: Path) -> None:
    before = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("text number 7", "text_number_7"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def replace(path: Path) -> None:
    before = path.stat()
    (path.parent / "new").write_bytes(path.read_bytes())
    os.utime(path.parent / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(path.parent / "new", path)


def add(path: Path) -> None:
    (path.parent / f"b{len(list(path.parent.iterdir()))}.csv").write_text(HEADER + "b,another file,a\n", encoding="utf-8")


CHANGES: dict[Callable[[Path], None], str] = {
    append: "a.csv was changed while it was read, from",
    append_half_a_row: "a.csv was changed while it was read, from",
    rewrite: "a.csv was changed while it was read, so",
    replace: "a.csv was changed while it was read, so",
    add: r"b\d.csv was added while the source was read",
}


class FileChanger:
    """Changes a file when its tenth row is read, up to `times` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, change: Callable[[], None], times: int) -> None:
        self.times, self._change = times, change
        changer, add = self, Buckets.add

        def add_row(buckets: Buckets, cells: list[str | None]) -> None:
            add(buckets, cells)
            if buckets.rows == 10 and changer.times:
                changer.times -= 1
                changer._change()

        monkeypatch.setattr(Buckets, "add", add_row)


def take(root: Path, source: str) -> SnapshotManifest:
    return take_snapshot(root, root / "raw", snapshot=SnapshotParams(source=source))


@pytest.mark.parametrize("source", ["parts", "parts/*.csv", "parts/a.csv"])
@pytest.mark.parametrize("change", CHANGES)
def test_source_that_keeps_changing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, change: Callable[[Path], None]
) -> None:
    path = write_source(tmp_path)
    first = take(tmp_path, source)
    changer = FileChanger(monkeypatch, lambda: change(path), times=2)

    if change is add and source == "parts/a.csv":
        assert take(tmp_path, source) == first
        return
    with pytest.raises(Unavailable, match=CHANGES[change]):
        take(tmp_path, source)

    assert changer.times == 0
    assert SnapshotManifest.read(tmp_path / "raw") == first
    assert not list(tmp_path.glob(".raw*"))


@pytest.mark.parametrize("change", [append, rewrite, replace, add])
def test_source_that_changes_once_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    path = write_source(tmp_path)
    FileChanger(monkeypatch, lambda: change(path), times=1)

    manifest = take(tmp_path, "parts")

    assert manifest.rows == len(read_snapshot(tmp_path / "raw")) == 50 + (change in (append, add))
    assert "reading it again" in caplog.text


def test_removed_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_source(tmp_path)
    FileChanger(monkeypatch, path.unlink, times=1)

    with pytest.raises(Exception, match=r"the folder contains no \.csv"):
        take(tmp_path, "parts")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def rename_a_column(path: Path) -> None:
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    frame = frame.rename(columns={"text": "words", "words": "text"})
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


@pytest.mark.parametrize("extension", ["csv", "parquet"])
@pytest.mark.parametrize("change", [cut, empty, rename_a_column, Path.unlink])
@pytest.mark.parametrize("after", ["warn_of_types", "_check_disk_space"])
def test_change_after_the_header_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str, change: Callable[[Path], None], after: str
) -> None:
    path = tmp_path / f"rows.{extension}"
    frame = pd.DataFrame({"id": range(50), "text": [f"a text of number {number}" for number in range(50)], "label": ["a", "b"] * 25})
    frame.to_parquet(path) if extension == "parquet" else frame.to_csv(path, index=False)
    content, original = path.read_bytes(), getattr(take_module, after)
    seen = []

    def step(*arguments: object) -> None:
        original(*arguments)
        seen.append(path.read_bytes())
        if len(seen) == 1:
            change(path)

    def restore(message: str, *_: object) -> None:
        path.write_bytes(content)

    monkeypatch.setattr(take_module, after, step)
    monkeypatch.setattr(source_changes.log, "warning", restore)

    assert take(tmp_path, path.name).rows == 50
    assert len(seen) == 2


def test_changing_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_source(tmp_path)
    monkeypatch.setattr("components.data.snapshot.take.warn_of_types", lambda files: append(path))

    with pytest.raises(Unavailable, match=r"a\.csv was changed while it was read"):
        read_file(path, SnapshotParams(source="-"))


def test_rows_to_score_are_compared_by_files_and_bytes(tmp_path: Path) -> None:
    path = write_source(tmp_path)
    request = SourceRequest(SnapshotParams(source="parts"), tmp_path, {})
    fetched = files.fetch(request, tmp_path)
    source = Files(fetched.files, request.settings, "parts", fetched.relist)
    digest = source.digest()

    assert not source.changed(digest)
    add(path)
    assert source.changed(digest)
    assert not Files(fetched.files, request.settings, "parts").changed(digest)
    append(path)
    assert Files(fetched.files, request.settings, "parts").changed(digest)


def test_sqlite_rows_are_read_in_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (id int, text text)")
        connection.executemany("INSERT INTO t VALUES (?, 'before')", [(number,) for number in range(3_000)])
    connection.close()

    def update() -> None:
        with sqlite3.connect(tmp_path / "t.db") as writer:
            writer.execute("UPDATE t SET text = 'after'")
        writer.close()

    monkeypatch.setattr("components.data.snapshot.sources.sql._REPORT_EVERY", 1_000)
    monkeypatch.setattr("components.data.snapshot.sources.sql.log.info", lambda *_: update())
    settings = SnapshotParams(source="sql://t", query="SELECT * FROM t")
    take_snapshot(tmp_path, tmp_path / "raw", snapshot=settings, environment={"RETUNE_SQL_T": f"sqlite:///{tmp_path / 't.db'}"})

    assert set(read_snapshot(tmp_path / "raw")["text"]) == {"before"}
