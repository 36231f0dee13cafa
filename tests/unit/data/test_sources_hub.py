"""hub://ORG/NAME@REVISION: the data files of a commit, from the hub's cache, and from a hub on loopback."""

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
def test_the_data_files_of_a_commit_are_read_and_the_commit_is_recorded(
    tmp_path: Path, files: str, expected: list[str], revision: str
) -> None:
    in_cache(tmp_path / "hub", FILES)

    manifest = take(tmp_path, f"hub://acme/tickets@{revision}{files}")

    assert texts(tmp_path) == expected
    assert (manifest.source, manifest.format) == (f"hub://acme/tickets@{COMMIT}{files}", "csv")


@pytest.mark.parametrize(
    "source", ["hub://acme/tickets", "hub://acme/tickets@", "hub://", "hub://@main", "hub://a/b/c@main", "hub://acme/t@main#"]
)
def test_a_revision_cannot_be_left_out(tmp_path: Path, source: str) -> None:
    with pytest.raises(BadParams, match=r"expected hub://ORG/NAME@REVISION.* cannot be left out"):
        take(tmp_path, source)


def test_what_is_not_in_the_cache_is_not_looked_for_while_the_hub_is_switched_off(tmp_path: Path) -> None:
    in_cache(tmp_path / "hub", FILES)

    for source in ("hub://acme/other@main", "hub://acme/tickets@v2"):
        with pytest.raises(BadSource, match=f"{source}: it is not in the local cache of the hub.* HF_HUB_OFFLINE=0 to download it"):
            take(tmp_path, source)
    with pytest.raises(BadSource, match=r"hub://\.acme/tickets@main: the hub answers: "):
        take(tmp_path, "hub://.acme/tickets@main")


def test_a_cache_that_lacks_a_file_of_the_commit_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    in_cache(tmp_path / "hub", {"data/train-0.csv": csv("a")})
    listing = {"format_version": 1, "files": {name: {"size": len(body), "blob_id": "0"} for name, body in FILES.items()}}
    trees = tmp_path / "hub/datasets--acme--tickets/trees"
    trees.mkdir()
    (trees / f"{COMMIT}.json").write_text(json.dumps(listing), encoding="utf-8")

    with pytest.raises(BadSource, match="it is not in the local cache of the hub, or not whole"):
        take(tmp_path, "hub://acme/tickets@main")
    assert take(tmp_path, "hub://acme/tickets@main#data/train-*").rows == 1


def test_a_dataset_without_data_or_in_two_formats_is_refused(tmp_path: Path) -> None:
    in_cache(tmp_path / "hub", {"tickets.py": b"", "data.zip": b"", "old/a.csv": csv("a"), "old/a.parquet": b""})

    with pytest.raises(
        BadSource, match=r"hub://acme/tickets@main#new: nothing there ends in .*; there are 4 others, as data\.zip, old/a\.csv"
    ):
        take(tmp_path, "hub://acme/tickets@main#new")
    with pytest.raises(BadSource, match=r"hub://acme/tickets@main: expected files of one format, found a\.csv \(csv\), a\.parquet"):
        take(tmp_path, "hub://acme/tickets@main")


def test_a_branch_from_the_cache_is_told_to_be_perhaps_an_old_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    in_cache(tmp_path / "hub", FILES)

    take(tmp_path, f"hub://acme/tickets@{COMMIT}")
    assert "switched off" not in caplog.text
    take(tmp_path, "hub://acme/tickets@main")
    assert f"hub://acme/tickets@main is taken as it was when it was last downloaded, commit {COMMIT}" in caplog.text


# A process of its own: the client reads where the hub is when it is imported. An address a line is asked for.
ASK = """
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
def asking(root: Path, hub: Hub) -> Iterator[Callable[[str], str]]:
    """Give what takes a snapshot of an address in that process, and returns what came of it."""
    settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(root / "hub"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment = {**os.environ, **settings, "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", ASK, str(root)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

        def ask(source: str) -> str:
            assert child.stdin is not None
            assert child.stdout is not None
            print(source, file=child.stdin, flush=True)
            return str(json.loads(child.stdout.readline()))

        yield ask


def test_a_branch_is_asked_for_anew_and_only_data_is_downloaded(tmp_path: Path) -> None:
    with serving(Hub({COMMIT: FILES}, {"main": COMMIT})) as hub, asking(tmp_path, hub) as ask:
        assert ask("hub://acme/tickets@main") == f"3 of hub://acme/tickets@{COMMIT}"
        downloaded = {path for path in hub.asked if "/resolve/" in path}
        assert len(downloaded) == 5
        assert all(path.lower().endswith((".csv", "/readme.md")) for path in downloaded)

        hub.commits[LATER], hub.branches["main"] = {**FILES, "data/train-1.csv": csv("e")}, LATER
        assert ask("hub://acme/tickets@main") == f"4 of hub://acme/tickets@{LATER}"
        assert ask("hub://acme/tickets@v9").startswith("BadSource hub://acme/tickets@v9: the hub answers: ")
        hub.status = 503
        assert ask("hub://acme/tickets@main").startswith("Unavailable hub://acme/tickets@main: the hub is busy: ")
        hub.close()  # what the branch was last is not what it is, and a commit is
        assert ask("hub://acme/tickets@main").startswith("Unavailable hub://acme/tickets@main: the hub is out of reach: ")
        assert ask(f"hub://acme/tickets@{COMMIT}") == f"3 of hub://acme/tickets@{COMMIT}"
