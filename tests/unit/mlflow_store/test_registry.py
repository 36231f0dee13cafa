import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from components.artifacts.predictions import Predictions
from components.artifacts.training import ModelSpec
from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.core.errors import BadModel, NotFound, RetuneError
from components.mlflow_store.connection import connect
from components.mlflow_store.registry import (
    Decision,
    Promotion,
    Version,
    attach_verdict,
    champion,
    checked_package,
    predict,
    read_verdict,
    register,
    rollback,
    status,
    verify,
    versions,
)
from components.mlflow_store.registry import promote as promote_by
from components.mlflow_store.registry.package import CODE, check_files, fingerprint, requirements
from components.mlflow_store.registry.verify import read_cache
from components.mlflow_store.registry.versions import CHALLENGER, CHAMPION, COMPLETE, KEY, VERDICT
from components.mlflow_store.tracking import record
from components.model import tasks
from flows.pipeline.model_sessions import ModelSessions
from flows.project.workspace import Workspace
from tests.support.finished import LINEAGE, PARAMS, make_finished, new_store
from tests.support.promotion import ledger_of
from tests.support.registered import register_workspace


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_store(tmp_path / "var")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    return make_finished(tmp_path_factory.mktemp("finished"), tiny_base, tickets)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    return make_finished(tmp_path_factory.mktemp("other"), tiny_base, tickets, seed=1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> str:
    """A read-only store with version 1."""
    folder = tmp_path_factory.mktemp("shared")
    uri = new_store(folder / "var")
    judged(register_workspace(finished, uri), uri)
    return uri


def judged(version: Version, uri: str, **changes: object) -> Version:
    """Attach `PASSED` with `changes`."""
    return attach_verdict(uri, version.run_id, version.name, version.number, PASSED.model_copy(update=changes))


def promote(uri: str, name: str, number: int, verified: bool = False) -> Promotion:
    """Promote like a person, with the ledger next to the registry."""
    return promote_by(uri, ledger_of(uri), name, number, Decision("any", "ada@host", "it was asked for"), verified)


def package_of(uri: str, number: int) -> Path:
    return Path(connect(uri).get_model_version_download_uri("tickets", str(number)).removeprefix("file://"))


def set_champion(uri: str, number: int) -> None:
    MlflowClient(uri).set_registered_model_alias("tickets", CHAMPION, str(number))


PASSED = Verdict(
    key="k1", candidate="c" * 64, champion=None, test_digest="e" * 64, outcome=Outcome.PASS, reason="all gates passed", gates=()
)


@pytest.mark.slow
def test_same_model_and_data_give_one_version(uri: str, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    first = register_workspace(finished, uri)
    second = register_workspace(finished, uri)

    assert (first.number, first.created, first.complete) == (1, True, True)
    assert (second.number, second.created) == (1, False)
    assert [version.number for version in versions(uri, "tickets")] == [1]
    assert {path.name for path in tmp_path.iterdir()} == {"var"}  # MLflow's global store was not used


@pytest.mark.slow
def test_another_model_gives_another_version(uri: str, finished: Path, other: Path) -> None:
    assert [register_workspace(workspace, uri).number for workspace in (finished, other)] == [1, 2]


def test_version_has_tags_verdict_and_artifacts(shared: str) -> None:
    (version,) = versions(shared, "tickets")

    expected = {"retune.git_commit", "retune.dirty", "retune.data_digest", "retune.dvc_lock", "retune.weights", KEY, COMPLETE}
    assert expected <= set(version.tags)
    assert (version.verdict, version.verdict_key, version.evidence, version.judged_against) == (Outcome.PASS, "k1", PASSED.evidence, None)
    assert read_verdict(shared, version) == PASSED
    assert "macro_f1 0.700 (95 % interval 0.680–0.720)" in version.description
    assert MlflowClient(shared).get_run(version.run_id).outputs.model_outputs
    assert {path.name for path in (package_of(shared, 1) / "artifacts").iterdir()} == {
        "model",
        "questions.parquet",
        "dvc.lock",
        "params.yaml",
    }


def test_package_has_no_pickle_and_pinned_requirements(shared: str) -> None:
    package = package_of(shared, 1)
    conf = yaml.safe_load((package / "MLmodel").read_text())["flavors"]
    assert set(conf) == {"python_function"}
    assert (conf["python_function"]["loader_module"], conf["python_function"]["code"]) == ("mlflow.pyfunc.loaders.code_model", "code")
    suffixes = {path.suffix for path in package.rglob("*") if path.is_file()}
    assert suffixes <= {".py", ".json", ".yaml", ".txt", ".safetensors", ".parquet", ".lock", ".typed", ".j2", ".html", ".css", ".js", ""}
    assert (package / "requirements.txt").read_text().split() == requirements(package / "artifacts/model")
    assert all("==" in line and "+" not in line for line in requirements(package / "artifacts/model"))


def test_adapter_and_sentencepiece_requirements_are_pinned(tmp_path: Path) -> None:
    plain, adapter, pieces = (tmp_path / name for name in ("model", "adapter", "opus"))
    for folder in (plain, adapter, pieces):
        folder.mkdir()
    (pieces / "source.spm").touch()

    def names(folder: Path) -> set[str]:
        return {line.partition("==")[0] for line in requirements(folder)}

    assert names(adapter) - names(plain) == {"peft"}
    assert names(pieces) - names(plain) == {"sacremoses", "sentencepiece"}


@pytest.mark.slow
def test_new_verdict_replaces_the_old_one_which_stays_readable(uri: str, finished: Path) -> None:
    judged(register_workspace(finished, uri), uri)
    again = judged(register_workspace(finished, uri), uri, outcome=Outcome.FAIL, key="k2", champion="4", reason="slower than it may be")

    (version,) = versions(uri, "tickets")
    assert (version, again.tags) == (again, version.tags)
    assert (version.verdict, version.verdict_key, version.judged_against) == (Outcome.FAIL, "k2", 4)
    assert read_verdict(uri, version) == PASSED.model_copy(
        update={"outcome": Outcome.FAIL, "key": "k2", "champion": "4", "reason": "slower than it may be"}
    )
    assert read_verdict(uri, version, PASSED.evidence) == PASSED
    assert version.description.count("Verdict: ") == 1
    assert version.description.endswith("Verdict: FAIL: slower than it may be")
    assert MlflowClient(uri).get_run(version.run_id).data.tags[VERDICT] == "FAIL"


def test_attaching_the_same_verdict_changes_nothing(uri: str, finished: Path) -> None:
    first = judged(register_workspace(finished, uri), uri)
    MlflowClient(uri).delete_registered_model_alias("tickets", CHALLENGER)

    assert judged(first, uri).aliases == ()


def test_long_verdict_is_stored_completely(uri: str, finished: Path) -> None:
    version = judged(register_workspace(finished, uri), uri, reason="x" * 90_000)

    assert read_verdict(uri, version).reason == "x" * 90_000
    assert len(version.description) < 5_000


def test_nan_does_not_change_the_evidence(uri: str, finished: Path) -> None:
    gate = GateResult(gate="floor", outcome=Outcome.PASS, reason="so", estimate=float("nan"))
    version = judged(register_workspace(finished, uri), uri, gates=(gate,))

    assert version.evidence == PASSED.model_copy(update={"gates": (gate,)}).evidence == read_verdict(uri, version).evidence


@pytest.mark.slow
def test_new_version_is_challenger_until_it_fails(uri: str, finished: Path, other: Path) -> None:
    first = register_workspace(finished, uri)
    assert versions(uri, "tickets")[0].aliases == (CHALLENGER,)
    assert judged(first, uri).aliases == (CHALLENGER,)

    second = register_workspace(other, uri)
    assert [version.aliases for version in versions(uri, "tickets")] == [(), (CHALLENGER,)]
    assert judged(second, uri, outcome=Outcome.FAIL).aliases == ()
    assert judged(second, uri, outcome=Outcome.INCONCLUSIVE).aliases == (CHALLENGER,)


def test_version_of_early_layout_has_no_verdict(uri: str, finished: Path) -> None:
    register_workspace(finished, uri)
    MlflowClient(uri).set_model_version_tag("tickets", "1", VERDICT, "PASS")
    MlflowClient(uri).set_model_version_tag("tickets", "1", "retune.verdict_json", PASSED.model_dump_json())

    (version,) = versions(uri, "tickets")
    assert (version.verdict, version.evidence, read_verdict(uri, version)) == (Outcome.PASS, None, None)


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_text(path.read_text().replace("passed", "failed"))])
def test_lost_or_changed_verdict_is_ignored(uri: str, finished: Path, lose, caplog) -> None:  # type: ignore[no-untyped-def]
    version = judged(register_workspace(finished, uri), uri)
    lose(Path(uri.removeprefix("sqlite:///")).parent / f"mlartifacts/tickets/{version.run_id}/artifacts/verdict/{PASSED.evidence}.json")

    assert read_verdict(uri, version) is None
    assert "its verdict" in caplog.text


