"""Only what was decided about is promoted, whatever a person or the gates say meanwhile. No model is loaded here."""

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
from components.mlflow_store.connection import experiment
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
promoting = importlib.import_module("components.mlflow_store.registry.promote")  # the package exports the function of that name
Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A registry with three versions without packages, each of its own run."""
    uri = new_store(tmp_path / "var")
    monkeypatch.setattr(promoting, "_check_package", lambda *_, **__: None)
    client = MlflowClient(uri)
    client.create_registered_model(NAME)
    for number in (1, 2, 3):
        run = client.create_run(experiment(client, uri, NAME))
        client.create_model_version(NAME, "file:///nowhere", run.info.run_id, tags={KEY: f"k{number}", COMPLETE: "true"})
    return Environment("local", uri, f"sqlite:///{tmp_path}/var/ledger.db")


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Let something happen while the package is verified, which takes seconds."""

    def during(happens: Callable[[], object]) -> None:
        monkeypatch.setattr(promoting, "_check_package", lambda *_, **__: happens())

    return during


def judge(place: Environment, number: int, outcome: Outcome = Outcome.PASS, champion: str | None = None, key: str = "") -> Verdict:
    version, key = promotion.find(place, NAME, number), key or f"v{number}"  # which is of the candidate, too
    said = Verdict(key=key, candidate=version.key, champion=champion, test_digest="t", outcome=outcome, reason=f"it is {outcome}", gates=())
    attach_verdict(place.mlflow, version.run_id, NAME, number, said)
    return said


def wait(place: Environment, number: int, outcome: Outcome = Outcome.INCONCLUSIVE, days: float = 7) -> Request:
    said, run = judge(place, number, outcome), promotion.find(place, NAME, number).run_id
    asked = Request(
        run,
        NAME,
        number,
        None,
        None,
        said.key,
        outcome.value,
        said.evidence,
        said.reason,
        NOW - timedelta(days=2),
        NOW + timedelta(days=days),
    )
    return Ledger(place.ledger).ask(asked)


def aliases(place: Environment) -> dict[str, int]:
    return {alias: version.number for version in versions(place.mlflow, NAME) for alias in version.aliases}


def version(place: Environment, number: int) -> Version:
    return promotion.find(place, NAME, number)


def test_who_is_rejected_while_another_one_approves_is_not_promoted(place: Environment, meanwhile: Meanwhile) -> None:
    request = wait(place, 1)
    meanwhile(lambda: promotion.reject(place, request.run, who="bob", why="it is harmful"))

    with pytest.raises(BadInput, match=r"was rejected by bob at .*: it is harmful"):
        promotion.approve(place, request.run, who="ada", why="why not")
    assert (Ledger(place.ledger).head(NAME), aliases(place)) == (None, {})
    assert version(place, 1).answer == "rejected by bob: it is harmful"


def test_who_is_judged_again_while_a_person_approves_is_not_promoted(place: Environment, meanwhile: Meanwhile) -> None:
    request = wait(place, 1)
    meanwhile(lambda: judge(place, 1, Outcome.FAIL, key="other"))

    with pytest.raises(BadInput, match=r"the decision was about evidence .*, and the verdict on models:/tickets/1 is now "):
        promotion.approve(place, request.run, who="ada", why="why not")
    assert Ledger(place.ledger).head(NAME) is None


def test_who_is_judged_again_while_it_is_promoted_stays_out(place: Environment, meanwhile: Meanwhile) -> None:
    judge(place, 1)
    meanwhile(lambda: judge(place, 1, Outcome.FAIL, key="other"))

    with pytest.raises(BadInput, match="look again"):
        promotion.promote(place, NAME, 1, who="ada")
    assert Ledger(place.ledger).head(NAME) is None


def test_an_approval_answers_its_question_and_the_entry_says_what_was_approved(place: Environment) -> None:
    request = wait(place, 1)
    entry = promotion.approve(place, request.run, who="ada", why="  harmless  ").entry

    assert (entry.evidence, entry.outcome, entry.verdict_key, entry.why) == (request.evidence, "INCONCLUSIVE", "v1", "harmless")
    assert Ledger(place.ledger).request(request.run).decision == "approved"


