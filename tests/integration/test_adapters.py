"""Versions that store an adapter: small, asked like any other over the right base, refused over another, and a base themselves."""

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

pytestmark = pytest.mark.slow

KINDS = {"text_classification": {"lora_dora": True}, "causal_lm": {}}


class Line(NamedTuple):
    """A task's line with both versions of one model: 1 stores the adapter, 2 the merged model."""

    case: Case
    place: Workspace
    params: Params
    uri: str
    small: Version
    whole: Version


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the registry says where the base is."""
    for name in ("RETUNE_BASE", "RETUNE_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", params=["text_classification", pytest.param("causal_lm", marks=pytest.mark.exhaustive)])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "base").mkdir()
    case = cases.make(request.param, folder / "base")
    place, params = pipeline.open_line(folder / "project", case, method="lora", lora_store="adapter", **KINDS[request.param])
    pipeline.prepare(place, params)
    pipeline.learn(place, params)
    pipeline.assess(place, params)
    uri, small = pipeline.enter(place, params)
    aside = shutil.move(place.root / "models/trained/adapter", folder / "aside")
    lineage = LINEAGE.model_copy(update={"model": params.name})
    whole = register(place.root, uri, run_id=small.run_id, key="w" * 64, lineage=lineage)
    shutil.move(aside, place.root / "models/trained/adapter")
    return Line(case, place, params, uri, small, whole)


def package(run: Line, version: Version) -> Path:
    return checked_package(run.uri, version)


def rows(run: Line, count: int = 6) -> pd.DataFrame:
    return pipeline.tested_rows(run.place)[list(run.params.made_task.inputs)].head(count)


def answers(run: Line, version: Version) -> list[dict]:
    return predict(run.uri, f"{version.name}/{version.number}", rows(run)).to_dict("records")


@pytest.fixture(scope="module")
def expected(run: Line) -> list[dict]:
    """What the merged version answers."""
    return answers(run, run.whole)


one_kind = pytest.mark.parametrize("run", ["text_classification"], indirect=True)


@pytest.fixture
def other(run: Line, tmp_path: Path) -> Path:
    """The base with one byte changed."""
    base = shutil.copytree(run.place.base, tmp_path / "other")
    content = bytearray((base / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (base / "model.safetensors").write_bytes(content)
    return base


@pytest.fixture
def nowhere(run: Line, tmp_path: Path) -> Iterator[None]:
    """Neither the folder that the base was taken from nor the workspace's has it."""
    taken = [(path, tmp_path / str(number)) for number, path in enumerate((run.case.base, run.place.base))]
    for path, aside in taken:
        shutil.move(path, aside)
    yield
    for path, aside in taken:
        shutil.move(aside, path)


def test_package_stores_only_the_adapter(run: Line) -> None:
    small, whole = (package(run, version) for version in (run.small, run.whole))
    model, adapter = size(run.place.model), size(run.place.root / "models/trained/adapter")

    assert not (small / "artifacts/model").exists()
    assert adapter < 0.6 * model
    assert size(whole / "artifacts/model") == model
    assert size(small / "artifacts/adapter") == adapter
    assert size(whole) - size(small) == pytest.approx(model - adapter, abs=1_000)
    needed = [(folder / "requirements.txt").read_text().splitlines() for folder in (small, whole)]
    assert (
        [pipeline for pipeline in needed[0] if pipeline not in needed[1]]
        == [pipeline for pipeline in needed[0] if pipeline.startswith("peft==")]
        != []
    )
    assert "adapter" in yaml.safe_load((small / "MLmodel").read_text())["flavors"]["python_function"]["artifacts"]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_both_versions_have_the_hash_of_the_merged_model(run: Line) -> None:
    assert run.small.tags["retune.weights"] == run.whole.tags["retune.weights"] == digest_folder(run.place.model)
    assert run.small.tags["retune.adapter"] == digest_folder(run.place.root / "models/trained/adapter")
    assert "retune.adapter" not in run.whole.tags
    assert ["Stores the adapter only" in version.description for version in (run.small, run.whole)] == [True, False]
    base = sum(part.bytes for part in BaseManifest.read(run.place.base).parts)
    name = run.small.name
    assert package_bytes(run.uri, name, 1) == size(package(run, run.small)) + base > package_bytes(run.uri, name, 2)


def test_adapter_answers_exactly_as_the_merged_model(run: Line, expected: list[dict]) -> None:
    assert answers(run, run.small) == expected
    assert verify(run.uri, run.small.name, run.small.number).difference < 1e-6
    with ModelSessions(run.place, run.uri, run.params.made_task) as asked:
        asked.inspect(run.small)


