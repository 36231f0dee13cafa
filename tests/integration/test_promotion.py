"""Promotion by a person: only with evidence, or forced, with the person recorded in the ledger."""

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from components.artifacts.verdict import Outcome, Verdict
from components.core.errors import BadInput, BadParams, NotFound
from components.ledger import Ledger, Request, StaleVerdict
from components.mlflow_store.connection import ensure_experiment
from components.mlflow_store.registry import CHALLENGER, CHAMPION, PREVIOUS, Environment, Version, attach_verdict, register, versions
from components.mlflow_store.registry.versions import VERDICT
from components.mlflow_store.tracking import run_key
from flows.cli import app
from flows.production import promotion
from tests.support.finished import LINEAGE, make_finished, new_store
from tests.support.project import ROOT, make_project, retune

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC)
ADA = {"who": "ada@host", "why": "the errors are harmless"}


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> list[Path]:
    """Two evaluated candidates on the same data."""
    return [make_finished(tmp_path_factory.mktemp("candidate"), tiny_base, tickets, seed=seed) for seed in range(2)]


@pytest.fixture
def place(tmp_path: Path, candidates: list[Path]) -> Environment:
    """A registry with two versions that nobody judged, and an empty ledger."""
    return make_registry(tmp_path / "var", candidates)


def make_registry(var: Path, candidates: list[Path]) -> Environment:
    uri = new_store(var)
    client = MlflowClient(uri)
    for workspace in candidates:
        run = client.create_run(ensure_experiment(client, uri, "tickets"))
        register(workspace, uri, run_id=run.info.run_id, key=run_key(workspace), lineage=LINEAGE)
    return Environment("local", uri, f"sqlite:///{var}/ledger.db")


def judge(place: Environment, number: int, outcome: Outcome = Outcome.PASS, champion: int | None = None) -> tuple[Version, Verdict]:
    """Attach a verdict, as a run does."""
    version = promotion.find(place, "tickets", number)
    verdict = Verdict(
        key=f"verdict-{number}-{outcome}",
        candidate=version.key,
        champion=str(champion) if champion else None,
        test_digest="e" * 64,
        outcome=outcome,
        reason="too few rows" if outcome is Outcome.INCONCLUSIVE else f"it is {outcome}",
        gates=(),
    )
    return attach_verdict(place.mlflow, version.run_id, "tickets", number, verdict), verdict


def wait(place: Environment, number: int, champion: int | None = None, days: int = 7) -> Request:
    """Let an undecided verdict wait for a person, as a run does."""
    version, verdict = judge(place, number, Outcome.INCONCLUSIVE, champion)
    request = Request(
        run=version.run_id,
        model="tickets",
        version=number,
        expected=champion,
        anchor=champion,
        verdict_key=verdict.key,
        outcome=verdict.outcome.value,
        evidence=verdict.evidence,
        reason=verdict.reason,
        asked_at=NOW - timedelta(days=2),
        expires_at=NOW + timedelta(days=days),
    )
    return Ledger(place.ledger).request_approval(request)


def aliases(place: Environment) -> dict[str, int]:
    return {alias: version.number for version in versions(place.mlflow, "tickets") for alias in version.aliases}


def test_only_passed_versions_are_promoted_without_force(place: Environment) -> None:
    with pytest.raises(BadInput, match="tickets version 1 is not judged: run `retune run`; --force --why"):
        promotion.promote(place, "tickets", 1, who="ada@host")
    judge(place, 1, Outcome.FAIL)
    with pytest.raises(BadInput, match="the verdict on tickets version 1 is FAIL: `retune why tickets 1`"):
        promotion.promote(place, "tickets", 1, who="ada@host")
    with pytest.raises(BadInput, match="--force needs --why TEXT"):
        promotion.promote(place, "tickets", 1, who="ada@host", force=True)
    MlflowClient(place.mlflow).set_model_version_tag("tickets", "1", VERDICT, "PASS")  # as anyone can in MLflow's UI
    with pytest.raises(BadInput, match="is tagged PASS, but its evidence cannot be read"):
        promotion.promote(place, "tickets", 1, who="ada@host")
    assert Ledger(place.ledger).head("tickets") is None


def test_what_is_not_there_is_told_with_what_is(place: Environment) -> None:
    with pytest.raises(NotFound, match="no model 'tickts' is registered in local; did you mean 'tickets'"):
        promotion.promote(place, "tickts", 1, who="ada@host")
    with pytest.raises(NotFound, match="tickets has no version 9; there are: 1, 2"):
        promotion.promote(place, "tickets", 9, who="ada@host")


def test_verdict_is_bound_to_its_champion(place: Environment) -> None:
    _, verdict = judge(place, 1)
    done = promotion.promote(place, "tickets", 1, who="ada@host")
    assert (done.entry.why, done.entry.outcome, done.entry.evidence, done.entry.forced) == ("it is PASS", "PASS", verdict.evidence, False)

    judge(place, 2)
    with pytest.raises(StaleVerdict, match="verdict is about no champion, champion is now 1: judge again"):
        promotion.promote(place, "tickets", 2, who="ada@host")
    assert aliases(place) == {CHAMPION: 1, CHALLENGER: 2}


def test_approval_promotes_and_is_recorded(place: Environment) -> None:
    request = wait(place, 1)
    done = promotion.approve(place, request.run[:6], **ADA)

    assert (done.changed, done.entry.outcome, done.entry.evidence, done.entry.who) == (True, "INCONCLUSIVE", request.evidence, "ada@host")
    assert aliases(place) == {CHAMPION: 1}
    assert promotion.find(place, "tickets", 1).answer == "approved by ada@host: the errors are harmless"
    assert Ledger(place.ledger).request(request.run).decision == "approved"
    with pytest.raises(BadInput, match="was approved by ada@host"):
        promotion.approve(place, request.run, **ADA)