def test_a_persons_no_holds_until_there_is_new_evidence_or_force(place: Environment) -> None:
    request = wait(place, 1, Outcome.PASS)
    promotion.reject(place, request.run, who="bob", why="it is harmful")

    with pytest.raises(BadInput, match="bob rejected version 1 of tickets on this evidence: it is harmful"):
        promotion.promote(place, NAME, 1, who="ada")
    assert promotion.promote(place, NAME, 1, who="ada", why="Bob was wrong", force=True).entry.forced


def test_the_champion_that_a_verdict_is_about_is_read_from_the_verdict_not_from_a_tag(place: Environment) -> None:
    judge(place, 3, champion="1")
    for number in (1, 2):
        promotion.promote(place, NAME, number, who="ada", why="so", force=True)
    MlflowClient(place.mlflow).set_model_version_tag(NAME, "3", JUDGED_AGAINST, "2")

    with pytest.raises(StaleVerdict, match="verdict is about version 1, champion is now 2: judge again"):
        promotion.promote(place, NAME, 3, who="ada")


def test_a_copy_is_not_promoted_by_a_number_of_another_registry(place: Environment) -> None:
    judge(place, 3, champion="1")
    client = MlflowClient(place.mlflow)
    client.set_model_version_tag(NAME, "3", ORIGIN, "staging")
    client.set_model_version_tag(NAME, "3", JUDGED_AGAINST, "2")

    with pytest.raises(BadInput, match=r"was judged in staging, against version 1 there: `retune promote --from staging`"):
        promotion.promote(place, NAME, 3, who="ada")


def test_a_verdict_about_nobody_does_not_replace_a_champion_that_was_deleted(place: Environment) -> None:
    judge(place, 3)
    promotion.promote(place, NAME, 2, who="ada", why="so", force=True)
    MlflowClient(place.mlflow).delete_model_version(NAME, "2")

    with pytest.raises(StaleVerdict, match="verdict is about no champion, champion is now 2: judge again"):
        promotion.promote(place, NAME, 3, who="ada")


