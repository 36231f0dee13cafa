"""Damaged inputs are reported in one message: an MLmodel, predictions, a record, standard input, a params path."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.predictions import Predictions
from components.core.errors import BadInput, BadParams, NotFound
from components.mlflow_store.registry import resolve
from components.mlflow_store.registry.package import LOADER, _manifest_faults
from flows.cli.serve import read_lines
from flows.project.init_params import write_params

GOOD = f"flavors:\n  python_function: {{code: code, loader_module: {LOADER}, model_code_path: serving.py}}\n"


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"flavors: 2026-13-45",
        b"flavors: {python_function: [1]}",
        b"flavors: {python_function: a, 1: b}",
        b"[1]",
        b"",
        GOOD.encode() + b"flavors: {}",
        GOOD.encode() + b"  7: {}\n  sklearn: {}\n",
    ],
)
def test_damaged_mlmodel_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "MLmodel").write_bytes(content)

    assert _manifest_faults(tmp_path)


def test_valid_mlmodel_has_no_fault(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(GOOD, encoding="utf-8")

    assert _manifest_faults(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"text"])
def test_damaged_predictions_are_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "candidate.parquet"
    path.write_bytes(content)

    with pytest.raises(NotFound, match=r"candidate\.parquet is damaged .*: delete it; `dvc checkout`"):
        Predictions.read(path)


def test_record_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    (tmp_path / SnapshotManifest.FILE).write_bytes(b"\xff")

    with pytest.raises(NotFound, match="is not UTF-8"):
        SnapshotManifest.read(tmp_path)


@pytest.mark.parametrize("model", ["", "/", "/1", "@champion", "a/x", "a/²", "a/" + "9" * 5_000, "a/1/2"])
def test_invalid_version_name_is_reported(tmp_path: Path, model: str) -> None:
    with pytest.raises(NotFound, match="is not a version: expected NAME, NAME@ALIAS or NAME/VERSION"):
        resolve(f"sqlite:///{tmp_path / 'mlflow.db'}", model)


def test_input_line_that_is_not_utf8_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("eins\nzwölf\r\n".encode() + b"\xff\n")))

    with pytest.raises(BadInput, match="line 3 of standard input is not UTF-8: it contains the byte 0xff"):
        read_lines()


def test_params_path_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    with pytest.raises(BadParams, match="is a folder"):
        write_params(tmp_path / "t.csv", tmp_path, name=None, force=True)


def test_column_name_with_an_emoji_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"a few words about thing {number},{'one' if number % 2 else 'two'}\n" for number in range(20))
    (tmp_path / "t.csv").write_text("text,label😀\n" + rows, encoding="utf-8")
    write_params(Path("t.csv"), Path("params.yaml"), name=None, force=False)

    assert "label😀" in (tmp_path / "params.yaml").read_text(encoding="utf-8")