@pytest.mark.slow
def test_rollback_rejects_a_changed_package(uri: str, finished: Path, other: Path) -> None:
    register_workspace(finished, uri)
    register_workspace(other, uri)
    assert promote(uri, "tickets", 1, verified=True).entry.anchor == 1
    assert promote(uri, "tickets", 2, verified=True).previous == 1
    weights = package_of(uri, 1) / "artifacts/model/model.safetensors"
    kept_bytes = weights.read_bytes()
    weights.write_bytes(b"x")

    with pytest.raises(BadModel, match="not the model that was registered"):
        rollback(uri, ledger_of(uri), "tickets", None, "ada@host", "it answers badly")
    assert champion(uri, "tickets").number == 2

    weights.write_bytes(kept_bytes)
    back = rollback(uri, ledger_of(uri), "tickets", None, "ada@host", "it answers badly")
    assert (back.entry.action, back.previous, champion(uri, "tickets").number, status(uri, "tickets")["previous"]) == (
        "rolled back",
        2,
        1,
        2,
    )


def make_incomplete(uri: str, number: int) -> None:
    MlflowClient(uri).delete_model_version_tag("tickets", str(number), COMPLETE)


def test_incomplete_version_is_completed(uri: str, finished: Path) -> None:
    register_workspace(finished, uri)
    make_incomplete(uri, 1)

    assert register_workspace(finished, uri).created
    assert [(version.number, version.complete) for version in versions(uri, "tickets")] == [(1, True)]


