"""A copy is promoted by the source's verdict only if the target has no verdict of its own. Nothing is packaged or loaded here."""

import importlib
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.artifacts.verdict import Outcome
from components.core.errors import BadInput
from components.ledger import Ledger, StaleVerdict
from components.mlflow_store.registry import Environment, copy_version, read_verdict
from components.mlflow_store.registry.versions import EVIDENCE, ORIGIN
from flows.production import promotion
from tests.support.promotion import NAME, create_version, find, judge, new_environment, request_of

pytestmark = pytest.mark.slow

promoting = importlib.import_module("components.mlflow_store.registry.promote")  # the package exports the function of that name


@pytest.fixture(autouse=True)
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promoting, "verify", lambda *_: None)
    monkeypatch.setattr("components.mlflow_store.registry.environments.checked_package", lambda *_: Path())


@pytest.fixture
def staging(tmp_path: Path) -> Environment:
    """A registry with the unjudged candidates 1 and 2."""
    environment = new_environment("staging", tmp_path / "staging")
    for key in ("k1", "k2"):
        create(environment, key)
    return environment


@pytest.fixture
def local(tmp_path: Path) -> Environment:
    """A registry with another candidate, version 1."""
    environment = new_environment("local", tmp_path / "local")
    create(environment, "k9")
    return environment


def create(environment: Environment, key: str) -> int:
    """Create a version without a package, and return its number."""
    return create_version(environment.mlflow, key)


def copy(environment: Environment, key: str) -> int:
    """Create a version as if copied from staging, without its verdict."""
    return create_version(environment.mlflow, key, **{ORIGIN: "staging"})


def champion(environment: Environment) -> int | None:
    head = Ledger(environment.ledger).head(NAME)
    return head.version if head else None


def promote(staging: Environment, local: Environment, number: int, **more: object) -> promotion.Promotion:
    return promotion.promote_from(staging, local, NAME, number, who="ada", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("made", [create, copy], ids=["made there", "copied there"])
def test_version_that_failed_in_target_is_rejected(staging: Environment, local: Environment, made: object) -> None:
    number = made(local, "k2")  # type: ignore[operator]
    judge(staging, 2)
    own = judge(local, number, Outcome.FAIL, key="under new gates")

    with pytest.raises(BadInput, match=r"version 2 of local passed in staging but was judged in local too: the verdict .* is FAIL"):
        promote(staging, local, 2)
    assert champion(local) is None
    assert read_verdict(local.mlflow, find(local, number)) == own

    entry = promote(staging, local, 2, force=True, why="the new gates are wrong").entry
    assert (entry.forced, entry.outcome, entry.evidence) == (True, "FAIL", own.evidence)
    assert read_verdict(local.mlflow, find(local, number)) == own


def test_incomplete_target_verdict_is_rejected(staging: Environment, local: Environment) -> None:
    number = create(local, "k2")
    judge(staging, 2)
    judge(local, number, Outcome.PASS, key="under new gates")
    MlflowClient(local.mlflow).delete_model_version_tag(NAME, str(number), EVIDENCE)

    with pytest.raises(BadInput, match=r"was judged in local too: .* its evidence cannot be read: judge it again"):
        promote(staging, local, 2)


def test_version_that_passed_in_target_uses_that_evidence(staging: Environment, local: Environment) -> None:
    number = copy(local, "k2")
    judge(staging, 2)
    own = judge(local, number, key="under new gates")

    assert promote(staging, local, 2).entry.evidence == own.evidence


def test_target_verdict_about_earlier_champion_is_stale(staging: Environment, local: Environment) -> None:
    number = copy(local, "k2")
    judge(staging, 2)
    judge(local, number, key="under new gates")
    promotion.promote(local, NAME, 1, who="bob", why="meanwhile", force=True)

    with pytest.raises(StaleVerdict, match="verdict is about no champion, champion is now 1: judge again"):
        promote(staging, local, 2)
    assert champion(local) == 1


def test_rejection_in_target_is_respected(staging: Environment, local: Environment) -> None:
    number = copy(local, "k2")
    verdict = judge(staging, 2)
    copy_version(staging, local, NAME, 2)
    request = request_of(local, number, verdict)
    promotion.reject(local, Ledger(local.ledger).request_approval(request).run, who="bob", why="it is harmful")

    with pytest.raises(BadInput, match="bob rejected version 2 of tickets"):
        promote(staging, local, 2)


def test_newer_source_verdict_replaces_the_copied_one(staging: Environment, local: Environment) -> None:
    number = copy(local, "k2")
    judge(staging, 2, Outcome.FAIL, key="first")
    copy_version(staging, local, NAME, 2)
    newer = judge(staging, 2, key="second")

    assert promote(staging, local, 2).entry.evidence == newer.evidence
    assert read_verdict(local.mlflow, find(local, number)) == newer


def test_copy_killed_before_its_reference_tag_is_rejected(
    staging: Environment, local: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = copy(local, "k2")
    judge(staging, 2, champion=1)  # key k1, which does not exist here
    promotion.promote(local, NAME, 1, who="ada", why="so", force=True)  # key k9
    write = MlflowClient.set_model_version_tag

    def killed(client: MlflowClient, name: str, version: str, key: str, value: object) -> None:
        if client.get_model_version(name, version).tags.get(EVIDENCE):
            raise KeyboardInterrupt
        write(client, name, version, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_model_version_tag", killed)
        with pytest.raises(KeyboardInterrupt):
            copy_version(staging, local, NAME, 2)
    assert find(local, number).evidence is not None

    with pytest.raises(BadInput, match="was judged in staging against its version 1: `retune promote --from staging`"):
        promotion.promote(local, NAME, number, who="ada")
    assert champion(local) == 1
    assert copy_version(staging, local, NAME, 2).judged_against is None


def test_copy_is_promoted_if_reference_has_same_number(staging: Environment, local: Environment) -> None:
    judge(staging, 1, champion=2)
    promotion.promote(local, NAME, copy(local, "k2"), who="ada", why="so", force=True)
    number = copy(local, "k1")
    copy_version(staging, local, NAME, 1)

    assert promotion.promote(local, NAME, number, who="ada").entry.previous == 2


def test_copy_of_a_copy_uses_its_own_registry_numbers(tmp_path: Path, staging: Environment, local: Environment) -> None:
    create(local, "k1")
    judge(staging, 2, champion=1)
    number = copy(local, "k2")
    copy_version(staging, local, NAME, 2)
    assert find(local, number).judged_against == 2
    production = new_environment("production", tmp_path / "production")
    for key in ("k8", "k7", "k1"):
        create(production, key)
    last = create_version(production.mlflow, "k2", **{ORIGIN: "local"})

    assert copy_version(local, production, NAME, number).judged_against == 3
    with pytest.raises(BadInput, match="was judged in local against its version 1"):
        promotion.promote(production, NAME, last, who="ada")
