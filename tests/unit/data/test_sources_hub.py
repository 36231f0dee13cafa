"""hub://ORG/NAME@REVISION: the data files of a commit, from the hub's cache and from a local test hub."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import read_snapshot
from components.core.errors import BadParams, BadSource
from components.data.snapshot import SnapshotParams, take_snapshot
from tests.support.hub import Hub, serving
from tests.support.project import started
from tests.support.sources.hub import COMMIT, in_cache

LATER = "f" * 40


def csv(*texts: str) -> bytes:
    return ("text,label\n" + "".join(f"{text},x\n" for text in texts)).encode()


FILES = {
    "data/train-0.csv": csv("a"),
    "data/test-0.csv": csv("b"),
    "extra/more.CSV": csv("c"),
    "tickets.py": b"raise SystemExit('a script was run')",
    "README.md": b"---\nlicense: cc0-1.0\n---\n",
    ".hidden/d.csv": csv("hidden"),
}


def take(root: Path, source: str) -> SnapshotManifest:
    environment = {**os.environ, "HF_HUB_CACHE": str(root / "hub")}
    return take_snapshot(root, root / "raw", snapshot=SnapshotParams(source=source), environment=environment)


def texts(root: Path) -> list[str]:
    return sorted(read_snapshot(root / "raw")["text"])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("", ["a", "b", "c"]),
        ("#data", ["a", "b"]),
        ("#data/train-*.csv", ["a"]),
        ("#**/*-0.csv", ["a", "b"]),
        ("#extra/more.CSV", ["c"]),
    ],
)
@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_data_files_of_a_commit_are_read_and_recorded(tmp_path: Path, files: str, expected: list[str], revision: str) -> None:
    in_cache(tmp_path / "hub", FILES)

    manifest = take(tmp_path, f"hub://acme/tickets@{revision}{files}")

    assert texts(tmp_path) == expected
    assert (manifest.source, manifest.format) == (f"hub://acme/tickets@{COMMIT}{files}", "csv")


@pytest.mark.parametrize(
    "source", ["hub://acme/tickets", "hub://acme/tickets@", "hub://", "hub://@main", "hub://a/b/c@main", "hub://acme/t@main#"]
)
def test_revision_is_required(tmp_path: Path, source: str) -> None:
    with pytest.raises(BadParams, match=r"expected hub://ORG/NAME@REVISION.* is required"):
        take(tmp_path, source)


def test_uncached_dataset_is_refused_while_offline(tmp_path: Path) -> None:
    in_cache(tmp_path / "hub", FILES)

    for source in ("hub://acme/other@main", "hub://acme/tickets@v2"):
        with pytest.raises(BadSource, match=f"{source}: the hub is offline and its local cache.* HF_HUB_OFFLINE=0 to download them"):
            take(tmp_path, source)
    with pytest.raises(BadSource, match=r"hub://\.acme/tickets@main: the hub answers: "):
        take(tmp_path, "hub://.acme/tickets@main")


def test_incomplete_cache_is_refused(tmp_path: Path) -> None:
    in_cache(tmp_path / "hub", {"data/train-0.csv": csv("a")})
    listing = {"format_version": 1, "files": {name: {"size": len(body), "blob_id": "0"} for name, body in FILES.items()}}
    trees = tmp_path / "hub/datasets--acme--tickets/trees"
    trees.mkdir()
    (trees / f"{COMMIT}.json").write_text(json.dumps(listing), encoding="utf-8")

    with pytest.raises(BadSource, match="its local cache does not contain all files"):
        take(tmp_path, "hub://acme/tickets@main")
    assert take(tmp_path, "hub://acme/tickets@main#data/train-*").rows == 1


def test_dataset_without_data_or_in_two_formats_is_refused(tmp_path: Path) -> None:
    in_cache(tmp_path / "hub", {"tickets.py": b"", "data.zip": b"", "old/a.csv": csv("a"), "old/a.parquet": b""})

    with pytest.raises(
        BadSource, match=r"hub://acme/tickets@main#new: no file with the extension .*; found 4 other files, such as data\.zip, old/a\.csv"
    ):
        take(tmp_path, "hub://acme/tickets@main#new")
    with pytest.raises(BadSource, match=r"hub://acme/tickets@main: expected files of one format, found a\.csv \(csv\), a\.parquet"):
        take(tmp_path, "hub://acme/tickets@main")


def test_cached_branch_logs_a_warning_while_offline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    in_cache(tmp_path / "hub", FILES)

    take(tmp_path, f"hub://acme/tickets@{COMMIT}")
    assert "offline" not in caplog.text
    take(tmp_path, "hub://acme/tickets@main")
    assert f"the hub is offline: using the last downloaded commit {COMMIT} of hub://acme/tickets@main" in caplog.text


# A separate process, because the client reads HF_ENDPOINT on import. Reads one address per line.
TAKE = """
import json, sys
from pathlib import Path
from components.core.errors import RetuneError
from components.data.snapshot import SnapshotParams, take_snapshot
for line in sys.stdin:
    try:
        manifest = take_snapshot(Path(sys.argv[1]), Path(sys.argv[1], "raw"), snapshot=SnapshotParams(source=line.strip()))
        print(json.dumps(f"{manifest.rows} of {manifest.source}"), flush=True)
    except RetuneError as error:
        print(json.dumps(f"{type(error).__name__} {error}"), flush=True)
"""


@contextmanager
def snapshot_process(root: Path, hub: Hub) -> Iterator[Callable[[str], str]]:
    """Yield a function that takes a snapshot of an address in that process and returns its result."""
    settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(root / "hub"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment = {**os.environ, **settings, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", TAKE, str(root)]
    with started(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:

        def take_in_process(source: str) -> str:
            assert child.stdin is not None
            assert child.stdout is not None
            print(source, file=child.stdin, flush=True)
            return str(json.loads(child.stdout.readline()))

        yield take_in_process


@pytest.mark.slow
def test_branch_is_resolved_again_and_only_data_is_downloaded(tmp_path: Path) -> None:
    with serving(Hub({COMMIT: FILES}, {"main": COMMIT})) as hub, snapshot_process(tmp_path, hub) as take_in_process:
        assert take_in_process("hub://acme/tickets@main") == f"3 of hub://acme/tickets@{COMMIT}"
        downloaded = {path for path in hub.requests if "/resolve/" in path}
        assert len(downloaded) == 5
        assert all(path.lower().endswith((".csv", "/readme.md")) for path in downloaded)

        hub.commits[LATER], hub.branches["main"] = {**FILES, "data/train-1.csv": csv("e")}, LATER
        assert take_in_process("hub://acme/tickets@main") == f"4 of hub://acme/tickets@{LATER}"
        assert take_in_process("hub://acme/tickets@v9").startswith("BadSource hub://acme/tickets@v9: the hub answers: ")
        hub.status = 503
        assert take_in_process("hub://acme/tickets@main").startswith("Unavailable hub://acme/tickets@main: the hub is busy: ")
        hub.close()  # a cached branch may be stale, a cached commit cannot
        assert take_in_process("hub://acme/tickets@main").startswith("Unavailable hub://acme/tickets@main: the hub is unreachable: ")
        assert take_in_process(f"hub://acme/tickets@{COMMIT}") == f"3 of hub://acme/tickets@{COMMIT}"