def test_incomplete_version_without_package_is_replaced(uri: str, finished: Path) -> None:
    register_workspace(finished, uri)
    (package_of(uri, 1) / "MLmodel").unlink()
    make_incomplete(uri, 1)

    assert [(version.number, version.complete) for version in (register_workspace(finished, uri), *versions(uri, "tickets"))] == [
        (2, True)
    ] * 2


def test_version_with_alias_is_never_deleted(uri: str, finished: Path) -> None:
    register_workspace(finished, uri)
    (package_of(uri, 1) / "MLmodel").unlink()
    make_incomplete(uri, 1)
    set_champion(uri, 1)

    with pytest.raises(RetuneError, match="tickets/1 is not deleted: it is champion"):
        register_workspace(finished, uri)
    assert [version.number for version in versions(uri, "tickets")] == [1]


def test_unknown_version_is_rejected(shared: str) -> None:
    with pytest.raises(NotFound, match="tickets has no version 7; there are: 1"):
        promote(shared, "tickets", 7)


def test_unregistered_model_has_empty_status(uri: str) -> None:
    assert champion(uri, "tickets") is None
    assert versions(uri, "tickets") == []
    assert (status(uri, "tickets")["version"], status(uri, "tickets")["newest"]) == (None, None)
    with pytest.raises(NotFound, match="there are: none"):
        promote(uri, "tickets", 1)


@pytest.mark.slow
def test_status_shows_champion_metrics_with_intervals(uri: str, finished: Path, other: Path) -> None:
    judged(register_workspace(finished, uri), uri)
    register_workspace(other, uri)
    set_champion(uri, 1)

    result = status(uri, "tickets")
    assert (result["version"], result["newest"], result["verdict"], result["verdict_key"]) == (1, 2, "PASS", "k1")
    assert result["metrics"]["macro_f1"] == {"value": 0.7, "low": pytest.approx(0.68), "high": pytest.approx(0.72)}


@pytest.mark.slow
def test_promoting_the_aliased_champion_changes_nothing(uri: str, finished: Path) -> None:
    register_workspace(finished, uri)
    set_champion(uri, 1)

    assert promote(uri, "tickets", 1).changed is False


