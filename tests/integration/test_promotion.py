"""Manual promotion: only with evidence or by force, with the person recorded in the ledger."""

import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from components.artifacts.verdict import Outcome
from components.core.errors import BadInput, BadParams, NotFound
from components.ledger import Ledger, StaleVerdict
from components.mlflow_store.registry import CHALLENGER, CHAMPION, PREVIOUS, Environment
from components.mlflow_store.registry.versions import VERDICT
from flows.cli import app
from flows.production import promotion
from tests.support.finished import make_finished
from tests.support.project import ROOT, make_project, retune
from tests.support.promotion import aliases, find, judge, judge_and_request
from tests.support.registered import make_registry

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forks")]

ADA = {"who": "ada@host", "why": "the errors are harmless"}


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> list[Path]:
    """Two evaluated candidates on the same data."""
    return [make_finished(tmp_path_factory.mktemp("candidate"), tiny_base, tickets, seed=seed) for seed in range(2)]


@pytest.fixture
def environment(tmp_path: Path, candidates: list[Path]) -> Environment:
    """An environment with two versions without a verdict, and an empty ledger."""
    return make_registry(tmp_path / "var", candidates)


def test_only_passed_versions_are_promoted_without_force(environment: Environment) -> None:
    with pytest.raises(BadInput, match="tickets version 1 is not judged: run `retune run`; --force --why"):
        promotion.promote(environment, "tickets", 1, who="ada@host")
    judge(environment, 1, Outcome.FAIL)
    with pytest.raises(BadInput, match="the verdict on tickets version 1 is FAIL: `retune why tickets 1`"):
        promotion.promote(environment, "tickets", 1, who="ada@host")
    with pytest.raises(BadInput, match="--force needs --why TEXT"):
        promotion.promote(environment, "tickets", 1, who="ada@host", force=True)
    MlflowClient(environment.mlflow).set_model_version_tag("tickets", "1", VERDICT, "PASS")  # as anyone can in MLflow's UI
    with pytest.raises(BadInput, match="is tagged PASS, but its evidence cannot be read"):
        promotion.promote(environment, "tickets", 1, who="ada@host")
    assert Ledger(environment.ledger).head("tickets") is None


def test_unknown_model_or_version_gets_a_suggestion(environment: Environment) -> None:
    with pytest.raises(NotFound, match="no model 'tickts' is registered in local; did you mean 'tickets'"):
        promotion.promote(environment, "tickts", 1, who="ada@host")
    with pytest.raises(NotFound, match="tickets has no version 9; there are: 1, 2"):
        promotion.promote(environment, "tickets", 9, who="ada@host")


def test_verdict_is_bound_to_its_champion(environment: Environment) -> None:
    verdict = judge(environment, 1)
    done = promotion.promote(environment, "tickets", 1, who="ada@host")
    assert (done.entry.why, done.entry.outcome, done.entry.evidence, done.entry.forced) == ("it is PASS", "PASS", verdict.evidence, False)

    judge(environment, 2)
    with pytest.raises(StaleVerdict, match="verdict is about no champion, champion is now 1: judge again"):
        promotion.promote(environment, "tickets", 2, who="ada@host")
    assert aliases(environment.mlflow) == {CHAMPION: 1, CHALLENGER: 2}


def test_approval_promotes_and_is_recorded(environment: Environment) -> None:
    request = judge_and_request(environment, 1)
    done = promotion.approve(environment, request.run[:6], **ADA)

    assert (done.changed, done.entry.outcome, done.entry.evidence, done.entry.who) == (True, "INCONCLUSIVE", request.evidence, "ada@host")
    assert aliases(environment.mlflow) == {CHAMPION: 1}
    assert promotion.find(environment, "tickets", 1).answer == "approved by ada@host: the errors are harmless"
    assert Ledger(environment.ledger).requests()[-1].decision == "approved"
    with pytest.raises(BadInput, match="was approved by ada@host"):
        promotion.approve(environment, request.run, **ADA)


def test_approval_is_bound_to_the_evidence(environment: Environment) -> None:
    request = judge_and_request(environment, 1)
    judge(environment, 1, Outcome.FAIL)

    with pytest.raises(BadInput, match=r"the request is about evidence .*, that of tickets version 1 is now .*: judge again"):
        promotion.approve(environment, request.run, **ADA)
    assert aliases(environment.mlflow) == {}


