"""Versions that store an adapter: small packages that need the right base model, and can be a base model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml

from components.artifacts.manifest import AdapterManifest, BaseManifest
from components.artifacts.verdict import Outcome
from components.core.errors import BadModel
from components.core.hashing import digest_folder
from components.data.base_model import BaseParams, pin_base
from components.mlflow_store.registry import (
    Environment,
    Version,
    copy_version,
    model_folder,
    package_bytes,
    predict,
    probe_server,
    register,
    verify,
)
from components.mlflow_store.registry.verify import checked_package
from components.model import adapter, tasks
from components.model.base_resolver import LACKING
from flows.pipeline.judge import judge
from flows.pipeline.model_sessions import ModelSessions
from flows.project.params import Params
from flows.project.workspace import Workspace
from tests.support import cases, pipeline
from tests.support.finished import LINEAGE, new_store
from tests.support.pipeline import Case
from tests.support.tiers import rest_exhaustive

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forks")]

KINDS = {"text_classification": {"lora_dora": True}, "causal_lm": {}}


class Versions(NamedTuple):
    """A workspace with two versions of its model: 1 stores the adapter, 2 the merged model."""

    case: Case
    workspace: Workspace
    params: Params
    uri: str
    small: Version
    whole: Version


@pytest.fixture(autouse=True)
def no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the registry records the path of the base."""
    for name in ("RETUNE_BASE", "RETUNE_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", params=rest_exhaustive(["text_classification", "causal_lm"], "text_classification"))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "base").mkdir()
    case = cases.make(request.param, folder / "base")
    workspace, params = pipeline.open_line(folder / "project", case, method="lora", lora_store="adapter", **KINDS[request.param])
    pipeline.prepare(workspace, params)
    pipeline.learn(workspace, params)
    pipeline.assess(workspace, params)
    uri, small = pipeline.enter(workspace, params)
    aside = shutil.move(workspace.root / "models/trained/adapter", folder / "aside")
    lineage = LINEAGE.model_copy(update={"model": params.name})
    whole = register(workspace.root, uri, run_id=small.run_id, key="w" * 64, lineage=lineage)
    shutil.move(aside, workspace.root / "models/trained/adapter")
    return Versions(case, workspace, params, uri, small, whole)


def package(run: Versions, version: Version) -> Path:
    return checked_package(run.uri, version)


def rows(run: Versions, count: int = 6) -> pd.DataFrame:
    return pipeline.tested_rows(run.workspace)[list(run.params.made_task.inputs)].head(count)


def answers(run: Versions, version: Version) -> list[dict]:
    return predict(run.uri, f"{version.name}/{version.number}", rows(run)).to_dict("records")


@pytest.fixture(scope="module")
def expected(run: Versions) -> list[dict]:
    """The answers of the merged version."""
    return answers(run, run.whole)


text_only = pytest.mark.parametrize("run", ["text_classification"], indirect=True)


