"""s3://BUCKET/PREFIX, against a local moto server: which objects are read, and the errors."""

import re
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import read_snapshot
from components.core.errors import BadParams, BadSource, RetuneError, Unavailable
from components.data.snapshot import SnapshotParams, take_snapshot
from components.data.snapshot.sources import s3
from tests.support.s3 import CREDENTIALS, client, environment, let_in, new_bucket, put_at_once


def csv(*texts: str) -> bytes:
    return ("text,label\n" + "".join(f"{text},x\n" for text in texts)).encode()


OBJECTS = {
    "labels/": b"",
    "labels/2026/a.csv": csv("a"),
    "labels/2026/b c+ä.CSV": csv("b"),
    "labels/2027/c.csv": csv("c"),
    "labels/README.md": b"not data",
    "labels/_temporary/0/d.csv": csv("half written"),
    "labels/.hidden.csv": csv("hidden"),
    "labels-old/e.csv": csv("old"),
    "other/f.jsonl": b'{"text": "f", "label": "x"}\n',
    "other/../g.csv": csv("up"),
}


@pytest.fixture(scope="module")
def bucket() -> str:
    return new_bucket(OBJECTS)


def take(root: Path, source: str, **changes: str | None) -> SnapshotManifest:
    variables = {name: value for name, value in {**environment(), **changes}.items() if value is not None}
    return take_snapshot(root, root / "raw", snapshot=SnapshotParams(source=source), environment=variables)


def texts(root: Path) -> list[str]:
    return sorted(read_snapshot(root / "raw")["text"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("labels", ["a", "b", "c"]),
        ("labels/", ["a", "b", "c"]),
        ("labels/2026", ["a", "b"]),
        ("labels/2026/a.csv", ["a"]),
        ("labels/.hidden.csv", ["hidden"]),
        ("labels/*/?.csv", ["a", "c", "half written"]),
        ("labels/**/c.csv", ["c"]),
        ("lab*/[ae].csv", ["a", "old"]),
        ("other/*.csv", ["up"]),
    ],
)
def test_prefix_is_a_folder_and_glob_matches_objects(tmp_path: Path, bucket: str, pattern: str, expected: list[str]) -> None:
    manifest = take(tmp_path, f"s3://{bucket}/{pattern}")

    assert texts(tmp_path) == expected
    assert (manifest.source, manifest.format) == (f"s3://{bucket}/{pattern}", "csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


@pytest.mark.slow
def test_all_pages_of_objects_are_read(tmp_path: Path) -> None:
    bucket = new_bucket({})
    for number in range(1_001):
        put_at_once(bucket, f"{number:04}.csv" if number in (0, 1_000) else f"{number:04}.txt", csv(str(number)))

    take(tmp_path, f"s3://{bucket}")

    assert texts(tmp_path) == ["0", "1000"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("none", "no file with the extension .csv, .tsv, "),
        ("labels/README.md", "README.md: unknown extension '.md'; expected .csv"),
        ("labels/R*", "no file with the extension .*; found 1 other files, such as labels/README.md"),
        ("", r"expected files of one format, found .*\(csv\), f.jsonl \(jsonl\); choose with a glob"),
    ],
)
def test_prefix_without_data_or_with_two_formats_is_refused(tmp_path: Path, bucket: str, pattern: str, expected: str) -> None:
    with pytest.raises(BadSource, match=rf"s3://{bucket}/{re.escape(pattern)}: {expected}"):
        take(tmp_path, f"s3://{bucket}/{pattern}")


@pytest.mark.slow
def test_bad_object_is_named_and_keeps_the_snapshot(tmp_path: Path, bucket: str) -> None:
    first = take(tmp_path, f"s3://{bucket}/labels")
    bad = new_bucket({"x/a.csv": csv("a"), "x/b.csv": b"text,label\nonly one cell\n", "y/a.csv": csv("a"), "y/b.csv": b"text,other\na,b\n"})

    with pytest.raises(BadSource, match=f"s3://{bad}/x/b.csv: row 1 .line 2. has 1 cells, the header has 2"):
        take(tmp_path, f"s3://{bad}/x")
    with pytest.raises(BadSource, match=f"s3://{bad}/y/b.csv: expected the same columns as in a.csv"):
        take(tmp_path, f"s3://{bad}/y")

    assert SnapshotManifest.read(tmp_path / "raw") == first
    assert not list(tmp_path.glob(".raw*"))


# An object that changes while it is read


