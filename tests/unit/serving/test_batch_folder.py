"""The folder of parts: written once each, gone on with after a kill, and never mixed up with what others wrote."""

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
    """Add parts from where the folder stands on, up to `stop` of them."""
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


def test_a_folder_ends_with_parts_quarantine_and_a_manifest_that_tells_their_hashes(tmp_path: Path) -> None:
    complete(tmp_path / "out")
    manifest = ScoringManifest.read(tmp_path / "out")

    assert set(content(tmp_path / "out")) == {*(f"part-0000{n}.parquet" for n in range(3)), "quarantine.parquet", "manifest.json"}
    assert [one.rows for one in manifest.parts] == [2, 0, 1]
    assert manifest.quarantine is not None
    assert all(digest_file(tmp_path / "out" / one.name) == one.sha256 for one in (*manifest.parts, manifest.quarantine))
    assert pq.read_table(tmp_path / "out/quarantine.parquet").column("id").to_pylist() == [3, 4]


@pytest.mark.parametrize("torn", ["a line cut short", "a part that is another one", "a part that is gone", "a quarantine that is gone"])
def test_a_folder_goes_on_behind_the_last_part_that_is_whole_and_ends_the_same(tmp_path: Path, torn: str) -> None:
    complete(tmp_path / "whole")
    out = FolderTarget(tmp_path / "out")
    with out.locked():
        out.begin(PLAN)
        fill(out, PARTS, stop=2)
    place = tmp_path / "out"
    if torn == "a line cut short":
        lines = (place / "parts.jsonl").read_text()
        (place / "parts.jsonl").write_text(lines[:-9])
    elif torn == "a part that is another one":
        pq.write_table(part(8, 9), place / "part-00001.parquet")
    else:
        (place / ("part-00001.parquet" if "part " in torn else "quarantine-00001.parquet")).unlink()
    (place / "part-00002.parquet.partial").write_text("cut short")

    again = FolderTarget(place)
    with again.locked():
        assert again.unfinished() == PLAN
        assert again.resume().rows == 2
        fill(again, PARTS)
        again.finish(FINAL)

    assert content(place) == content(tmp_path / "whole")


def test_a_complete_folder_is_only_replaced_on_request_and_its_leftovers_are_tidied(tmp_path: Path) -> None:
    out = complete(tmp_path / "out")
    before = content(tmp_path / "out")
    PLAN.write(tmp_path / "out")  # as a kill just behind the manifest leaves it
    with out.locked(), pytest.raises(BadInput, match="out is complete: 3 rows scored by models:/tickets/1; --replace begins anew"):
        out.unfinished()
    assert content(tmp_path / "out") == before

    with out.locked():
        out.clear()
        with pytest.raises(BadInput, match="was being replaced; --replace goes on"):  # were it killed here
            out.unfinished()
        out.clear()
        out.begin(PLAN)
        assert set(content(tmp_path / "out")) == {"progress.json"}
        assert out.unfinished() == PLAN


@pytest.mark.parametrize("name", ["notes.txt", "part-00000.parquet", "manifest.json", "progress.json", "replaced.json"])
def test_what_others_have_written_is_neither_gone_on_with_nor_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.txt").write_text("a file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"name": "another program"}')
    out = FolderTarget(tmp_path / "out")

    with out.locked():
        for doing in (out.unfinished, out.clear) if name != "replaced.json" else (out.clear,):
            with pytest.raises(BadInput, match=f"out holds {name}, and is no folder that `retune score` wrote"):
                doing()
    assert (tmp_path / "out" / name).read_text() == '{"name": "another program"}'
    with pytest.raises(BadInput, match="no folder can be made here"), FolderTarget(tmp_path / "out.txt").locked():
        pass


def test_replacing_leaves_alone_what_is_not_ours(tmp_path: Path) -> None:
    out = complete(tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")
    with out.locked():
        out.clear()
    assert set(content(tmp_path / "out")) == {"notes.txt", "replaced.json"}


def test_one_process_at_a_time_and_no_folder_where_nothing_was_written(tmp_path: Path) -> None:
    imports = "import sys; from pathlib import Path; from components.serving.batch.folder import FolderTarget"
    code = f"{imports}\nwith FolderTarget(Path(sys.argv[1])).locked(): pass"
    with FolderTarget(tmp_path / "out").locked():
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
        with pytest.raises(Unavailable, match="another process is scoring into this folder"), FolderTarget(tmp_path / "out").locked():
            pass
    assert "Unavailable" in other.stderr
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_worth_another_try_and_costs_no_part(tmp_path: Path) -> None:
    out = FolderTarget(tmp_path / "out")
    with out.locked():
        out.begin(PLAN)
        fill(out, PARTS, stop=1)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))  # no file may grow beyond it: the kernel then says EFBIG
        try:
            with pytest.raises(Unavailable, match=r"no room .*the parts so far are whole, run again to go on"):
                out.add((), part(*range(1_000)), part())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert out.resume().rows == 2
