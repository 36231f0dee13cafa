"""Read files and folders from DVC's cache."""

from pathlib import Path

import pytest

from components.core.errors import NotFound
from flows.dvc_adapter.cache import cached_file, cached_folder
from flows.dvc_adapter.config import cache_folder
from tests.support.cached import keep, keep_folder


@pytest.fixture
def folder_md5(tmp_path: Path) -> str:
    return keep_folder(tmp_path, {"test.parquet": b"rows", "sub/deep.txt": b"deep"})


def test_folder_is_restored_completely(tmp_path: Path, folder_md5: str) -> None:
    back = cached_folder(tmp_path, folder_md5, tmp_path / "back")

    assert {path.relative_to(back).as_posix(): path.read_bytes() for path in back.rglob("*") if path.is_file()} == {
        "test.parquet": b"rows",
        "sub/deep.txt": b"deep",
    }


def test_single_file_of_folder_is_read_from_cache(tmp_path: Path, folder_md5: str) -> None:
    assert cached_file(tmp_path, folder_md5, "test.parquet").read_bytes() == b"rows"
    assert cached_file(tmp_path, keep(tmp_path, b"rows")).read_bytes() == b"rows"
    with pytest.raises(NotFound, match=r"no train.parquet; it has sub/deep.txt, test.parquet"):
        cached_file(tmp_path, folder_md5, "train.parquet")


def test_missing_object_suggests_dvc_pull_and_writes_nothing(tmp_path: Path, folder_md5: str) -> None:
    cached_file(tmp_path, folder_md5, "sub/deep.txt").unlink()

    with pytest.raises(NotFound, match="dvc pull"):
        cached_folder(tmp_path, folder_md5, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_corrupt_object_is_rejected(tmp_path: Path, folder_md5: str) -> None:
    cached_file(tmp_path, folder_md5, "test.parquet").write_bytes(b"other")

    with pytest.raises(NotFound, match="corrupt"):
        cached_file(tmp_path, folder_md5, "test.parquet")


def test_cache_folder_follows_configuration(tmp_path: Path) -> None:
    assert cache_folder(tmp_path) == tmp_path / ".dvc/cache"
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    remote = local\n['remote \"local\"']\n    url = x%20y\n[cache]\n    dir = /shared\n")
    assert cache_folder(tmp_path) == Path("/shared")
    (tmp_path / ".dvc/config.local").write_text("[cache]\n    dir = ../mine\n")
    assert cache_folder(tmp_path) == tmp_path / "mine"
