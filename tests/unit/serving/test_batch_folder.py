"""The folder of parts: each part is written once, a killed scoring is resumed, and files of other programs are kept."""

import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import BadInput, Unavailable
from components.core.hashing import digest_file
from components.serving.batch.folder import FolderTarget
from components.serving.batch.records import ScoringManifest
from tests.support.scored import FINAL, PLAN, part


def fill(folder: FolderTarget, parts: Mapping[int, tuple[pa.Table, pa.Table]], stop: int = 9) -> None:
    """Add the remaining of the first `stop` parts."""
    done = folder.resume().rows
    before = 0
    for scored, bad in list(parts.values())[:stop]:
        if before >= done:
            folder.add((), scored, bad)
        before += scored.num_rows + bad.num_rows


PARTS = {0: (part(1, 2), part()), 1: (part(), part(3, 4)), 2: (part(5), part())}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def complete(folder: Path) -> FolderTarget:
    out = FolderTarget(folder)
    with out.locked():
        out.begin(PLAN)
        fill(out, PARTS)
        out.finish(FINAL)
    return out


def test_complete_folder_has_parts_quarantine_and_manifest(tmp_path: Path) -> None:
    complete(tmp_path / "out")
    manifest = ScoringManifest.read(tmp_path / "out")

    assert set(content(tmp_path / "out")) == {*(f"part-0000{n}.parquet" for n in range(3)), "quarantine.parquet", "manifest.json"}
    assert [part.rows for part in manifest.parts] == [2, 0, 1]
    assert manifest.quarantine is not None
    assert all(digest_file(tmp_path / "out" / file.name) == file.sha256 for file in (*manifest.parts, manifest.quarantine))
    assert pq.read_table(tmp_path / "out/quarantine.parquet").column("id").to_pylist() == [3, 4]


@pytest.mark.parametrize("damage", ["truncated line", "changed part", "missing part", "missing quarantine"])
def test_folder_resumes_after_the_last_complete_part(tmp_path: Path, damage: str) -> None:
    complete(tmp_path / "whole")
    out = FolderTarget(tmp_path / "out")
    with out.locked():
        out.begin(PLAN)
        fill(out, PARTS, stop=2)
    folder = tmp_path / "out"
    if damage == "truncated line":
        lines = (folder / "parts.jsonl").read_text()
        (folder / "parts.jsonl").write_text(lines[:-9])
    elif damage == "changed part":
        pq.write_table(part(8, 9), folder / "part-00001.parquet")
    else:
        (folder / ("part-00001.parquet" if damage == "missing part" else "quarantine-00001.parquet")).unlink()
    for owner in ("", "retune-host-1-2.5-0."):
        (folder / f"{owner}part-00002.parquet.partial").write_text("truncated")
        (folder / f"{owner}progress.json.partial").write_text("truncated")

    again = FolderTarget(folder)
    with again.locked():
        assert again.unfinished() == PLAN
        assert again.resume().rows == 2
        fill(again, PARTS)
        again.finish(FINAL)

    assert content(folder) == content(tmp_path / "whole")


def test_complete_folder_is_only_replaced_on_request(tmp_path: Path) -> None:
    out = complete(tmp_path / "out")
    before = content(tmp_path / "out")
    PLAN.write(tmp_path / "out")  # state after a kill right after the manifest
    with out.locked(), pytest.raises(BadInput, match="out is complete: 3 rows scored by models:/tickets/1; pass --replace to start again"):
        out.unfinished()
    assert content(tmp_path / "out") == before

    with out.locked():
        out.clear()
        with pytest.raises(BadInput, match="an earlier --replace was interrupted; pass --replace"):  # state after a kill here
            out.unfinished()
        out.clear()
        out.begin(PLAN)
        assert set(content(tmp_path / "out")) == {"progress.json"}
        assert out.unfinished() == PLAN


@pytest.mark.parametrize("name", ["notes.txt", "part-00000.parquet", "manifest.json", "progress.json", "replaced.json"])
def test_files_of_other_programs_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.txt").write_text("a file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"name": "another program"}')
    out = FolderTarget(tmp_path / "out")

    with out.locked():
        for call in (out.unfinished, out.clear) if name != "replaced.json" else (out.clear,):
            with pytest.raises(BadInput, match=f"out contains {name}, which `retune score` did not write"):
                call()
    assert (tmp_path / "out" / name).read_text() == '{"name": "another program"}'
    with pytest.raises(BadInput, match="cannot create a folder here"), FolderTarget(tmp_path / "out.txt").locked():
        pass


def test_replacing_keeps_other_files(tmp_path: Path) -> None:
    out = complete(tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")
    with out.locked():
        out.clear()
    assert set(content(tmp_path / "out")) == {"notes.txt", "replaced.json"}


@pytest.mark.slow
def test_folder_is_locked_and_removed_if_empty(tmp_path: Path) -> None:
    imports = "import sys; from pathlib import Path; from components.serving.batch.folder import FolderTarget"
    code = f"{imports}\nwith FolderTarget(Path(sys.argv[1])).locked(): pass"
    with FolderTarget(tmp_path / "out").locked():
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
        with pytest.raises(Unavailable, match="another process is scoring into this folder"), FolderTarget(tmp_path / "out").locked():
            pass
    assert "Unavailable" in other.stderr
    assert not (tmp_path / "out").exists()


def test_full_disk_is_unavailable_and_keeps_parts(tmp_path: Path) -> None:
    out = FolderTarget(tmp_path / "out")
    with out.locked():
        out.begin(PLAN)
        fill(out, PARTS, stop=1)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))  # larger files fail with EFBIG
        try:
            with pytest.raises(Unavailable, match=r"no space left .*the parts so far are complete, run again to continue"):
                out.add((), part(*range(1_000)), part())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert out.resume().rows == 2
