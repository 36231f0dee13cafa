"""A promotion uses only the evidence that was decided on, also under concurrent decisions. No model is loaded."""

import importlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.core.errors import BadInput, NotFound
from components.ledger import Ledger, Request, StaleVerdict
from components.mlflow_store.connection import ensure_experiment
from components.mlflow_store.registry import CHALLENGER, CHAMPION, Environment, Version, attach_verdict, read_verdict, versions
from components.mlflow_store.registry.versions import COMPLETE, EVIDENCE, JUDGED_AGAINST, KEY, ORIGIN
from components.mlflow_store.tracking import RecordedRun
from flows.pipeline import actions
from flows.pipeline.judge import JudgeResult, _decided
from flows.production import events, promotion
from flows.project.workspace import Workspace
from tests.support.finished import new_store
from tests.support.project import ROOT, TINY, change, write_params

pytestmark = pytest.mark.slow

NAME = "tickets"
NOW = datetime.now(UTC)
promoting = importlib.import_module("components.mlflow_store.registry.promote")  # the package exports a function of this name
DuringCheck = Callable[[Callable[[], object]], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Return a registry with three versions of separate runs, without packages."""
    uri = new_store(tmp_path / "var")
    monkeypatch.setattr(promoting, "_check_package", lambda *_, **__: None)
    client = MlflowClient(uri)
    client.create_registered_model(NAME)
    for number in (1, 2, 3):
        run = client.create_run(ensure_experiment(client, uri, NAME))
        client.create_model_version(NAME, "file:///nowhere", run.info.run_id, tags={KEY: f"k{number}", COMPLETE: "true"})
    return Environment("local", uri, f"sqlite:///{tmp_path}/var/ledger.db")


@pytest.fixture
def during_check(monkeypatch: pytest.MonkeyPatch) -> DuringCheck:
    """Return a function that runs a callback during the package check."""

    def run(callback: Callable[[], object]) -> None:
        monkeypatch.setattr(promoting, "_check_package", lambda *_, **__: callback())

    return run


def judge(place: Environment, number: int, outcome: Outcome = Outcome.PASS, champion: str | None = None, key: str = "") -> Verdict:
    version, key = promotion.find(place, NAME, number), key or f"v{number}"
    verdict = Verdict(
        key=key, candidate=version.key, champion=champion, test_digest="t", outcome=outcome, reason=f"it is {outcome}", gates=()
    )
    attach_verdict(place.mlflow, version.run_id, NAME, number, verdict)
    return verdict


def wait(place: Environment, number: int, outcome: Outcome = Outcome.INCONCLUSIVE, days: float = 7) -> Request:
    verdict, run = judge(place, number, outcome), promotion.find(place, NAME, number).run_id
    request = Request(
        run,
        NAME,
        number,
        None,
        None,
        verdict.key,
        outcome.value,
        verdict.evidence,
        verdict.reason,
        NOW - timedelta(days=2),
        NOW + timedelta(days=days),
    )
    return Ledger(place.ledger).request_approval(request)


def aliases(place: Environment) -> dict[str, int]:
    return {alias: version.number for version in versions(place.mlflow, NAME) for alias in version.aliases}


def version(place: Environment, number: int) -> Version:
    return promotion.find(place, NAME, number)


def test_rejection_during_approval_wins(place: Environment, during_check: DuringCheck) -> None:
    request = wait(place, 1)
    during_check(lambda: promotion.reject(place, request.run, who="bob", why="it is harmful"))

    with pytest.raises(BadInput, match=r"was rejected by bob at .*: it is harmful"):
        promotion.approve(place, request.run, who="ada", why="why not")
    assert (Ledger(place.ledger).head(NAME), aliases(place)) == (None, {})
    assert version(place, 1).answer == "rejected by bob: it is harmful"


def test_new_verdict_during_approval_blocks_promotion(place: Environment, during_check: DuringCheck) -> None:
    request = wait(place, 1)
    during_check(lambda: judge(place, 1, Outcome.FAIL, key="other"))

    with pytest.raises(BadInput, match=r"the decision was about evidence .*, but the verdict on models:/tickets/1 is now "):
        promotion.approve(place, request.run, who="ada", why="why not")
    assert Ledger(place.ledger).head(NAME) is None


def test_new_verdict_during_promotion_blocks_it(place: Environment, during_check: DuringCheck) -> None:
    judge(place, 1)
    during_check(lambda: judge(place, 1, Outcome.FAIL, key="other"))

    with pytest.raises(BadInput, match="review again"):
        promotion.promote(place, NAME, 1, who="ada")
    assert Ledger(place.ledger).head(NAME) is None


def test_approval_is_recorded_with_its_evidence(place: Environment) -> None:
    request = wait(place, 1)
    entry = promotion.approve(place, request.run, who="ada", why="  harmless  ").entry

    assert (entry.evidence, entry.outcome, entry.verdict_key, entry.why) == (request.evidence, "INCONCLUSIVE", "v1", "harmless")
    assert Ledger(place.ledger).request(request.run).decision == "approved"


def test_rejection_holds_until_new_evidence_or_force(place: Environment) -> None:
    request = wait(place, 1, Outcome.PASS)
    promotion.reject(place, request.run, who="bob", why="it is harmful")

    with pytest.raises(BadInput, match="bob rejected version 1 of tickets on this evidence: it is harmful"):
        promotion.promote(place, NAME, 1, who="ada")
    assert promotion.promote(place, NAME, 1, who="ada", why="Bob was wrong", force=True).entry.forced


def test_champion_of_a_verdict_is_not_read_from_a_tag(place: Environment) -> None:
    judge(place, 3, champion="1")
    for number in (1, 2):
        promotion.promote(place, NAME, number, who="ada", why="so", force=True)
    MlflowClient(place.mlflow).set_model_version_tag(NAME, "3", JUDGED_AGAINST, "2")

    with pytest.raises(StaleVerdict, match="verdict is about version 1, champion is now 2: judge again"):
        promotion.promote(place, NAME, 3, who="ada")


def test_copied_version_is_not_promoted_by_a_foreign_number(place: Environment) -> None:
    judge(place, 3, champion="1")
    client = MlflowClient(place.mlflow)
    client.set_model_version_tag(NAME, "3", ORIGIN, "staging")
    client.set_model_version_tag(NAME, "3", JUDGED_AGAINST, "2")

    with pytest.raises(BadInput, match=r"was judged in staging against its version 1: `retune promote --from staging`"):
        promotion.promote(place, NAME, 3, who="ada")


def test_verdict_without_champion_does_not_replace_a_deleted_one(place: Environment) -> None:
    judge(place, 3)
    promotion.promote(place, NAME, 2, who="ada", why="so", force=True)
    MlflowClient(place.mlflow).delete_model_version(NAME, "2")

    with pytest.raises(StaleVerdict, match="verdict is about no champion, champion is now 2: judge again"):
        promotion.promote(place, NAME, 3, who="ada")


def test_partial_verdict_is_ignored_and_completed(place: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(place, 1, champion="1", key="first")
    write = MlflowClient.set_model_version_tag

    def killed(client: MlflowClient, name: str, number: str, key: str, value: object) -> None:
        if key == EVIDENCE:
            raise KeyboardInterrupt
        write(client, name, number, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_model_version_tag", killed)
        with pytest.raises(KeyboardInterrupt):
            judge(place, 1, champion="2", key="second")
    assert read_verdict(place.mlflow, version(place, 1)) is None

    first = judge(place, 1, champion="1", key="first")
    judged = version(place, 1)
    assert (judged.evidence, judged.verdict_key, judged.judged_against) == (first.evidence, "first", 1)


@pytest.mark.exhaustive
def test_champion_request_does_not_expire(place: Environment) -> None:
    wait(place, 1, Outcome.PASS, days=-1)
    promotion.promote(place, NAME, 1, who="ada")

    assert promotion.reconcile(place, NAME) == {NAME: []}
    assert (version(place, 1).answer, aliases(place)) == (None, {CHAMPION: 1})
    assert Ledger(place.ledger).requests(NAME)[0].decision == "superseded"


def test_expired_request_removes_the_alias_until_renewed(place: Environment) -> None:
    wait(place, 1, days=-1)
    assert [said.partition(" at ")[0] for said in promotion.sync_registry(place, NAME)] == ["version 1 was expired"]
    assert aliases(place) == {}

    wait(place, 1)
    assert promotion.sync_registry(place, NAME) == ["version 1 waits for an answer again"]
    assert (version(place, 1).answer, aliases(place)) == (None, {CHALLENGER: 1})


def test_misspelt_name_gets_a_suggestion(place: Environment) -> None:
    promotion.promote(place, NAME, 1, who="ada", why="so", force=True)
    for ask in (lambda: promotion.reconcile(place, "tickts"), lambda: promotion.rollback(place, "tickts", None, who="ada", why="so")):
        with pytest.raises(NotFound, match="no model 'tickts' is registered in local; did you mean 'tickets'"):
            ask()


@pytest.mark.parametrize("blank", ["", "   ", "\n"])
def test_blank_reason_is_rejected(place: Environment, blank: str) -> None:
    judge(place, 1)
    for ask in (
        lambda: promotion.promote(place, NAME, 1, who="ada", why=blank),
        lambda: promotion.rollback(place, NAME, 1, who="ada", why=blank),
        lambda: promotion.approve(place, "a", who="ada", why=blank),
        lambda: promotion.reject(place, "a", who="ada", why=blank),
    ):
        with pytest.raises(BadInput, match="--why is blank"):
            ask()
    with pytest.raises(BadInput, match="--force needs --why TEXT"):
        promotion.promote(place, NAME, 1, who="ada", why=blank, force=True)


@pytest.fixture
def workspace(place: Environment, tmp_path: Path) -> Workspace:
    """Return a workspace with automatic approval."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    write_params(tmp_path, change(params | {"name": NAME}, TINY | {"promotion": {"approval": "automatic"}}))
    return Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")


def settle(workspace: Workspace, version: Version, verdict: Verdict) -> actions.Result:
    return actions.apply_verdict(
        workspace, RecordedRun(version.run_id, version.key, created=False), version, JudgeResult(verdict, fresh=True)
    )


def test_run_does_not_promote_a_rejected_version(place: Environment, workspace: Workspace) -> None:
    promotion.reject(place, wait(place, 1, Outcome.PASS).run, who="bob", why="it is harmful")
    result = settle(workspace, version(place, 1), judge(place, 1))

    assert (result.promoted, result.champion, result.waits_until) == (False, None, None)
    assert settle(workspace, version(place, 2), judge(place, 2)).promoted


@pytest.mark.exhaustive
def test_rolled_back_version_needs_approval(place: Environment, workspace: Workspace) -> None:
    """After a rollback by two versions, a new verdict against the old champion does not promote version 3 again."""
    for number, champion in ((1, None), (2, "1"), (3, "2")):
        assert settle(workspace, version(place, number), judge(place, number, champion=champion, key=f"v{number}")).promoted
    promotion.rollback(place, NAME, 1, who="ada", why="wrong on refunds")

    for number in (3, 2):
        result = settle(workspace, version(place, number), judge(place, number, champion="1", key=f"again{number}"))
        assert (result.promoted, result.champion, result.waits_until is not None) == (False, 1, True)
    assert promotion.approve(place, result.run, who="ada", why="it was the data").entry.version == 2


def test_run_removes_and_restores_the_alias_of_an_expired_request(place: Environment, workspace: Workspace) -> None:
    wait(place, 1, days=-1)
    actions.reconcile(workspace, place.mlflow, NAME)
    assert (version(place, 1).aliases, (version(place, 1).answer or "").partition(" at ")[0]) == ((), "expired")

    result = settle(workspace, version(place, 1), judge(place, 1, Outcome.INCONCLUSIVE))
    assert result.waits_until is not None
    assert (version(place, 1).aliases, version(place, 1).answer) == ((CHALLENGER,), None)


def test_reregistered_champion_becomes_champion_again(place: Environment, workspace: Workspace) -> None:
    promotion.promote(place, NAME, 3, who="ada", why="so", force=True)
    client = MlflowClient(place.mlflow)
    client.delete_model_version(NAME, "3")
    client.create_model_version(NAME, "file:///nowhere", version(place, 1).run_id, tags={KEY: "k3", COMPLETE: "true"})

    result = settle(workspace, version(place, 4), judge(place, 4))
    assert (result.champion, aliases(place)[CHAMPION]) == (4, 4)


@pytest.mark.parametrize("address", ["http://[::1", "http://host:port", "no address"])
def test_invalid_prefect_address_does_not_undo_a_promotion(
    place: Environment, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "address", lambda: address)

    assert promotion.promote(place, NAME, 1, who="ada", why="so", force=True).changed
    assert "could not send event" in caplog.text


def test_concurrent_registration_keeps_the_alias(place: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(place, 1)
    client, point = MlflowClient(place.mlflow), MlflowClient.set_registered_model_alias

    def registers(self: MlflowClient, name: str, alias: str, number: str) -> None:
        point(self, name, alias, number)
        point(client, name, CHALLENGER, "2")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", registers)
    promotion.promote(place, NAME, 1, who="ada")

    assert aliases(place) == {CHAMPION: 1, CHALLENGER: 2}


def test_inconclusive_verdict_is_repeated_until_a_person_decides(place: Environment) -> None:
    ledger = Ledger(place.ledger)
    request = wait(place, 1)
    assert not _decided(ledger, version(place, 1), "v1")

    promotion.approve(place, request.run, who="ada", why="the machine was slow")
    assert _decided(ledger, version(place, 1), "v1")
    assert not _decided(ledger, version(place, 1), "another")

    promotion.reject(place, wait(place, 2).run, who="bob", why="it is harmful")
    assert _decided(ledger, version(place, 2), "v2")


def test_old_verdict_keeps_its_digest() -> None:
    """Approvals and ledger entries store the digest, so unset new fields must not change it."""
    gate = GateResult(gate="floor", outcome=Outcome.PASS, reason="so")
    verdict = Verdict(key="v", candidate="c", champion=None, test_digest="t", outcome=Outcome.PASS, reason="so", gates=(gate,))
    stored = json.loads(verdict.model_dump_json())["gates"][0]

    assert "may_pass" not in stored
    assert GateResult(**stored) == gate
    assert gate.model_copy(update={"may_pass": True}).model_dump()["may_pass"]
