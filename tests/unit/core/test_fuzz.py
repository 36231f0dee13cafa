"""Fuzzed settings, artifacts and arguments raise only errors of Retune."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from components.artifacts.manifest import BaseManifest, SnapshotManifest
from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows
from components.core.errors import RetuneError
from components.core.exits import _system_error
from components.data.base_model import _refuse_unfit
from components.evaluation.behaviour import read_cases
from components.mlflow_store.registry.package import _manifest_faults
from flows.cli import app
from flows.dvc_adapter.lock import edited_params, lock_hashes, overtaken_stages
from flows.project.models import survey_models
from flows.project.params import read_params
from flows.schedule.deployments import read_file
from flows.settings import read_settings

ROOT = Path(__file__).parents[3]
DEPLOYMENTS = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
LOCK = """schema: '2.0'
stages:
  validate:
    cmd: exec python -m components validate data/raw data/validated
    deps:
    - {path: data/raw, hash: md5, md5: 0123.dir, size: 1, nfiles: 1}
    params: {params.yaml: {task: text_classification}}
    outs:
    - {path: data/validated, hash: md5, md5: 4567.dir, size: 1}
"""
MLMODEL = """artifact_path: model
flavors:
  python_function:
    {code: code, loader_module: mlflow.pyfunc.model, model_code_path: serving.py}
utc_time_created: '2026-01-01 00:00:00'
"""
POINTER = "outs:\n- {md5: 0123.dir, size: 1, hash: md5, path: raw}\n"
CASES = "invariance:\n- {text: one, changed: two}\n"
ODD = ["2026-13-45", "!!int abc", "9" * 5_000, "[" * 200, "true", ".nan", "1e400", "-1", "''", "{a: 1, a: 2}", "*x", "&x [*x]", "~"]
ODD += ["'\\0'", '"\\0"', "\ud7ff", "{}", "[]", "[[]]"]

few = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def mutated(text: str) -> st.SearchStrategy[bytes]:
    """Return texts with a part replaced, dropped or doubled, or random bytes."""
    lines = text.splitlines(keepends=True)

    def with_odd_value(number: int, value: str) -> bytes:
        name, colon, _ = lines[number].partition(":")
        return "".join([*lines[:number], f"{name}{colon} {value}\n", *lines[number + 1 :]]).encode()

    def with_other_bytes(start: int, length: int, other: bytes) -> bytes:
        data = text.encode()
        return data[:start] + other + data[start + length :]

    number = st.integers(0, len(lines) - 1)
    return st.one_of(
        st.builds(with_odd_value, number, st.sampled_from(ODD) | words),
        st.builds(lambda first, last: "".join(lines[:first] + lines[last:]).encode(), number, number),
        st.builds(with_other_bytes, st.integers(0, len(text)), st.integers(0, 30), st.binary(max_size=8)),
        st.binary(max_size=60),
    )


def is_read_or_rejected(call: Callable[[], Any]) -> bool:
    """Return whether a function reads its input, or rejects it with an error of Retune that has a message; others propagate."""
    try:
        call()
    except RetuneError as error:
        return bool(str(error).strip())
    return True


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minimal project folder."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("components", "flows", "models/one", "data"):
        (folder / name).mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
@few
@given(content=mutated(PARAMS))
def test_random_settings_are_read_or_rejected(project: Path, content: bytes) -> None:
    path = project / "models/one/params.yaml"
    path.write_bytes(content)

    assert is_read_or_rejected(lambda: read_params(path))
    assert survey_models(project)[0][0].params == project / "params.yaml"  # other models are still found


@few
@given(content=mutated(LOCK), pointer=mutated(POINTER))
def test_random_lock_files_are_read_or_rejected(project: Path, content: bytes, pointer: bytes) -> None:
    (project / "dvc.lock").write_bytes(content)
    (project / "data/raw.dvc").write_bytes(pointer)

    for read in (lock_hashes, edited_params, overtaken_stages):
        assert is_read_or_rejected(lambda read=read: read(project))  # type: ignore[misc]


@few
@given(content=mutated(MLMODEL))
def test_random_mlmodel_gives_faults(project: Path, content: bytes) -> None:
    (project / "MLmodel").write_bytes(content)

    assert all(isinstance(fault, str) for fault in _manifest_faults(project))


@few
@given(content=mutated(json.dumps({"model_type": "bert", "weight_map": {"a": "x.safetensors"}, "parts": [], "digest": "d"}, indent=1)))
def test_random_artifacts_are_read_or_rejected(project: Path, content: bytes) -> None:
    for name in ("config.json", "model.safetensors.index.json", "manifest.json", "candidate.parquet", "vocab.txt"):
        (project / name).write_bytes(content)

    assert is_read_or_rejected(lambda: _refuse_unfit(project, "some/model"))
    assert is_read_or_rejected(lambda: SnapshotManifest.read(project))
    assert is_read_or_rejected(lambda: BaseManifest.read(project))
    assert is_read_or_rejected(lambda: Predictions.read(project / "candidate.parquet"))
    assert is_read_or_rejected(lambda: read_rows(project / "candidate.parquet"))


@few
@given(cases=mutated(CASES), deployments=mutated(DEPLOYMENTS), variables=mutated("RETUNE_USER=me\n"))
def test_other_random_files_are_read_or_rejected(project: Path, cases: bytes, deployments: bytes, variables: bytes) -> None:
    (project / "cases.yaml").write_bytes(cases)
    (project / "prefect.yaml").write_bytes(deployments)
    (project / ".env").write_bytes(variables)
    try:
        assert is_read_or_rejected(lambda: read_cases(project / "cases.yaml", ["a"]))
        assert is_read_or_rejected(lambda: read_file(project))
        assert is_read_or_rejected(lambda: read_settings(project))
    finally:
        (project / ".env").unlink()


COMMANDS = [
    ["tasks", "?"],
    ["tasks", "text_classification", "--options", "?"],
    ["init", "?", "--params", "new.yaml"],
    ["run", "--inline", "--params", "?"],
    ["run", "--inline", "--model", "?"],
    ["snapshot", "?"],
    ["workspace", "?"],
    ["predict", "--model", "?", "a text"],
    ["predict", "--version", "?", "a text"],
    ["predict", "--params", "?", "a text"],
    ["why", "?", "1"],
    ["history", "?"],
    ["champion", "?", "--at", "?"],
    ["score", "?", "?", "--model-version", "?"],
    ["?"],
]
WORDS = [*ODD, "x" * 300, "/", "..", "models:/", "a@", "a/9" + "9" * 30, "/dev/null", "loop.csv"]


@pytest.mark.slow
@settings(few, max_examples=12)
@given(command=st.sampled_from(COMMANDS), word=words | st.sampled_from(WORDS))
def test_random_arguments_end_with_a_message(project: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], word: str) -> None:
    monkeypatch.chdir(project)
    if not (project / "loop.csv").is_symlink():
        (project / "loop.csv").symlink_to("loop.csv")
    result = CliRunner().invoke(app, [word if part == "?" else part for part in command])

    error = result.exception
    expected = isinstance(error, SystemExit | RetuneError) or (isinstance(error, Exception) and _system_error(error))
    assert error is None or expected, repr(error)
    assert "Traceback" not in result.output
