"""Whatever settings, manifests and arguments hold, a command ends with a message: only errors that a person is told leave."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
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
from components.core.exits import _foreseen
from components.data.base_model import _refuse_unfit
from components.evaluation.behaviour import read_cases
from components.mlflow_store.registry.package import _faults_of_manifest
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
    """A text in which a part was replaced, dropped or doubled, mostly a value by an odd one; or anything else."""
    lines = text.splitlines(keepends=True)

    def with_odd_value(number: int, value: str) -> bytes:
        name, colon, _ = lines[number].partition(":")
        return "".join([*lines[:number], f"{name}{colon} {value}\n", *lines[number + 1 :]]).encode()

    def with_other_bytes(place: int, length: int, other: bytes) -> bytes:
        data = text.encode()
        return data[:place] + other + data[place + length :]

    number = st.integers(0, len(lines) - 1)
    return st.one_of(
        st.builds(with_odd_value, number, st.sampled_from(ODD) | words),
        st.builds(lambda first, last: "".join(lines[:first] + lines[last:]).encode(), number, number),
        st.builds(with_other_bytes, st.integers(0, len(text)), st.integers(0, 30), st.binary(max_size=8)),
        st.binary(max_size=60),
    )


def told(call: Callable[[], Any]) -> None:
    """Call what may refuse its input; any other error than Retune's own fails the test."""
    with suppress(RetuneError):
        call()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a project's folder must have to be one."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("components", "flows", "models/one", "data"):
        (folder / name).mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


@few
@given(content=mutated(PARAMS))
def test_any_settings_are_read_or_refused(place: Path, content: bytes) -> None:
    path = place / "models/one/params.yaml"
    path.write_bytes(content)

    told(lambda: read_params(path))
    assert survey_models(place)[0][0].params == place / "params.yaml"  # whatever is wrong with a model, the others are found


@few
@given(content=mutated(LOCK), pointer=mutated(POINTER))
def test_any_lock_is_read_or_refused(place: Path, content: bytes, pointer: bytes) -> None:
    (place / "dvc.lock").write_bytes(content)
    (place / "data/raw.dvc").write_bytes(pointer)

    for read in (lock_hashes, edited_params, overtaken_stages):
        told(lambda read=read: read(place))  # type: ignore[misc]


@few
@given(content=mutated(MLMODEL))
def test_any_mlmodel_is_judged(place: Path, content: bytes) -> None:
    (place / "MLmodel").write_bytes(content)

    assert all(isinstance(fault, str) for fault in _faults_of_manifest(place))


@few
@given(content=mutated(json.dumps({"model_type": "bert", "weight_map": {"a": "x.safetensors"}, "parts": [], "digest": "d"}, indent=1)))
def test_any_manifest_is_read_or_refused(place: Path, content: bytes) -> None:
    for name in ("config.json", "model.safetensors.index.json", "manifest.json", "candidate.parquet", "vocab.txt"):
        (place / name).write_bytes(content)

    told(lambda: _refuse_unfit(place, "some/model"))
    told(lambda: SnapshotManifest.read(place))
    told(lambda: BaseManifest.read(place))
    told(lambda: Predictions.read(place / "candidate.parquet"))
    told(lambda: read_rows(place / "candidate.parquet"))


@few
@given(cases=mutated(CASES), deployments=mutated(DEPLOYMENTS), variables=mutated("RETUNE_USER=me\n"))
def test_other_files_are_read_or_refused(place: Path, cases: bytes, deployments: bytes, variables: bytes) -> None:
    (place / "cases.yaml").write_bytes(cases)
    (place / "prefect.yaml").write_bytes(deployments)
    (place / ".env").write_bytes(variables)
    try:
        told(lambda: read_cases(place / "cases.yaml", ["a"]))
        told(lambda: read_file(place))
        told(lambda: read_settings(place))
    finally:
        (place / ".env").unlink()


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
def test_any_argument_ends_in_a_message(place: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], word: str) -> None:
    monkeypatch.chdir(place)
    if not (place / "loop.csv").is_symlink():
        (place / "loop.csv").symlink_to("loop.csv")
    found = CliRunner().invoke(app, [word if part == "?" else part for part in command])

    error = found.exception
    foreseen = isinstance(error, SystemExit | RetuneError) or (isinstance(error, Exception) and _foreseen(error))
    assert error is None or foreseen, repr(error)
    assert "Traceback" not in found.output