@one_kind
@pytest.mark.exhaustive
def test_mlflow_alone_loads_an_adapter_version(run: Line, expected: list[dict], tmp_path: Path) -> None:
    code = (
        "import json, sys, mlflow, pandas as pd;"
        f"model = mlflow.pyfunc.load_model('models:/{run.small.name}/1');"
        "print(json.dumps(model.predict(pd.DataFrame(json.loads(sys.argv[1]))).to_dict('records')))"
    )
    (tmp_path / "temporary").mkdir()
    told = {"MLFLOW_TRACKING_URI": run.uri, "TMPDIR": str(tmp_path / "temporary"), "RETUNE_BASE": str(run.case.base)}
    command = [sys.executable, "-P", "-B", "-c", code, rows(run).to_json(orient="records")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | told
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [{name: each[name] for name in ("label", "probability", "probabilities")} for each in expected]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_over_another_base_it_is_refused(run: Line, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_BASE", os.path.relpath(other))
    wrong = r"other: model.safetensors differs, expected sha256 [0-9a-f]{16}… .*, found [0-9a-f]{16}… .*RETUNE_BASE"
    with pytest.raises(BadModel, match=wrong):
        answers(run, run.small)


@one_kind
@pytest.mark.usefixtures("nowhere")
def test_missing_base_makes_the_verdict_inconclusive(run: Line) -> None:
    with pytest.raises(BadModel, match=LACKING):
        model_folder(run.uri, f"models:/{run.small.name}/1")
    served = probe_server(run.uri, run.small.name, 1, pipeline.tested_rows(run.place).head(3), example=run.params.made_task.example)
    assert LACKING in (served.fault or "")
    assert served.outside


@pytest.mark.exhaustive
@one_kind
def test_what_the_workspace_has_pinned_is_found(run: Line, expected: list[dict], tmp_path: Path) -> None:
    shutil.move(run.case.base, tmp_path / "aside")
    try:
        assert answers(run, run.small) == expected
    finally:
        shutil.move(tmp_path / "aside", run.case.base)


@one_kind
def test_a_package_that_was_changed_is_refused(run: Line) -> None:
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
def test_the_scoring_server_passes_the_gate(run: Line) -> None:
    found = judge(run.place, run.uri, run.small).verdict

    assert {one.gate: one.outcome for one in found.gates}["servability"] is Outcome.PASS, found.reason


@pytest.mark.exhaustive
@one_kind
def test_a_copy_in_another_environment_answers(run: Line, tmp_path: Path) -> None:
    here, there = (
        Environment(name, uri, f"sqlite:///{tmp_path}/{name}.db")
        for name, uri in (("staging", run.uri), ("production", new_store(tmp_path / "production/var")))
    )
    copied = copy_version(here, there, run.small.name, run.small.number)

    assert copied.tags["retune.adapter"] == run.small.tags["retune.adapter"]
    assert verify(there.mlflow, copied.name, copied.number).rows > 0


@one_kind
@pytest.mark.exhaustive
def test_it_is_a_base_itself_with_the_merged_weights(run: Line, tmp_path: Path) -> None:
    find = partial(model_folder, run.uri)
    folder, source = find(f"models:/{run.small.name}/1")
    assert (digest_folder(folder), source) == (digest_folder(run.place.model), f"models:/{run.small.name}/1")
    assert find(f"models:/{run.small.name}/1")[0] == folder  # merged once a process
    one, other = (
        pin_base(tmp_path, tmp_path / str(number), base=BaseParams(model=f"models:/{run.small.name}/{number}"), registered=find)
        for number in (1, 2)
    )
    assert one.digest == other.digest

    place, params = pipeline.open_line(tmp_path / "next", run.case, method="lora", lora_store="adapter", epochs=1)
    pipeline.prepare(place, params)
    shutil.rmtree(place.base)
    shutil.copytree(tmp_path / "1", place.base)
    pipeline.learn(place, params)
    pipeline.assess(place, params)
    lineage = LINEAGE.model_copy(update={"model": params.name})
    third = register(place.root, run.uri, run_id=run.small.run_id, key="n" * 64, lineage=lineage)
    assert AdapterManifest.read(package(run, third) / "artifacts/adapter").source == f"models:/{run.small.name}/1"
    assert verify(run.uri, third.name, third.number).rows > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize(("task", "options"), [*((name, {}) for name in tasks.available()), ("token_classification", {"head": "crf"})])
def test_every_task_s_model_comes_back_bit_for_bit(task: str, options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    case = cases.make(task, tmp_path / "base")
    case = replace(case, options={**case.options, **options})
    place, params = pipeline.open_line(tmp_path / "project", case, method="lora", lora_store="adapter", lora_targets="all-linear", epochs=1)
    pipeline.prepare(place, params)
    model = pipeline.learn(place, params)

    with adapter.merged(model.parent / "adapter", lambda record: place.base) as folder:
        assert digest_folder(folder) == digest_folder(model)
        predictor = params.made_task.predictor(folder)
    few = pipeline.tested_rows(place).head(3)
    assert predictor.answer(few).predicted == params.made_task.predictor(model).answer(few).predicted  # it has read all that it needs
