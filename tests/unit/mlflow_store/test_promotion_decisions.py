"""A promotion uses only the evidence that was decided on, also under concurrent decisions. No model is loaded."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.core.errors import BadInput, NotFound
from components.ledger import Ledger, StaleVerdict
from components.mlflow_store.registry import CHALLENGER, CHAMPION, Environment, Version, read_verdict
from components.mlflow_store.registry.verify import resolve
from components.mlflow_store.registry.versions import COMPLETE, EVIDENCE, JUDGED_AGAINST, KEY, ORIGIN
from components.mlflow_store.tracking import RecordedRun
from flows.pipeline import actions
from flows.pipeline.judge import JudgeResult, _decided
from flows.production import events, promotion
from flows.project.workspace import Workspace
from tests.support.project import ROOT, TINY, change, write_params
from tests.support.promotion import NAME, aliases, find, judge, judge_and_request

pytestmark = pytest.mark.slow

promoting = importlib.import_module("components.mlflow_store.registry.promote")  # the package exports a function of this name
DuringCheck = Callable[[Callable[[], object]], None]


@pytest.fixture
def during_check(monkeypatch: pytest.MonkeyPatch) -> DuringCheck:
    """Return a function that runs a callback during the package check."""

    def run(callback: Callable[[], object]) -> None:
        monkeypatch.setattr(promoting, "verify", lambda *_: callback())

    return run


def test_rejection_during_approval_wins(environment: Environment, during_check: DuringCheck) -> None:
    request = judge_and_request(environment, 1)
    during_check(lambda: promotion.reject(environment, request.run, who="bob", why="it is harmful"))

    with pytest.raises(BadInput, match=r"was rejected by bob at .*: it is harmful"):
        promotion.approve(environment, request.run, who="ada", why="why not")
    assert (Ledger(environment.ledger).head(NAME), aliases(environment.mlflow)) == (None, {})
    assert find(environment, 1).answer == "rejected by bob: it is harmful"


def test_missing_champion_names_the_version_that_waits(environment: Environment) -> None:
    request = judge_and_request(environment, 1)

    with pytest.raises(NotFound, match=f"version 1 waits for a decision: `retune approve {request.run[:12]}"):
        resolve(environment.mlflow, NAME)


def test_new_verdict_during_approval_blocks_promotion(environment: Environment, during_check: DuringCheck) -> None:
    request = judge_and_request(environment, 1)
    during_check(lambda: judge(environment, 1, Outcome.FAIL, key="other"))

    with pytest.raises(BadInput, match=r"the decision was about evidence .*, but the verdict on models:/tickets/1 is now "):
        promotion.approve(environment, request.run, who="ada", why="why not")
    assert Ledger(environment.ledger).head(NAME) is None


def test_new_verdict_during_promotion_blocks_it(environment: Environment, during_check: DuringCheck) -> None:
    judge(environment, 1)
    during_check(lambda: judge(environment, 1, Outcome.FAIL, key="other"))

    with pytest.raises(BadInput, match="review again"):
        promotion.promote(environment, NAME, 1, who="ada")
    assert Ledger(environment.ledger).head(NAME) is None


def test_approval_is_recorded_with_its_evidence(environment: Environment) -> None:
    request = judge_and_request(environment, 1)
    entry = promotion.approve(environment, request.run, who="ada", why="  harmless  ").entry

    assert (entry.evidence, entry.outcome, entry.verdict_key, entry.why) == (
        request.evidence,
        "INCONCLUSIVE",
        request.verdict_key,
        "harmless",
    )
    assert Ledger(environment.ledger).requests()[-1].decision == "approved"


def test_rejection_holds_until_new_evidence_or_force(environment: Environment) -> None:
    request = judge_and_request(environment, 1, Outcome.PASS)
    promotion.reject(environment, request.run, who="bob", why="it is harmful")

    with pytest.raises(BadInput, match="bob rejected version 1 of tickets on this evidence: it is harmful"):
        promotion.promote(environment, NAME, 1, who="ada")
    assert promotion.promote(environment, NAME, 1, who="ada", why="Bob was wrong", force=True).entry.forced


def test_champion_of_a_verdict_is_not_read_from_a_tag(environment: Environment) -> None:
    judge(environment, 3, champion=1)
    for number in (1, 2):
        promotion.promote(environment, NAME, number, who="ada", why="so", force=True)
    MlflowClient(environment.mlflow).set_model_version_tag(NAME, "3", JUDGED_AGAINST, "2")

    with pytest.raises(StaleVerdict, match="verdict is about version 1, champion is now 2: judge again"):
        promotion.promote(environment, NAME, 3, who="ada")


def test_copied_version_is_not_promoted_by_a_foreign_number(environment: Environment) -> None:
    judge(environment, 3, champion=1)
    client = MlflowClient(environment.mlflow)
    client.set_model_version_tag(NAME, "3", ORIGIN, "staging")
    client.set_model_version_tag(NAME, "3", JUDGED_AGAINST, "2")

    with pytest.raises(BadInput, match=r"was judged in staging against its version 1: `retune promote --from staging`"):
        promotion.promote(environment, NAME, 3, who="ada")


def test_verdict_without_champion_does_not_replace_a_deleted_one(environment: Environment) -> None:
    judge(environment, 3)
    promotion.promote(environment, NAME, 2, who="ada", why="so", force=True)
    MlflowClient(environment.mlflow).delete_model_version(NAME, "2")

    with pytest.raises(StaleVerdict, match="verdict is about no champion, champion is now 2: judge again"):
        promotion.promote(environment, NAME, 3, who="ada")


def test_partial_verdict_is_ignored_and_completed(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(environment, 1, champion=1, key="first")
    write = MlflowClient.set_model_version_tag

    def killed(client: MlflowClient, name: str, number: str, key: str, value: object) -> None:
        if key == EVIDENCE:
            raise KeyboardInterrupt
        write(client, name, number, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_model_version_tag", killed)
        with pytest.raises(KeyboardInterrupt):
            judge(environment, 1, champion=2, key="second")
    assert read_verdict(environment.mlflow, find(environment, 1)) is None

    first = judge(environment, 1, champion=1, key="first")
    judged = find(environment, 1)
    assert (judged.evidence, judged.verdict_key, judged.judged_against) == (first.evidence, "first", 1)


@pytest.mark.exhaustive
def test_champion_request_does_not_expire(environment: Environment) -> None:
    judge_and_request(environment, 1, Outcome.PASS, days=-1)
    promotion.promote(environment, NAME, 1, who="ada")

    assert promotion.reconcile(environment, NAME) == {NAME: []}
    assert (find(environment, 1).answer, aliases(environment.mlflow)) == (None, {CHAMPION: 1})
    assert Ledger(environment.ledger).requests(NAME)[0].decision == "superseded"


def test_expired_request_removes_the_alias_until_renewed(environment: Environment) -> None:
    judge_and_request(environment, 1, days=-1)
    assert [said.partition(" at ")[0] for said in promotion.sync_registry(environment, NAME)] == ["version 1 was expired"]
    assert aliases(environment.mlflow) == {}

    judge_and_request(environment, 1)
    assert promotion.sync_registry(environment, NAME) == ["version 1 waits for an answer again"]
    assert (find(environment, 1).answer, aliases(environment.mlflow)) == (None, {CHALLENGER: 1})


def test_misspelt_name_gets_a_suggestion(environment: Environment) -> None:
    promotion.promote(environment, NAME, 1, who="ada", why="so", force=True)
    for ask in (
        lambda: promotion.reconcile(environment, "tickts"),
        lambda: promotion.rollback(environment, "tickts", None, who="ada", why="so"),
    ):
        with pytest.raises(NotFound, match="no model 'tickts' is registered in local; did you mean 'tickets'"):
            ask()


@pytest.mark.parametrize("blank", ["", "   ", "\n"])
def test_blank_reason_is_rejected(environment: Environment, blank: str) -> None:
    judge(environment, 1)
    for ask in (
        lambda: promotion.promote(environment, NAME, 1, who="ada", why=blank),
        lambda: promotion.rollback(environment, NAME, 1, who="ada", why=blank),
        lambda: promotion.approve(environment, "a", who="ada", why=blank),
        lambda: promotion.reject(environment, "a", who="ada", why=blank),
    ):
        with pytest.raises(BadInput, match="--why is blank"):
            ask()
    with pytest.raises(BadInput, match="--force needs --why TEXT"):
        promotion.promote(environment, NAME, 1, who="ada", why=blank, force=True)


@pytest.fixture
def workspace(environment: Environment, tmp_path: Path) -> Workspace:
    """Return a workspace with automatic approval."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    write_params(tmp_path, change(params | {"name": NAME}, TINY | {"promotion": {"approval": "automatic"}}))
    return Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")


