"""Compare a rebuilt version with the original, file by file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts.predictions import Predictions
from flows.audit.compare import compare, metric_differences, prediction_difference, stage_files
from flows.audit.rebuild import compare_files
from flows.dvc_adapter.config import cache_folder
from tests.support.cached import keep, keep_folder


def lock_of(root: Path, **files: bytes) -> dict[str, Any]:
    """A lock whose stage `train` wrote the folder `out` with these files."""
    return {"stages": {"train": {"outs": [{"path": "out", "md5": keep_folder(root, files)}]}}}


def test_folder_is_compared_file_by_file(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    before = stage_files(lock_of(old, weights=b"1", tokenizer=b"t"), "train", old)
    after = stage_files(lock_of(new, weights=b"2", tokenizer=b"t", extra=b"e"), "train", new)

    outputs = compare("train", before, after, old, new)

    assert {output.path: output.equal for output in outputs} == {"out/weights": False, "out/tokenizer": True, "out/extra": False}


def rebuilt(root: Path, **files: bytes) -> dict[str, Any]:
    """Write the rebuilt files to `root` and return their lock."""
    for name, content in files.items():
        (root / "out").mkdir(parents=True, exist_ok=True)
        (root / "out" / name).write_bytes(content)
    lock = lock_of(root, **files)
    (root / "dvc.lock").write_text(json.dumps(lock))
    return lock


def original_lock(root: Path, **files: bytes) -> dict[str, Any]:
    """Return the lock of an original build whose listing is missing from the cache."""
    lock = lock_of(root, **files)
    md5 = lock["stages"]["train"]["outs"][0]["md5"]
    (cache_folder(root) / "files/md5" / md5[:2] / md5[2:]).unlink()
    return lock


def test_unlisted_folder_with_equal_hash_is_equal(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    rebuilt(new, weights=b"1", tokenizer=b"t")

    comparison = compare_files(original_lock(old, weights=b"1", tokenizer=b"t"), old, new, ["train"])

    assert (comparison.summaries, comparison.differences, comparison.notes) == ({"train": "1 files equal"}, (), ())


def test_unlisted_folder_differs_unless_it_has_times(tmp_path: Path) -> None:
    old, new, timed = tmp_path / "old", tmp_path / "new", tmp_path / "timed"
    first = original_lock(old, weights=b"1")
    rebuilt(new, weights=b"2")
    rebuilt(timed, **{"weights": b"1", "training.json": b'{"seconds": 2.0}'})

    differs, unknown = (compare_files(first, old, root, ["train"]) for root in (new, timed))

    assert (differs.summaries, len(differs.differences), differs.notes) == ({"train": "1 of 1 files differ"}, 1, ())
    assert (unknown.summaries, unknown.differences) == ({"train": "0 files equal, 1 cannot be compared"}, ())
    assert unknown.notes == ("out cannot be compared: it contains timings, and the original is missing from DVC's cache",)


def test_missing_original_is_incomparable_only_with_times(tmp_path: Path) -> None:
    for content, equal in ((b'{"value": 0.7, "seconds": 9.0}', None), (b'{"value": 0.7}', False), (b"[{}]", False)):
        (tmp_path / "best.json").write_bytes(content)
        (output,) = compare("tune", {"best.json": "0" * 32}, {"best.json": keep(tmp_path, content)}, tmp_path, tmp_path)
        assert output.equal is equal


def test_record_that_differs_only_in_times_is_equal(tmp_path: Path) -> None:
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


def test_changed_metric_is_described_with_both_values() -> None:
    same = {"value": 0.7, "low": 0.6, "high": 0.8}

    assert metric_differences({"accuracy": same}, {"accuracy": same}) == []
    (difference,) = metric_differences({"accuracy": same}, {"accuracy": {**same, "value": 0.71}})
    assert difference == "test accuracy: was 0.700000 (0.600000 to 0.800000), is 0.710000"


def test_changed_predictions_are_counted_and_measured() -> None:
    def answers(predicted: list[str], sure: float) -> Predictions:
        texts = [np.array(column, dtype=np.str_) for column in (["1", "2"], ["1", "2"], ["a", "b"], predicted)]
        return Predictions(*texts, np.array([[sure, 1 - sure]] * 2), ("a", "b"))

    assert prediction_difference(answers(["a", "b"], 0.9), answers(["a", "b"], 0.9)) is None
    difference = prediction_difference(answers(["a", "b"], 0.9), answers(["a", "a"], 0.8))
    assert difference == "1 of 2 predictions differ; the largest difference of a probability is 1.00e-01"
