"""A version is copied from staging to production with its evidence, and promoted in production's ledger."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from components.artifacts.verdict import Outcome
from components.core.errors import BadInput, BadModel
from components.core.hashing import digest_file
from components.ledger import Ledger
from components.mlflow_store.connection import connect
from components.mlflow_store.registry import CHALLENGER, CHAMPION, Environment, copy_version, read_verdict, versions
from components.mlflow_store.registry.package import fingerprint
from components.mlflow_store.registry.versions import COMPLETE
from components.mlflow_store.tracking import record
from flows.production import promotion
from tests.support.finished import LINEAGE, PARAMS, make_finished
from tests.support.project import make_project, retune
from tests.support.promotion import aliases, find, judge, new_environment
from tests.support.registered import make_registry

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> list[Path]:
    return [make_finished(tmp_path_factory.mktemp("candidate"), tiny_base, tickets, seed=seed) for seed in range(2)]


@pytest.fixture
def staging(tmp_path: Path, candidates: list[Path]) -> Environment:
    return replace(make_registry(tmp_path / "staging", candidates), name="staging")


@pytest.fixture
def production(tmp_path: Path) -> Environment:
    return new_environment("production", tmp_path / "production")


def files(environment: Environment, run_id: str, folder: Path) -> dict[str, str]:
    """Return the digest of each artifact of a run by name."""
    folder.mkdir(parents=True)
    artifacts = Path(MlflowClient(environment.mlflow, environment.mlflow).download_artifacts(run_id, "", str(folder)))
    return {path.relative_to(artifacts).as_posix(): digest_file(path) for path in artifacts.rglob("*") if path.is_file()}


def test_copy_has_run_evidence_and_package(tmp_path: Path, production: Environment, candidates: list[Path]) -> None:
    staging = new_environment("staging", tmp_path / "staging")
    run = record(candidates[0], staging.mlflow, lineage=LINEAGE, params=PARAMS)
    promotion.registry.register(candidates[0], staging.mlflow, run_id=run.run_id, key=run.key, lineage=LINEAGE)
    verdict = judge(staging, 1, champion=7)
    original = find(staging, 1)

    copied = copy_version(staging, production, "tickets", 1)

    assert (copied.key, copied.complete, copied.aliases) == (original.key, True, (CHALLENGER,))
    assert read_verdict(production.mlflow, copied) == verdict
    assert (copied.verdict, copied.evidence, copied.judged_against) == (
        Outcome.PASS,
        verdict.evidence,
        None,
    )  # version 7 does not exist here
    assert copied.tags["retune.package"] == fingerprint(package_of(production)) == original.tags["retune.package"]
    assert (copied.tags["retune.origin"], copied.tags["retune.origin_version"]) == ("staging", "1")
    assert files(production, copied.run_id, tmp_path / "target") == files(staging, original.run_id, tmp_path / "source") != {}
    target, source = (
        MlflowClient(environment.mlflow).get_run(run) for environment, run in ((production, copied.run_id), (staging, original.run_id))
    )
    assert (target.data.params, target.data.metrics) == (source.data.params, source.data.metrics)
    assert len(target.inputs.dataset_inputs) == 3
    again = copy_version(staging, production, "tickets", 1)
    assert (again.number, again.run_id, len(versions(production.mlflow, "tickets"))) == (1, copied.run_id, 1)


def package_of(environment: Environment) -> Path:
    return Path(connect(environment.mlflow).get_model_version_download_uri("tickets", "1").removeprefix("file://"))


def test_incomplete_copy_is_replaced(staging: Environment, production: Environment) -> None:
    copied = copy_version(staging, production, "tickets", 1)
    client = MlflowClient(production.mlflow)
    client.delete_model_version_tag("tickets", str(copied.number), COMPLETE)

    complete = copy_version(staging, production, "tickets", 1)

    assert [(version.number, version.complete) for version in versions(production.mlflow, "tickets")] == [(complete.number, True)]
    experiment = client.get_experiment_by_name("tickets").experiment_id
    assert [run.info.run_id for run in client.search_runs([experiment])] == [complete.run_id]
    assert len(client.search_logged_models([experiment])) == 1


def test_only_intact_passing_versions_leave_staging(staging: Environment, production: Environment) -> None:
    judge(staging, 1, Outcome.FAIL)
    with pytest.raises(BadInput, match="the verdict on tickets version 1 is FAIL"):
        promotion.promote_from(staging, production, "tickets", 1, who="ada", why="I like it")
    with pytest.raises(BadInput, match="--force needs --why"):
        promotion.promote_from(staging, production, "tickets", 1, who="ada", force=True)
    with pytest.raises(BadInput, match="--from and --to are both staging"):
        promotion.promote_from(staging, staging, "tickets", 1, who="ada")
    judge(staging, 1)
    (package_of(staging) / "artifacts/model/model.safetensors").write_bytes(b"x")
    with pytest.raises(BadModel, match="not the model that was registered"):
        promotion.promote_from(staging, production, "tickets", 1, who="ada")
    assert versions(production.mlflow, "tickets") == []


def test_command_promotes_between_environments(
    tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame, candidates: list[Path], production: Environment
) -> None:
    folder = make_project(tmp_path / "project", tiny_base, tickets)
    local = make_registry(folder / "var", candidates)
    verdict = judge(local, 2, champion=1)
    environments = f'{{"production": {{"mlflow": "{production.mlflow}", "ledger": "{production.ledger}"}}}}'

    done = retune(
        folder, "promote", "tickets", "2", "--from", "local", "--to", "production", RETUNE_ENVIRONMENTS=environments, RETUNE_USER="ada"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("tickets: version 1 is now the champion; previous: none")
    assert (aliases(production.mlflow), aliases(local.mlflow)) == ({CHAMPION: 1}, {CHALLENGER: 2})
    entry = Ledger(production.ledger).head("tickets")
    assert (entry.origin, entry.evidence, entry.who, entry.anchor) == ("local", verdict.evidence, "ada", 1)
    assert entry.why == "it is PASS (version 2 of local, judged there against version 1, which is not the champion here)"
    assert Ledger(local.ledger).head("tickets") is None