def test_half_of_a_verdict_is_none_and_is_made_whole_by_judging_again(place: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = version(place, 1)
    assert (found.evidence, found.verdict_key, found.judged_against) == (first.evidence, "first", 1)


def test_who_is_champion_is_not_told_that_its_time_has_passed(place: Environment) -> None:
    wait(place, 1, Outcome.PASS, days=-1)
    promotion.promote(place, NAME, 1, who="ada")

    assert promotion.reconcile(place, NAME) == {NAME: []}
    assert (version(place, 1).answer, aliases(place)) == (None, {CHAMPION: 1})
    assert Ledger(place.ledger).requests(NAME)[0].decision == "superseded"


def test_a_question_that_expired_takes_the_alias_and_asking_again_gives_it_back(place: Environment) -> None:
    wait(place, 1, days=-1)
    assert [said.partition(" at ")[0] for said in promotion.sync_registry(place, NAME)] == ["version 1 was expired"]
    assert aliases(place) == {}

    wait(place, 1)
    assert promotion.sync_registry(place, NAME) == ["version 1 waits for an answer again"]
    assert (version(place, 1).answer, aliases(place)) == (None, {CHALLENGER: 1})


def test_a_name_that_is_mistyped_is_told(place: Environment) -> None:
    promotion.promote(place, NAME, 1, who="ada", why="so", force=True)
    for ask in (lambda: promotion.reconcile(place, "tickts"), lambda: promotion.rollback(place, "tickts", None, who="ada", why="so")):
        with pytest.raises(NotFound, match="no model 'tickts' is registered in local; did you mean 'tickets'"):
            ask()


@pytest.mark.parametrize("blank", ["", "   ", "\n"])
def test_a_blank_reason_is_none(place: Environment, blank: str) -> None:
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
    """The settings of a run beside the registry: who passes is promoted without asking."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    write_params(tmp_path, change(params | {"name": NAME}, TINY | {"promotion": {"approval": "automatic"}}))
    return Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")


def settle(workspace: Workspace, found: Version, said: Verdict) -> actions.Result:
    return actions.apply_verdict(workspace, RecordedRun(found.run_id, found.key, created=False), found, JudgeResult(said, fresh=True))


def test_a_run_does_not_promote_what_a_person_rejected(place: Environment, workspace: Workspace) -> None:
    promotion.reject(place, wait(place, 1, Outcome.PASS).run, who="bob", why="it is harmful")
    result = settle(workspace, version(place, 1), judge(place, 1))

    assert (result.promoted, result.champion, result.waits_until) == (False, None, None)
    assert settle(workspace, version(place, 2), judge(place, 2)).promoted


def test_a_run_leaves_it_to_a_person_to_bring_back_who_was_rolled_back_from(place: Environment, workspace: Workspace) -> None:
    """Two steps back: judged against another champion than before, version 3 has another verdict, and still was rolled back from."""
    for number, champion in ((1, None), (2, "1"), (3, "2")):
        assert settle(workspace, version(place, number), judge(place, number, champion=champion, key=f"v{number}")).promoted
    promotion.rollback(place, NAME, 1, who="ada", why="wrong on refunds")

    for number in (3, 2):
        result = settle(workspace, version(place, number), judge(place, number, champion="1", key=f"anew{number}"))
        assert (result.promoted, result.champion, result.waits_until is not None) == (False, 1, True)
    assert promotion.approve(place, result.run, who="ada", why="it was the data").entry.version == 2


def test_a_run_takes_the_alias_from_a_question_that_expired_and_gives_it_back_when_it_asks_again(
    place: Environment, workspace: Workspace
) -> None:
    wait(place, 1, days=-1)
    actions.reconcile(workspace, place.mlflow, NAME)
    assert (version(place, 1).aliases, (version(place, 1).answer or "").partition(" at ")[0]) == ((), "expired")

    result = settle(workspace, version(place, 1), judge(place, 1, Outcome.INCONCLUSIVE))
    assert result.waits_until is not None
    assert (version(place, 1).aliases, version(place, 1).answer) == ((CHALLENGER,), None)


def test_a_run_that_registers_the_deleted_champion_again_makes_it_champion_again(place: Environment, workspace: Workspace) -> None:
    promotion.promote(place, NAME, 3, who="ada", why="so", force=True)
    client = MlflowClient(place.mlflow)
    client.delete_model_version(NAME, "3")
    client.create_model_version(NAME, "file:///nowhere", version(place, 1).run_id, tags={KEY: "k3", COMPLETE: "true"})

    result = settle(workspace, version(place, 4), judge(place, 4))
    assert (result.champion, aliases(place)[CHAMPION]) == (4, 4)


@pytest.mark.parametrize("address", ["http://[::1", "http://host:port", "no address"])
def test_an_address_of_prefect_that_is_none_does_not_undo_what_it_was_to_be_told(
    place: Environment, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "address", lambda: address)

    assert promotion.promote(place, NAME, 1, who="ada", why="so", force=True).changed
    assert "could not send event" in caplog.text


def test_a_registration_that_takes_the_alias_meanwhile_keeps_it(place: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(place, 1)
    client, point = MlflowClient(place.mlflow), MlflowClient.set_registered_model_alias

    def registers(self: MlflowClient, name: str, alias: str, number: str) -> None:
        point(self, name, alias, number)
        point(client, name, CHALLENGER, "2")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", registers)
    promotion.promote(place, NAME, 1, who="ada")

    assert aliases(place) == {CHAMPION: 1, CHALLENGER: 2}


def test_what_was_undecided_for_a_passing_reason_is_judged_anew_until_a_person_settles_it(place: Environment) -> None:
    ledger = Ledger(place.ledger)
    request = wait(place, 1)
    assert not _decided(ledger, version(place, 1), "v1")

    promotion.approve(place, request.run, who="ada", why="the machine was slow")
    assert _decided(ledger, version(place, 1), "v1")
    assert not _decided(ledger, version(place, 1), "another")

    promotion.reject(place, wait(place, 2).run, who="bob", why="it is harmful")
    assert _decided(ledger, version(place, 2), "v2")


def test_a_verdict_of_an_earlier_layout_keeps_its_digest() -> None:
    """Approvals and ledger entries name it: a field that says nothing must not change it."""
    gate = GateResult(gate="floor", outcome=Outcome.PASS, reason="so")
    said = Verdict(key="v", candidate="c", champion=None, test_digest="t", outcome=Outcome.PASS, reason="so", gates=(gate,))
    known = json.loads(said.model_dump_json())["gates"][0]

    assert "may_pass" not in known
    assert GateResult(**known) == gate
    assert gate.model_copy(update={"may_pass": True}).model_dump()["may_pass"]
