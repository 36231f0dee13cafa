"""Two makings of one version, compared file by file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts.predictions import Predictions
from flows.audit.compare import answers_apart, compare, files_of, metrics_apart
from flows.audit.rebuild import compare_files
from flows.dvc_adapter.config import cache_folder
from tests.support.cached import keep, keep_folder


def lock_of(root: Path, **files: bytes) -> dict[str, Any]:
    """A lock whose stage `train` wrote the folder `out` with these files."""
    return {"stages": {"train": {"outs": [{"path": "out", "md5": keep_folder(root, files)}]}}}


def test_a_folder_is_compared_file_by_file(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    before = files_of(lock_of(old, weights=b"1", tokenizer=b"t"), "train", old)
    after = files_of(lock_of(new, weights=b"2", tokenizer=b"t", extra=b"e"), "train", new)

    outputs = compare("train", before, after, old, new)

    assert {output.path: output.equal for output in outputs} == {"out/weights": False, "out/tokenizer": True, "out/extra": False}


def made(root: Path, **files: bytes) -> dict[str, Any]:
    """A second making: its files in `root`, and its lock."""
    for name, content in files.items():
        (root / "out").mkdir(parents=True, exist_ok=True)
        (root / "out" / name).write_bytes(content)
    lock = lock_of(root, **files)
    (root / "dvc.lock").write_text(json.dumps(lock))
    return lock


def first_making(root: Path, **files: bytes) -> dict[str, Any]:
    """The lock of a first making whose listing is gone from the cache."""
    lock = lock_of(root, **files)
    md5 = lock["stages"]["train"]["outs"][0]["md5"]
    (cache_folder(root) / "files/md5" / md5[:2] / md5[2:]).unlink()
    return lock


def test_a_folder_whose_listing_is_gone_is_equal_when_its_own_hash_is(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    made(new, weights=b"1", tokenizer=b"t")

    found = compare_files(first_making(old, weights=b"1", tokenizer=b"t"), old, new, ["train"])

    assert (found.words, found.differences, found.notes) == ({"train": "1 files equal"}, (), ())


def test_a_folder_whose_listing_is_gone_and_whose_hash_is_another_differs_unless_times_may_be_why(tmp_path: Path) -> None:
    old, new, timed = tmp_path / "old", tmp_path / "new", tmp_path / "timed"
    first = first_making(old, weights=b"1")
    made(new, weights=b"2")
    made(timed, **{"weights": b"1", "training.json": b'{"seconds": 2.0}'})

    differs, unknown = (compare_files(first, old, root, ["train"]) for root in (new, timed))

    assert (differs.words, len(differs.differences), differs.notes) == ({"train": "1 of 1 files differ"}, 1, ())
    assert (unknown.words, unknown.differences) == ({"train": "0 files equal, 1 cannot be compared"}, ())
    assert unknown.notes == ("out cannot be compared: it holds times, and the first one is gone from DVC's cache",)


def test_a_record_whose_first_bytes_are_gone_cannot_be_compared_where_it_holds_times_and_differs_otherwise(tmp_path: Path) -> None:
    for content, equal in ((b'{"value": 0.7, "seconds": 9.0}', None), (b'{"value": 0.7}', False), (b"[{}]", False)):
        (tmp_path / "best.json").write_bytes(content)
        (output,) = compare("tune", {"best.json": "0" * 32}, {"best.json": keep(tmp_path, content)}, tmp_path, tmp_path)
        assert output.equal is equal


def test_a_record_that_differs_in_times_alone_is_equal(tmp_path: Path) -> None:
    def record(root: Path, **fields: object) -> str:
        content = json.dumps(fields).encode()
        (root / "models").mkdir(parents=True, exist_ok=True)
        (root / "models/best.json").write_bytes(content)
        return keep(root, content)

    old, same, other = tmp_path / "old", tmp_path / "same", tmp_path / "other"
    before = {"models/best.json": record(old, value=0.7, seconds=3.0)}

    for root, fields, equal in ((same, {"value": 0.7, "seconds": 9.0}, True), (other, {"value": 0.8, "seconds": 3.0}, False)):
        (output,) = compare("tune", before, {"models/best.json": record(root, **fields)}, old, root)
        assert output.equal is equal


def test_metrics_that_moved_are_told_with_both_values() -> None:
    same = {"value": 0.7, "low": 0.6, "high": 0.8}

    assert metrics_apart({"accuracy": same}, {"accuracy": same}) == []
    (said,) = metrics_apart({"accuracy": same}, {"accuracy": {**same, "value": 0.71}})
    assert said == "test accuracy: was 0.700000 (0.600000 to 0.800000), is 0.710000"


def test_answers_that_moved_are_counted_and_measured() -> None:
    def answers(predicted: list[str], sure: float) -> Predictions:
        texts = [np.array(column, dtype=np.str_) for column in (["1", "2"], ["1", "2"], ["a", "b"], predicted)]
        return Predictions(*texts, np.array([[sure, 1 - sure]] * 2), ("a", "b"))

    assert answers_apart(answers(["a", "b"], 0.9), answers(["a", "b"], 0.9)) is None
    said = answers_apart(answers(["a", "b"], 0.9), answers(["a", "a"], 0.8))
    assert said == "1 of 2 test rows are answered otherwise; the largest difference of a probability is 1.00e-01"