def apply_verdict(workspace: Workspace, version: Version, verdict: Verdict) -> actions.Result:
    return actions.apply_verdict(
        workspace, RecordedRun(version.run_id, version.key, created=False), version, JudgeResult(verdict, fresh=True)
    )


def test_run_does_not_promote_a_rejected_version(environment: Environment, workspace: Workspace) -> None:
    promotion.reject(environment, judge_and_request(environment, 1, Outcome.PASS).run, who="bob", why="it is harmful")
    result = apply_verdict(workspace, find(environment, 1), judge(environment, 1))

    assert (result.promoted, result.champion, result.waits_until) == (False, None, None)
    assert apply_verdict(workspace, find(environment, 2), judge(environment, 2)).promoted


@pytest.mark.exhaustive
def test_rolled_back_version_needs_approval(environment: Environment, workspace: Workspace) -> None:
    """After a rollback by two versions, a new verdict against the old champion does not promote version 3 again."""
    for number, champion in ((1, None), (2, 1), (3, 2)):
        assert apply_verdict(workspace, find(environment, number), judge(environment, number, champion=champion, key=f"v{number}")).promoted
    promotion.rollback(environment, NAME, 1, who="ada", why="wrong on refunds")

    for number in (3, 2):
        result = apply_verdict(workspace, find(environment, number), judge(environment, number, champion=1, key=f"again{number}"))
        assert (result.promoted, result.champion, result.waits_until is not None) == (False, 1, True)
    assert promotion.approve(environment, result.run, who="ada", why="it was the data").entry.version == 2