@pytest.mark.slow
@pytest.mark.parametrize("change", ["written", "removed"])
def test_objects_that_change_twice_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    bucket = new_bucket({"a.csv": csv("a"), "b.csv": csv("b"), "c.csv": csv("c")})
    first = take(tmp_path, f"s3://{bucket}")
    listing, remaining = s3.list_objects, ["b", "c"]

    def list_and_change(*arguments: Any) -> list[s3.Object]:
        objects, name = listing(*arguments), remaining.pop(0)
        if change == "removed":
            client().delete_object(Bucket=bucket, Key=f"{name}.csv")
        else:
            client().put_object(Bucket=bucket, Key=f"{name}.csv", Body=csv("z"))  # of the same size
        return objects

    monkeypatch.setattr(s3, "list_objects", list_and_change)

    with pytest.raises(Unavailable, match=f"s3://{bucket}: an object was changed or removed while it was read"):
        take(tmp_path, f"s3://{bucket}")
    assert SnapshotManifest.read(tmp_path / "raw") == first
    assert not list(tmp_path.glob(".raw*"))


def test_objects_that_change_once_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = new_bucket({"a.csv": csv("a")})
    download = s3.download

    def download_and_add(*arguments: Any) -> None:
        download(*arguments)
        client().put_object(Bucket=bucket, Key="b.csv", Body=csv("b"))

    monkeypatch.setattr(s3, "download", download_and_add)

    assert take(tmp_path, f"s3://{bucket}").rows == 2


@pytest.mark.slow
def test_class_names_come_from_the_card_in_the_bucket(tmp_path: Path) -> None:
    card = "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names: {'0': no, '1': 'yes'}\n---\n"
    bucket = new_bucket({"set/README.md": card.encode(), "set/data/a.csv": b"text,label\na,1\nb,0\n", "README.md": b"---\n[\n---\n"})

    take(tmp_path, f"s3://{bucket}/set")

    assert set(read_snapshot(tmp_path / "raw")["label"]) == {"yes", "no"}


def test_object_with_another_size_than_listed_is_an_error(tmp_path: Path) -> None:
    bucket = new_bucket({"a.csv": csv("a")})
    (listed,) = s3.list_objects(client(), bucket, "")

    with pytest.raises(Unavailable, match="listed with 99 bytes"):
        s3.download(client(), bucket, s3.Object(listed.key, listed.etag, 99), tmp_path / "part.csv")


# Access errors and missing objects


def test_missing_bucket_is_named_with_the_endpoint(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"s3://no-such-bucket/x: http://127\.0\.0\.1:\d+ answers NoSuchBucket, The specified"):
        take(tmp_path, "s3://no-such-bucket/x")


@pytest.fixture
def locked() -> Iterator[None]:
    """The server refuses all credentials."""
    let_in(0)
    yield
    let_in(float("inf"))


@pytest.mark.usefixtures("locked")
def test_forbidden_error_names_the_permissions_and_no_secret(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(BadSource, match=r"forbidden; .* answers InvalidAccessKeyId, .* need s3:ListBucket and s3:GetObject") as caught:
        take(tmp_path, f"s3://{bucket}/labels")

    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in "".join(traceback.format_exception(caught.value))


@pytest.mark.slow
def test_missing_credentials_are_reported(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    unset: dict[str, str | None] = dict.fromkeys(CREDENTIALS)

    with pytest.raises(BadSource, match="no credentials; expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        take(tmp_path, f"s3://{bucket}/labels", **unset)
    with pytest.raises(BadSource, match=r"the AWS_… variables are invalid: .*(artial|incomplete)"):
        take(tmp_path, f"s3://{bucket}/labels", **{**unset, "AWS_ACCESS_KEY_ID": "AKIA"})


def closed() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("endpoint", "error", "expected"),
    [
        ("http://me:hush@{closed}", Unavailable, r"the endpoint is unreachable: Could not connect to .*//\*\*\*@127\.0\.0\.1"),
        ("me:hush@nowhere", BadSource, "the AWS_… variables are invalid: Invalid endpoint"),
    ],
)
def test_only_an_unreachable_endpoint_is_worth_a_retry(tmp_path: Path, endpoint: str, error: type[RetuneError], expected: str) -> None:
    with pytest.raises(error, match=expected) as caught:
        take(tmp_path, "s3://bucket/x", AWS_ENDPOINT_URL_S3=endpoint.format(closed=closed()))

    assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("source", ["s3://", "s3:///labels", "s3://me:hush@bucket/labels"])
def test_address_needs_a_bucket(tmp_path: Path, source: str) -> None:
    with pytest.raises(BadParams, match="expected s3://BUCKET/PREFIX, found no bucket name") as caught:
        take(tmp_path, source)

    assert "hush" not in str(caught.value)