def test_an_approval_is_of_the_evidence_that_was_asked_about(place: Environment) -> None:
    request = wait(place, 1)
    judge(place, 1, Outcome.FAIL)

    with pytest.raises(BadInput, match=r"the request is about evidence .*, that of tickets version 1 is now .*: judge again"):
        promotion.approve(place, request.run, **ADA)
    assert aliases(place) == {}


def test_approval_is_bound_to_the_champion(place: Environment) -> None:
    request = wait(place, 1, champion=2)

    with pytest.raises(StaleVerdict, match="verdict is about version 2, champion is now none: judge again"):
        promotion.approve(place, request.run, **ADA)
    assert [waiting.run for waiting in Ledger(place.ledger).open_requests()] == [request.run]


def test_a_rejected_version_is_no_challenger(place: Environment) -> None:
    request = wait(place, 2)
    assert aliases(place) == {CHALLENGER: 2}

    assert promotion.reject(place, request.run, who="ada@host", why="too slow").decision == "rejected"

    assert aliases(place) == {}
    assert promotion.find(place, "tickets", 2).answer == "rejected by ada@host: too slow"
    with pytest.raises(BadInput, match=r"was rejected by ada@host at .*: too slow"):
        promotion.approve(place, request.run, **ADA)


def test_a_question_that_nobody_answered_in_time_is_void(place: Environment) -> None:
    request = wait(place, 2, days=-1)

    with pytest.raises(BadInput, match=r"expired at .*: run again for a new verdict"):
        promotion.approve(place, request.run, **ADA)
    assert promotion.sync_requests(place, "tickets")[0].startswith("version 2 was expired at ")
    assert aliases(place) == {}
    assert promotion.sync_requests(place, "tickets") == []

    wait(place, 2)  # the next run asks again
    assert promotion.reconcile(place, "tickets") == {"tickets": ["version 2 waits for an answer again"]}
    assert (promotion.find(place, "tickets", 2).answer, aliases(place)) == (None, {CHALLENGER: 2})
    assert [waiting.version for waiting in Ledger(place.ledger).open_requests()] == [2]


def test_a_new_verdict_makes_an_answer_void(place: Environment) -> None:
    promotion.reject(place, wait(place, 2).run, who="ada@host", why="too slow")
    version, _ = judge(place, 2)

    assert (version.answer, version.aliases) == (None, (CHALLENGER,))
    assert promotion.reconcile(place) == {"tickets": []}


def test_environments_are_named_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("components", "flows"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".env").write_text(
        'RETUNE_ENVIRONMENTS={"production": {"mlflow": "http://m", "ledger": "sqlite:////l"}}\nRETUNE_USER=ada\n'
    )

    assert promotion.environment("production", tmp_path) == Environment("production", "http://m", "sqlite:////l")
    assert promotion.person(tmp_path) == "ada"
    with pytest.raises(BadParams, match="has no environment 'prodution'; did you mean 'production'"):
        promotion.environment("prodution", tmp_path)
    for value, message in (("{", "RETUNE_ENVIRONMENTS is JSON"), ('{"p": {"mlflow": "x"}}', "ENVIRONMENTS.P.LEDGER: Field required")):
        monkeypatch.setenv("RETUNE_ENVIRONMENTS", value)
        with pytest.raises(BadParams, match=message):
            promotion.environment("p", tmp_path)


@pytest.mark.exhaustive
def test_a_person_promotes_rolls_back_and_repairs_by_commands(
    tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame, candidates: list[Path]
) -> None:
    folder = make_project(tmp_path / "project", tiny_base, tickets)
    place = make_registry(folder / "var", candidates)
    judge(place, 1)
    judge(place, 2, Outcome.FAIL)
    said = json.loads(retune(folder, "promote", "tickets", "1", "--json").stdout)
    assert said == {"model": "tickets", "champion": 1, "previous": None, "changed": True}

    refused = retune(folder, "promote", "tickets", "2")
    assert (refused.returncode, "is FAIL" in refused.stderr) == (2, True)
    forced = retune(folder, "promote", "tickets", "2", "--force", "--why", "the floor was set too high", RETUNE_USER="ada")
    assert forced.stdout.strip().endswith("tickets: version 2 is now the champion; previous: 1"), forced.stderr

    back = retune(folder, "rollback", "tickets", "--why", "wrong on invoices", RETUNE_USER="ada")
    assert back.stdout.strip().endswith("tickets: version 1 is now the champion; previous: 2"), back.stderr
    assert aliases(place) == {CHAMPION: 1, PREVIOUS: 2}
    assert [(entry.action, entry.version, entry.forced, entry.why) for entry in Ledger(place.ledger).entries("tickets")] == [
        ("promoted", 1, False, "it is PASS"),
        ("promoted", 2, True, "the floor was set too high"),
        ("rolled back", 1, False, "wrong on invoices"),
    ]
    MlflowClient(place.mlflow).set_registered_model_alias("tickets", CHAMPION, "2")
    repaired = retune(folder, "reconcile")
    assert "tickets: moved the alias champion from version 2 to version 1, as in the ledger" in repaired.stdout
    assert Ledger(place.ledger).head("tickets").who == "ada"


DOCUMENTED = [
    shlex.split(line, comments=True)
    for page in ("promotion.md", "react-to-promotions.md")
    for block in re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("retune ")
]


@pytest.mark.parametrize("command", DOCUMENTED, ids=" ".join)
def test_a_documented_command_is_understood(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no project, so that it goes no further than its options
    ended = CliRunner().invoke(app, command[1:])

    assert len(DOCUMENTED) >= 10
    assert isinstance(ended.exception, NotFound), ended.output
    assert "no Retune project" in str(ended.exception)
