"""Code, inputs and search result of a rebuilt version."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from components.core.errors import BadModel, NotFound
from flows.audit.rebuild import installed
from flows.audit.rebuild_inputs import Recipe, restore_tuned, unrepeatable_search, write_code
from flows.dvc_adapter.config import cache_folder
from tests.support.audit_models import model_of, version


def keep(root: Path, content: bytes) -> str:
    md5 = hashlib.md5(content).hexdigest()
    path = cache_folder(root) / "files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def recipe_of(package: Path, **stages: Any) -> Recipe:
    return Recipe(version(1, retune__dirty="2"), "c" * 40, package, {"stages": stages})


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = write(tmp_path / "package", code__components__train="lr = 1", code__components__text="t", artifacts__dvc="stages")
    (folder / "artifacts/dvc").rename(folder / "artifacts/dvc.yaml")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = write(tmp_path / "root", components__train="lr = 1", components__text="t", dvc="stages")
    (folder / "dvc").rename(folder / "dvc.yaml")
    return folder


def test_committed_code_is_unchanged_without_note(root: Path, package: Path) -> None:
    before = (root / "components/train").stat().st_ino

    assert write_code(root, recipe_of(package)) == []
    assert (root / "components/train").stat().st_ino == before


def test_uncommitted_code_comes_from_package_with_note(root: Path, package: Path) -> None:
    write(package / "artifacts/pipeline_code", components__train="lr = 2", components__text="t")
    (package / "artifacts/pipeline_code/components/__main__.py").touch()
    write(root, components__gone="only in the commit")

    (note,) = write_code(root, recipe_of(package))

    assert (root / "components/train").read_text() == "lr = 2"
    assert not (root / "components/gone").exists()
    assert "built from uncommitted code (2 files)" in note
    assert "components/gone, components/train" in note


def test_commit_without_the_code_of_a_version_is_refused(root: Path, package: Path) -> None:
    write(package, code__components__train="lr = 2")

    with pytest.raises(BadModel, match=r"commit cccccccccccc does not contain the code .* components/train differs"):
        write_code(root, recipe_of(package))


def test_inputs_are_dependencies_that_no_stage_writes(package: Path) -> None:
    recipe = recipe_of(
        package,
        validate={
            "deps": [{"path": "data/raw", "md5": "1"}, {"path": "components/core/text.py", "md5": "2"}],
            "outs": [{"path": "data/validated", "md5": "3"}],
        },
        train={
            "deps": [
                {"path": "data/base", "md5": "4"},
                {"path": "data/validated", "md5": "3"},
                {"path": "models/trained/model", "md5": "6"},
            ],
            "outs": [{"path": "models/trained", "md5": "5"}],
        },
    )

    assert recipe.inputs == {"data/raw": "1", "data/base": "4"}


def test_stages_are_in_dependency_order(package: Path) -> None:
    def stage(out: str, *deps: str) -> dict[str, Any]:
        return {"deps": [{"path": dep, "md5": "1"} for dep in deps], "outs": [{"path": out, "md5": "2"}]}

    report, train = stage("reports", "models/trained/model", "mine"), stage("models/trained", "data/learn")
    recipe = recipe_of(package, report=report, mine=stage("mine", "models/trained"), train=train, prepare=stage("data/learn", "data/raw"))

    assert recipe.stages == ("prepare", "train", "mine", "report")


@pytest.mark.parametrize("limit", ["minutes", "max_minutes"])
def test_search_ended_by_time_limit_is_restored(tmp_path: Path, package: Path, limit: str) -> None:
    best, settings = (json.dumps(record).encode() for record in ({"stopped_by": limit}, {"settings": {}}))
    outs = [
        {"path": f"models/tuned/{name}", "md5": keep(tmp_path, content)}
        for name, content in (("best.json", best), ("settings.json", settings))
    ]
    recipe = recipe_of(package, tune={"outs": outs})

    assert unrepeatable_search(model_of(tmp_path), recipe)
    restore_tuned(tmp_path / "rebuilt", model_of(tmp_path), recipe)
    assert (tmp_path / "rebuilt/models/tuned/settings.json").read_bytes() == settings


def test_automatic_search_is_restored(tmp_path: Path, package: Path) -> None:
    (package / "artifacts/params.yaml").write_text("tune: {strategy: auto, minutes: 3}")
    outs = [{"path": "models/tuned/best.json", "md5": keep(tmp_path, b'{"stopped_by": "portfolio"}')}]

    assert "tune.strategy auto" in str(unrepeatable_search(model_of(tmp_path), recipe_of(package, tune={"outs": outs})))


def test_search_with_earlier_trials_is_restored(tmp_path: Path, package: Path) -> None:
    outs = [{"path": "models/tuned/best.json", "md5": keep(tmp_path, b'{"stopped_by": "trials", "carried": 2}')}]

    assert unrepeatable_search(model_of(tmp_path), recipe_of(package, tune={"outs": outs})) == "started from 2 trials of earlier searches"


def test_completed_search_is_repeated(tmp_path: Path, package: Path) -> None:
    outs = [{"path": "models/tuned/best.json", "md5": keep(tmp_path, b'{"stopped_by": "trials"}')}]

    assert not unrepeatable_search(model_of(tmp_path), recipe_of(package, tune={"outs": outs}))


@pytest.mark.slow
def test_search_result_missing_in_the_cache_comes_from_the_run(tmp_path: Path, package: Path) -> None:
    model, content = model_of(tmp_path), b'{"settings": {}}'
    write(tmp_path / "logged", settings='{"settings": {}}')
    (tmp_path / "logged/settings").rename(tmp_path / "logged/settings.json")
    (tmp_path / "var").mkdir()
    client = MlflowClient(model.uri)
    run = client.create_run(client.create_experiment("tickets", (tmp_path / "store").as_uri())).info.run_id
    client.log_artifact(run, str(tmp_path / "logged/settings.json"), "search")
    outs = [{"path": "models/tuned/settings.json", "md5": hashlib.md5(content).hexdigest()}]
    recipe = replace(recipe_of(package, tune={"outs": outs}), version=replace(version(1), run_id=run))

    restore_tuned(tmp_path / "rebuilt", model, recipe)

    assert (tmp_path / "rebuilt/models/tuned/settings.json").read_bytes() == content
    changed = replace(recipe, lock={"stages": {"tune": {"outs": [{**outs[0], "md5": "0" * 32}]}}})
    with pytest.raises(NotFound, match="dvc pull"):
        restore_tuned(tmp_path / "again", model, changed)


def test_missing_search_result_is_an_error(tmp_path: Path, package: Path) -> None:
    outs = [{"path": "models/tuned/best.json", "md5": "0" * 32}]

    with pytest.raises(NotFound, match="dvc pull"):
        restore_tuned(tmp_path / "rebuilt", model_of(tmp_path), recipe_of(package, tune={"outs": outs}))


def test_missing_package_is_reported() -> None:
    assert installed("no-such-package-at-all") == "not installed"
    assert installed("pytest") != "not installed"