def test_alias_of_an_expired_request_is_removed_and_restored(environment: Environment, workspace: Workspace) -> None:
    judge_and_request(environment, 1, days=-1)
    actions.reconcile(workspace, environment.mlflow, NAME)
    assert (find(environment, 1).aliases, (find(environment, 1).answer or "").partition(" at ")[0]) == ((), "expired")

    result = apply_verdict(workspace, find(environment, 1), judge(environment, 1, Outcome.INCONCLUSIVE))
    assert result.waits_until is not None
    assert (find(environment, 1).aliases, find(environment, 1).answer) == ((CHALLENGER,), None)


def test_reregistered_champion_becomes_champion_again(environment: Environment, workspace: Workspace) -> None:
    promotion.promote(environment, NAME, 3, who="ada", why="so", force=True)
    client = MlflowClient(environment.mlflow)
    client.delete_model_version(NAME, "3")
    client.create_model_version(NAME, "file:///nowhere", find(environment, 1).run_id, tags={KEY: "k3", COMPLETE: "true"})

    result = apply_verdict(workspace, find(environment, 4), judge(environment, 4))
    assert (result.champion, aliases(environment.mlflow)[CHAMPION]) == (4, 4)


@pytest.mark.parametrize("address", ["http://[::1", "http://host:port", "no address"])
def test_invalid_prefect_address_does_not_undo_a_promotion(
    environment: Environment, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "address", lambda: address)

    assert promotion.promote(environment, NAME, 1, who="ada", why="so", force=True).changed
    assert "could not send event" in caplog.text


def test_concurrent_registration_keeps_the_alias(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(environment, 1)
    client, point = MlflowClient(environment.mlflow), MlflowClient.set_registered_model_alias

    def registers(self: MlflowClient, name: str, alias: str, number: str) -> None:
        point(self, name, alias, number)
        point(client, name, CHALLENGER, "2")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", registers)
    promotion.promote(environment, NAME, 1, who="ada")

    assert aliases(environment.mlflow) == {CHAMPION: 1, CHALLENGER: 2}


def test_inconclusive_verdict_is_repeated_until_a_person_decides(environment: Environment) -> None:
    ledger = Ledger(environment.ledger)
    request = judge_and_request(environment, 1)
    assert not _decided(ledger, find(environment, 1), request.verdict_key)

    promotion.approve(environment, request.run, who="ada", why="the machine was slow")
    assert _decided(ledger, find(environment, 1), request.verdict_key)
    assert not _decided(ledger, find(environment, 1), "another")

    rejected = judge_and_request(environment, 2)
    promotion.reject(environment, rejected.run, who="bob", why="it is harmful")
    assert _decided(ledger, find(environment, 2), rejected.verdict_key)


def test_old_verdict_keeps_its_digest() -> None:
    """Approvals and ledger entries store the digest, so unset new fields must not change it."""
    gate = GateResult(gate="floor", outcome=Outcome.PASS, reason="so")
    verdict = Verdict(key="v", candidate="c", champion=None, test_digest="t", outcome=Outcome.PASS, reason="so", gates=(gate,))
    stored = json.loads(verdict.model_dump_json())["gates"][0]

    assert "may_pass" not in stored
    assert GateResult(**stored) == gate
    assert gate.model_copy(update={"may_pass": True}).model_dump()["may_pass"]