def edit_manifest(package: Path, **changes: str) -> None:
    manifest = yaml.safe_load((package / "MLmodel").read_text())
    manifest["flavors"]["python_function"].update(changes)
    (package / "MLmodel").write_text(yaml.safe_dump(manifest))


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda package: edit_manifest(package, loader_module="components.evil"), "loader_module is 'components.evil'"),
        (lambda package: edit_manifest(package, python_model="python_model.pkl"), "pickled python_model"),
        (lambda package: edit_manifest(package, model_code_path="evil.py"), "expected serving.py"),
        (lambda package: (package / "python_model.pkl").write_bytes(b"x"), "may be pickles: python_model.pkl"),
        (lambda package: (package / "artifacts/model/model.safetensors").write_bytes(b"x"), "not the model that was registered"),
        (lambda package: (package / "code/components/core/text.py").write_text("x"), "the hash of the package differs"),
        (lambda package: (package / "MLmodel").unlink(), "no MLmodel file"),
    ],
)
def test_changed_package_is_not_loaded(shared: str, tmp_path: Path, tamper, message: str) -> None:  # type: ignore[no-untyped-def]
    (version,) = versions(shared, "tickets")
    package = shutil.copytree(package_of(shared, 1), tmp_path / "package")
    tamper(package)

    with pytest.raises(BadModel, match=message):
        check_files(package, version.tags["retune.weights"], version.tags["retune.package"])


def test_version_without_files_is_not_promoted(uri: str, finished: Path) -> None:
    register_workspace(finished, uri)
    shutil.rmtree(package_of(uri, 1))

    with pytest.raises(BadModel, match=r"cannot be fetched|no MLmodel file"):
        promote(uri, "tickets", 1)
    assert champion(uri, "tickets") is None


