"""A registration killed at any write is repaired by the next one, which keeps the number and leaves no package behind."""

from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.core.process import owner
from components.ledger import Ledger
from components.mlflow_store.connection import ensure_experiment
from components.mlflow_store.registry import CHALLENGER, Environment, Version, attach_verdict, register, reopen, versions
from components.mlflow_store.registry.versions import ANSWER, COMPLETE, KEY, OWNER
from components.mlflow_store.tracking import run_key
from flows.production.promotion import sync_requests
from tests.support.finished import LINEAGE, make_finished, new_store
from tests.support.ledger_entries import approval_request, change

# Every write of a registration, in order.
WRITES = [
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "create_registered_model",
    "create_model_version",
    "set_logged_model_tags",
    "set_tag",
    "set_registered_model_alias",
    "set_model_version_tag",
]
GONE = '{"host": "%s", "pid": 999999999, "started": 1.0}'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    return make_finished(tmp_path_factory.mktemp("finished"), tiny_base, tickets)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_store(tmp_path / "var")


def registered(workspace: Path, uri: str, run_id: str) -> Version:
    return register(workspace, uri, run_id=run_id, key=run_key(workspace), lineage=LINEAGE)


def new_run(uri: str) -> str:
    client = MlflowClient(uri)
    return str(client.create_run(ensure_experiment(client, uri, "tickets")).info.run_id)


def kill_after(patched: pytest.MonkeyPatch, write: str) -> None:
    """Simulate a kill after the first call of `write`."""
    original = getattr(MlflowClient, write)

    def killed(*arguments: object, **more: object) -> None:
        original(*arguments, **more)
        raise KeyboardInterrupt

    patched.setattr(MlflowClient, write, killed)


def packages(uri: str) -> list[Path]:
    return sorted((Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts/tickets/models").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
def test_killed_registration_is_repaired(uri: str, finished: Path, write: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = new_run(uri)
    with monkeypatch.context() as patched:
        kill_after(patched, write)
        with pytest.raises(KeyboardInterrupt):
            registered(finished, uri, run_id)

    version = registered(finished, uri, run_id)
    assert (version.number, version.complete, version.aliases) == (1, True, (CHALLENGER,))
    assert [version.number for version in versions(uri, "tickets")] == [1]
    assert MlflowClient(uri).get_run(run_id).data.tags["retune.version"] == "1"
    assert len(packages(uri)) == 1


def test_complete_tag_is_written_last(uri: str, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in WRITES:
        monkeypatch.setattr(MlflowClient, name, recording(name, calls))
    registered(finished, uri, new_run(uri))
    assert calls == WRITES


def recording(name: str, calls: list[str]) -> object:
    original = getattr(MlflowClient, name)

    def call(*arguments: object, **more: object) -> object:
        calls.append(name)
        return original(*arguments, **more)

    return call


@pytest.mark.slow
def test_run_of_early_release_gets_its_version_tag(uri: str, finished: Path) -> None:
    run_id = new_run(uri)
    registered(finished, uri, run_id)
    MlflowClient(uri).delete_tag(run_id, "retune.version")
    registered(finished, uri, run_id)
    assert MlflowClient(uri).get_run(run_id).data.tags["retune.version"] == "1"


@pytest.mark.parametrize(
    ("sender", "remains"),
    [("gone", False), ("other host", True), ("alive", True), ("none", True)],
)
def test_package_is_deleted_only_if_its_sender_is_gone(uri: str, finished: Path, sender: str, remains: bool) -> None:
    import socket

    client, run_id = MlflowClient(uri), new_run(uri)
    tags = {"gone": GONE % socket.gethostname(), "other host": GONE % "elsewhere", "alive": owner(1), "none": ""}
    owner_tag = {OWNER: tags[sender]} if sender != "none" else {}
    sent = client.create_logged_model(ensure_experiment(client, uri, "tickets"), tags={KEY: "of another candidate", **owner_tag})
    folder = Path(sent.artifact_location.removeprefix("file://"))
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text("half")

    registered(finished, uri, run_id)
    assert folder.exists() == remains
    assert len(packages(uri)) == 1 + remains


UNDECIDED = Verdict(
    key="v",
    candidate="c" * 64,
    champion="1",
    test_digest="e" * 64,
    outcome=Outcome.INCONCLUSIVE,
    reason="too few rows",
    gates=(GateResult(gate="champion", outcome=Outcome.INCONCLUSIVE, reason="so"),),
)


def waiting(uri: str) -> tuple[Environment, Version, Ledger]:
    """Return a version whose verdict waits for a person, with champion 1."""
    client, run_id = MlflowClient(uri), new_run(uri)
    client.create_registered_model("tickets")
    for number in (1, 2):
        client.create_model_version("tickets", f"file:///nowhere/{number}", run_id, tags={KEY: f"k{number}", COMPLETE: "true"})
    environment = Environment("local", uri, uri.replace("mlflow.db", "ledger.db"))
    ledger = Ledger(environment.ledger)
    ledger.append("tickets", expected=None, **change(1))
    version = attach_verdict(uri, run_id, "tickets", 2, UNDECIDED)
    ledger.request_approval(approval_request("a1", 2, evidence=version.evidence))
    return environment, version, ledger


def test_approval_killed_before_its_tag_is_completed(uri: str) -> None:
    environment, version, ledger = waiting(uri)
    ledger.append("tickets", expected=1, request=ledger.open_request("a1"), **change(2, evidence=version.evidence))
    MlflowClient(uri).set_registered_model_alias("tickets", "champion", "2")

    assert sync_requests(environment, "tickets") == ["version 2 was approved by ada@host: the verdict is PASS"]
    assert versions(uri, "tickets")[1].answer == "approved by ada@host: the verdict is PASS"
    assert sync_requests(environment, "tickets") == []


def test_killed_reopening_is_repaired(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment, version, _ = waiting(uri)
    client = MlflowClient(uri)
    client.set_model_version_tag("tickets", "2", ANSWER, "expired")
    client.delete_registered_model_alias("tickets", CHALLENGER)
    for write in ("set_registered_model_alias", "delete_model_version_tag"):
        with monkeypatch.context() as patched:
            kill_after(patched, write)
            with pytest.raises(KeyboardInterrupt):
                reopen(uri, version)
        sync_requests(environment, "tickets")
        assert (versions(uri, "tickets")[1].aliases, versions(uri, "tickets")[1].answer) == ((CHALLENGER,), None)
        client.set_model_version_tag("tickets", "2", ANSWER, "expired")
        client.delete_registered_model_alias("tickets", CHALLENGER)