@pytest.fixture
def other(run: Versions, tmp_path: Path) -> Path:
    """The base with one byte changed."""
    base = shutil.copytree(run.workspace.base, tmp_path / "other")
    content = bytearray((base / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (base / "model.safetensors").write_bytes(content)
    return base


@pytest.fixture
def missing_base(run: Versions, tmp_path: Path) -> Iterator[None]:
    """Move the base away from its source folder and from the workspace."""
    moved = [(path, tmp_path / str(number)) for number, path in enumerate((run.case.base, run.workspace.base))]
    for path, aside in moved:
        shutil.move(path, aside)
    yield
    for path, aside in moved:
        shutil.move(aside, path)


def test_package_stores_only_the_adapter(run: Versions) -> None:
    small, whole = (package(run, version) for version in (run.small, run.whole))
    model, adapter = size(run.workspace.model), size(run.workspace.root / "models/trained/adapter")

    assert not (small / "artifacts/model").exists()
    assert adapter < 0.6 * model
    assert size(whole / "artifacts/model") == model
    assert size(small / "artifacts/adapter") == adapter
    assert size(whole) - size(small) == pytest.approx(model - adapter, abs=1_000)
    needed = [(folder / "requirements.txt").read_text().splitlines() for folder in (small, whole)]
    assert [line for line in needed[0] if line not in needed[1]] == [line for line in needed[0] if line.startswith("peft==")] != []
    assert "adapter" in yaml.safe_load((small / "MLmodel").read_text())["flavors"]["python_function"]["artifacts"]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.exhaustive
def test_both_versions_have_the_hash_of_the_merged_model(run: Versions) -> None:
    assert run.small.tags["retune.weights"] == run.whole.tags["retune.weights"] == digest_folder(run.workspace.model)
    assert run.small.tags["retune.adapter"] == digest_folder(run.workspace.root / "models/trained/adapter")
    assert "retune.adapter" not in run.whole.tags
    assert ["Stores the adapter only" in version.description for version in (run.small, run.whole)] == [True, False]
    base = sum(part.bytes for part in BaseManifest.read(run.workspace.base).parts)
    name = run.small.name
    assert package_bytes(run.uri, name, 1) == size(package(run, run.small)) + base > package_bytes(run.uri, name, 2)


@pytest.mark.exhaustive
def test_adapter_answers_as_the_merged_model(run: Versions, expected: list[dict]) -> None:
    assert answers(run, run.small) == expected
    assert verify(run.uri, run.small.name, run.small.number).difference < 1e-6
    with ModelSessions(run.workspace, run.uri, run.params.made_task) as sessions:
        sessions.inspect(run.small)


@text_only
@pytest.mark.exhaustive
def test_mlflow_alone_loads_an_adapter_version(run: Versions, expected: list[dict], tmp_path: Path) -> None:
    code = (
        "import json, sys, mlflow, pandas as pd;"
        f"model = mlflow.pyfunc.load_model('models:/{run.small.name}/1');"
        "print(json.dumps(model.predict(pd.DataFrame(json.loads(sys.argv[1]))).to_dict('records')))"
    )
    (tmp_path / "temporary").mkdir()
    variables = {"MLFLOW_TRACKING_URI": run.uri, "TMPDIR": str(tmp_path / "temporary"), "RETUNE_BASE": str(run.case.base)}
    command = [sys.executable, "-P", "-B", "-c", code, rows(run).to_json(orient="records")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    predictions = json.loads(done.stdout.splitlines()[-1])
    assert predictions == [{name: answer[name] for name in ("label", "probability", "probabilities")} for answer in expected]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_adapter_with_another_base_is_rejected(run: Versions, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_BASE", os.path.relpath(other))
    wrong = r"other: model.safetensors differs, expected sha256 [0-9a-f]{16}… .*, found [0-9a-f]{16}… .*RETUNE_BASE"
    with pytest.raises(BadModel, match=wrong):
        answers(run, run.small)


@text_only
@pytest.mark.usefixtures("missing_base")
def test_missing_base_makes_the_verdict_inconclusive(run: Versions) -> None:
    with pytest.raises(BadModel, match=LACKING):
        model_folder(run.uri, f"models:/{run.small.name}/1")
    served = probe_server(run.uri, run.small.name, 1, pipeline.tested_rows(run.workspace).head(3), example=run.params.made_task.example)
    assert LACKING in (served.fault or "")
    assert served.outside


@text_only
@pytest.mark.exhaustive
def test_base_pinned_in_the_workspace_is_used(run: Versions, expected: list[dict], tmp_path: Path) -> None:
    shutil.move(run.case.base, tmp_path / "aside")
    try:
        assert answers(run, run.small) == expected
    finally:
        shutil.move(tmp_path / "aside", run.case.base)


@text_only
@pytest.mark.exhaustive
def test_changed_package_is_rejected(run: Versions) -> None:
    file = package(run, run.small) / "artifacts/adapter/adapter_model.safetensors"
    before = file.read_bytes()
    file.write_bytes(before[:-1] + b"?")
    try:
        with pytest.raises(BadModel, match="artifacts/adapter is not the adapter that was registered"):
            answers(run, run.small)
    finally:
        file.write_bytes(before)
    assert checked_package(run.uri, run.small)


@pytest.mark.exhaustive
def test_scoring_server_passes_the_servability_gate(run: Versions) -> None:
    verdict = judge(run.workspace, run.small).verdict

    assert {result.gate: result.outcome for result in verdict.gates}["servability"] is Outcome.PASS, verdict.reason


@text_only
@pytest.mark.exhaustive
def test_copy_in_another_environment_predicts(run: Versions, tmp_path: Path) -> None:
    staging, production = (
        Environment(name, uri, f"sqlite:///{tmp_path}/{name}.db")
        for name, uri in (("staging", run.uri), ("production", new_store(tmp_path / "production/var")))
    )
    copied = copy_version(staging, production, run.small.name, run.small.number)

    assert copied.tags["retune.adapter"] == run.small.tags["retune.adapter"]
    assert verify(production.mlflow, copied.name, copied.number).rows > 0


@text_only
@pytest.mark.exhaustive
def test_adapter_version_can_be_the_base_model(run: Versions, tmp_path: Path) -> None:
    find = partial(model_folder, run.uri)
    folder, source = find(f"models:/{run.small.name}/1")
    assert (digest_folder(folder), source) == (digest_folder(run.workspace.model), f"models:/{run.small.name}/1")
    assert find(f"models:/{run.small.name}/1")[0] == folder  # merged once per process
    one, other = (
        pin_base(tmp_path, tmp_path / str(number), base=BaseParams(model=f"models:/{run.small.name}/{number}"), registered=find)
        for number in (1, 2)
    )
    assert one.digest == other.digest

    workspace, params = pipeline.open_line(tmp_path / "next", run.case, method="lora", lora_store="adapter", epochs=1)
    pipeline.prepare(workspace, params)
    shutil.rmtree(workspace.base)
    shutil.copytree(tmp_path / "1", workspace.base)
    pipeline.learn(workspace, params)
    pipeline.assess(workspace, params)
    lineage = LINEAGE.model_copy(update={"model": params.name})
    third = register(workspace.root, run.uri, run_id=run.small.run_id, key="n" * 64, lineage=lineage)
    assert AdapterManifest.read(package(run, third) / "artifacts/adapter").source == f"models:/{run.small.name}/1"
    assert verify(run.uri, third.name, third.number).rows > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize(("task", "options"), [*((name, {}) for name in tasks.available()), ("token_classification", {"head": "crf"})])
def test_merged_adapter_equals_the_trained_model(task: str, options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    case = cases.make(task, tmp_path / "base")
    case = replace(case, options={**case.options, **options})
    workspace, params = pipeline.open_line(
        tmp_path / "project", case, method="lora", lora_store="adapter", lora_targets="all-linear", epochs=1
    )
    pipeline.prepare(workspace, params)
    model = pipeline.learn(workspace, params)

    with adapter.merged(model.parent / "adapter", lambda record: workspace.base) as folder:
        assert digest_folder(folder) == digest_folder(model)
        predictor = params.made_task.predictor(folder)
    few = pipeline.tested_rows(workspace).head(3)
    assert predictor.answer(few).predicted == params.made_task.predictor(model).answer(few).predicted