def test_compiled_code_in_package_is_removed(shared: str, tmp_path: Path) -> None:
    (version,) = versions(shared, "tickets")
    package = shutil.copytree(package_of(shared, 1), tmp_path / "package")
    planted = package / "code/components/__pycache__/text.cpython-311.pyc"
    planted.parent.mkdir()
    planted.write_bytes(b"x")
    (package / "registered_model_meta").write_text("x")  # written by MLflow at an earlier load

    check_files(package, version.tags["retune.weights"], version.tags["retune.package"])

    assert not planted.exists()
    assert fingerprint(package) == version.tags["retune.package"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_version_is_verified_with_its_own_code(uri: str, finished: Path) -> None:
    register_workspace(finished, uri)

    verified = verify(uri, "tickets", 1)
    assert (verified.rows, verified.code) == (10, package_of(uri, 1) / "code/components")
    assert verified.difference < 1e-6
    assert not list(package_of(uri, 1).rglob("__pycache__"))


@pytest.mark.exhaustive
@pytest.mark.slow
def test_packaged_code_is_used_instead_of_todays(uri: str, finished: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed/components"
    shutil.copytree(CODE, changed, ignore=shutil.ignore_patterns("__pycache__"))
    task = changed / "model/tasks/text_classification/predictor.py"
    source = task.read_text()
    answers = "max(1, len(self.labels)))\n"
    assert source.count(answers) == 1
    task.write_text(source.replace(answers, answers.rstrip() + "[:, ::-1]\n"))
    register_workspace(finished, uri, code=changed)

    with pytest.raises(BadModel, match="rows differently than evaluated: a probability differs by 0"):
        promote(uri, "tickets", 1)
    assert champion(uri, "tickets") is None


@pytest.mark.exhaustive
@pytest.mark.slow
def test_scores_of_a_version_are_cached(uri: str, finished: Path, tickets: pd.DataFrame, tmp_path: Path) -> None:
    register_workspace(finished, uri)
    rows = tickets.iloc[:60].sample(frac=1, random_state=1)
    (version,) = versions(uri, "tickets")
    task = tasks.of(ModelSpec.read(finished / "models/trained/model"))
    workspace = Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")

    with ModelSessions(workspace, uri, task) as sessions:
        scored = sessions.predictions(version, rows, "eeee")

    evaluated = Predictions.read(finished / "reports/evaluation/predictions/candidate.parquet")
    assert scored.ids.tolist() == evaluated.ids.tolist()
    assert scored.predicted.tolist() == evaluated.predicted.tolist()
    np.testing.assert_allclose(scored.probabilities, evaluated.probabilities, atol=1e-6)  # float32 rounding between batch shapes
    (cache,) = (tmp_path / "var/predictions/tickets").glob("*-eeee.parquet")
    written = cache.stat().st_mtime_ns
    with ModelSessions(workspace, uri, task) as sessions:
        again = sessions.predictions(version, rows, "eeee")
    assert cache.stat().st_mtime_ns == written
    assert again.predicted.tolist() == scored.predicted.tolist()
    cache.write_bytes(b"torn")
    assert read_cache(cache, rows) is None


@pytest.mark.exhaustive
@pytest.mark.slow
def test_registered_model_is_predicted_by_name(uri: str, finished: Path) -> None:
    register_workspace(finished, uri)
    set_champion(uri, 1)

    answered = predict(uri, "tickets", pd.DataFrame({"text": ["the invoice is wrong", ""]}))

    assert list(answered.columns) == ["text", "label", "probability", "probabilities"]
    for row in answered.itertuples():
        assert row.probability == max(row.probabilities.values()) == row.probabilities[row.label]
        assert sum(row.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("tickets", "tickets has no champion; version 1 waits for a decision"),
        ("tickets@shadow", "tickets has no shadow"),
        ("tickets/9", "tickets has no version 9; there are: 1"),
        ("tickets/new", "expected NAME, NAME@ALIAS or NAME/VERSION"),
    ],
)
def test_unknown_model_name_is_rejected(shared: str, model: str, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        predict(shared, model, ["x"])


REGISTER = (
    "import os, sys; from pathlib import Path; from components.mlflow_store.registry import register;"
    "from components.mlflow_store.registry import register as _; module = sys.modules['components.mlflow_store.registry.register'];"
    "from tests.support.finished import LINEAGE;{before}"
    "register(Path(sys.argv[1]), sys.argv[2], run_id=sys.argv[3], key=sys.argv[4], lineage=LINEAGE)"
)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_killed_registration_leaves_one_complete_version(uri: str, finished: Path) -> None:
    run = record(finished, uri, lineage=LINEAGE, params=PARAMS)
    code = REGISTER.format(before="module.create_version = lambda *a: os.kill(os.getpid(), 9);")
    killed = subprocess.run([sys.executable, "-c", code, str(finished), uri, run.run_id, run.key], capture_output=True, timeout=300)
    assert killed.returncode == -9, killed.stderr

    register_workspace(finished, uri)

    assert [(version.number, version.complete) for version in versions(uri, "tickets")] == [(1, True)]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tickets").experiment_id
    assert len(client.search_logged_models([experiment])) == 1


@pytest.mark.exhaustive
@pytest.mark.slow
def test_concurrent_registrations_create_one_version(uri: str, finished: Path) -> None:
    run = record(finished, uri, lineage=LINEAGE, params=PARAMS)
    command = [sys.executable, "-c", REGISTER.format(before=""), str(finished), uri, run.run_id, run.key]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]

    assert [(child.communicate(timeout=300)[1], child.returncode)[1] for child in children] == [0, 0]
    assert [version.number for version in versions(uri, "tickets")] == [1]


@pytest.mark.slow
def test_package_has_the_pipeline_only_if_uncommitted(uri: str, finished: Path, other: Path) -> None:
    for workspace, lineage in ((finished, LINEAGE), (other, LINEAGE.model_copy(update={"dirty": 1, "dirty_code": 1}))):
        run = record(workspace, uri, lineage=lineage, params=PARAMS)
        register(workspace, uri, run_id=run.run_id, key=run.key, lineage=lineage)
    clean, dirty = (checked_package(uri, version) for version in sorted(versions(uri, "tickets"), key=lambda version: version.number))

    assert {path.name for path in (clean / "code/components").iterdir()} - {"__pycache__"} == {"__init__.py", "core", "artifacts", "model"}
    assert not (clean / "artifacts/pipeline_code").exists()
    assert (dirty / "artifacts/pipeline_code/components/training/train.py").is_file()