def test_approval_is_bound_to_the_champion(environment: Environment) -> None:
    request = judge_and_request(environment, 1, champion=2)

    with pytest.raises(StaleVerdict, match="verdict is about version 2, champion is now none: judge again"):
        promotion.approve(environment, request.run, **ADA)
    assert [waiting.run for waiting in Ledger(environment.ledger).open_requests()] == [request.run]


def test_rejected_version_loses_the_challenger_alias(environment: Environment) -> None:
    request = judge_and_request(environment, 2)
    assert aliases(environment.mlflow) == {CHALLENGER: 2}

    assert promotion.reject(environment, request.run, who="ada@host", why="too slow").decision == "rejected"

    assert aliases(environment.mlflow) == {}
    assert promotion.find(environment, "tickets", 2).answer == "rejected by ada@host: too slow"
    with pytest.raises(BadInput, match=r"was rejected by ada@host at .*: too slow"):
        promotion.approve(environment, request.run, **ADA)


def test_expired_request_cannot_be_approved(environment: Environment) -> None:
    request = judge_and_request(environment, 2, days=-1)

    with pytest.raises(BadInput, match=r"expired at .*: run again for a new verdict"):
        promotion.approve(environment, request.run, **ADA)
    assert promotion.sync_requests(environment, "tickets")[0].startswith("version 2 was expired at ")
    assert aliases(environment.mlflow) == {}
    assert promotion.sync_requests(environment, "tickets") == []

    judge_and_request(environment, 2)  # the next run asks again
    assert promotion.reconcile(environment, "tickets") == {"tickets": ["version 2 waits for an answer again"]}
    assert (promotion.find(environment, "tickets", 2).answer, aliases(environment.mlflow)) == (None, {CHALLENGER: 2})
    assert [waiting.version for waiting in Ledger(environment.ledger).open_requests()] == [2]


def test_new_verdict_removes_the_answer(environment: Environment) -> None:
    promotion.reject(environment, judge_and_request(environment, 2).run, who="ada@host", why="too slow")
    judge(environment, 2)
    version = find(environment, 2)

    assert (version.answer, version.aliases) == (None, (CHALLENGER,))
    assert promotion.reconcile(environment) == {"tickets": []}


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
def test_commands_promote_roll_back_and_reconcile(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame, candidates: list[Path]) -> None:
    folder = make_project(tmp_path / "project", tiny_base, tickets)
    environment = make_registry(folder / "var", candidates)
    judge(environment, 1)
    judge(environment, 2, Outcome.FAIL)
    promoted = json.loads(retune(folder, "promote", "tickets", "1", "--json").stdout)
    assert promoted == {"model": "tickets", "champion": 1, "previous": None, "changed": True}

    rejected = retune(folder, "promote", "tickets", "2")
    assert (rejected.returncode, "is FAIL" in rejected.stderr) == (2, True)
    forced = retune(folder, "promote", "tickets", "2", "--force", "--why", "the floor was set too high", RETUNE_USER="ada")
    assert forced.stdout.strip().endswith("tickets: version 2 is now the champion; previous: 1"), forced.stderr

    back = retune(folder, "rollback", "tickets", "--why", "wrong on invoices", RETUNE_USER="ada")
    assert back.stdout.strip().endswith("tickets: version 1 is now the champion; previous: 2"), back.stderr
    assert aliases(environment.mlflow) == {CHAMPION: 1, PREVIOUS: 2}
    assert [(entry.action, entry.version, entry.forced, entry.why) for entry in Ledger(environment.ledger).entries("tickets")] == [
        ("promoted", 1, False, "it is PASS"),
        ("promoted", 2, True, "the floor was set too high"),
        ("rolled back", 1, False, "wrong on invoices"),
    ]
    MlflowClient(environment.mlflow).set_registered_model_alias("tickets", CHAMPION, "2")
    repaired = retune(folder, "reconcile")
    assert "tickets: moved the alias champion from version 2 to version 1, as in the ledger" in repaired.stdout
    assert Ledger(environment.ledger).head("tickets").who == "ada"


DOCUMENTED = [
    shlex.split(line, comments=True)
    for page in ("promotion.md", "react-to-promotions.md")
    for block in re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("retune ")
]


@pytest.mark.parametrize("command", DOCUMENTED, ids=" ".join)
def test_documented_command_is_valid(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # without a project, the command stops after it has parsed its options
    result = CliRunner().invoke(app, command[1:])

    assert len(DOCUMENTED) >= 10
    assert isinstance(result.exception, NotFound), result.output
    assert "no Retune project" in str(result.exception)
