"""A registration that is killed at any of its writes: the next one repairs it, loses no number and leaves no package behind."""

from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.core.process import owner
from components.ledger import Ledger
from components.mlflow_store.connection import experiment
from components.mlflow_store.registry import CHALLENGER, Environment, Version, attach_verdict, register, reopen, versions
from components.mlflow_store.registry.versions import ANSWER, COMPLETE, KEY, OWNER
from components.mlflow_store.tracking import run_key
from flows.production.promotion import settle
from tests.support.finished import LINEAGE, make_finished, new_store
from tests.unit.ledger.test_ledger import change, question

# Every write of a registration, in its order.
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
    return str(client.create_run(experiment(client, uri, "tickets")).info.run_id)


def kill_after(patched: pytest.MonkeyPatch, write: str) -> None:
    """End the process, as it were, once `write` is done for the first time."""
    whole = getattr(MlflowClient, write)

    def killed(*arguments: object, **more: object) -> None:
        whole(*arguments, **more)
        raise KeyboardInterrupt

    patched.setattr(MlflowClient, write, killed)


def packages(uri: str) -> list[Path]:
    return sorted((Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts/tickets/models").glob("*"))


@pytest.mark.parametrize("write", WRITES)
def test_a_killed_registration_is_repaired(uri: str, finished: Path, write: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = new_run(uri)
    with monkeypatch.context() as patched:
        kill_after(patched, write)
        with pytest.raises(KeyboardInterrupt):
            registered(finished, uri, run_id)

    version = registered(finished, uri, run_id)
    assert (version.number, version.complete, version.aliases) == (1, True, (CHALLENGER,))
    assert [one.number for one in versions(uri, "tickets")] == [1]
    assert MlflowClient(uri).get_run(run_id).data.tags["retune.version"] == "1"
    assert len(packages(uri)) == 1


def test_the_mark_of_a_version_is_written_last(uri: str, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in WRITES:
        monkeypatch.setattr(MlflowClient, name, noted(name, calls))
    registered(finished, uri, new_run(uri))
    assert calls == WRITES


def noted(name: str, calls: list[str]) -> object:
    whole = getattr(MlflowClient, name)

    def call(*arguments: object, **more: object) -> object:
        calls.append(name)
        return whole(*arguments, **more)

    return call


def test_a_version_of_an_earlier_release_gets_its_runs_tag(uri: str, finished: Path) -> None:
    run_id = new_run(uri)
    registered(finished, uri, run_id)
    MlflowClient(uri).delete_tag(run_id, "retune.version")
    registered(finished, uri, run_id)
    assert MlflowClient(uri).get_run(run_id).data.tags["retune.version"] == "1"


@pytest.mark.parametrize(
    ("sender", "left"),
    [("gone", False), ("other host", True), ("alive", True), ("none", True)],
)
def test_only_a_package_whose_sender_is_gone_is_swept(uri: str, finished: Path, sender: str, left: bool) -> None:
    import socket

    client, run_id = MlflowClient(uri), new_run(uri)
    tags = {"gone": GONE % socket.gethostname(), "other host": GONE % "elsewhere", "alive": owner(1), "none": ""}
    mine = {OWNER: tags[sender]} if sender != "none" else {}
    sent = client.create_logged_model(experiment(client, uri, "tickets"), tags={KEY: "of another candidate", **mine})
    folder = Path(sent.artifact_location.removeprefix("file://"))
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text("half")

    registered(finished, uri, run_id)
    assert folder.exists() == left
    assert len(packages(uri)) == 1 + left


SAID = Verdict(
    key="v",
    candidate="c" * 64,
    champion="1",
    test_digest="e" * 64,
    outcome=Outcome.INCONCLUSIVE,
    reason="too few rows",
    gates=(GateResult(gate="champion", outcome=Outcome.INCONCLUSIVE, reason="so"),),
)


def waiting(uri: str) -> tuple[Environment, Version, Ledger]:
    """A version whose verdict waits for a person, over champion 1."""
    client, run_id = MlflowClient(uri), new_run(uri)
    client.create_registered_model("tickets")
    for number in (1, 2):
        client.create_model_version("tickets", f"file:///nowhere/{number}", run_id, tags={KEY: f"k{number}", COMPLETE: "true"})
    place = Environment("local", uri, uri.replace("mlflow.db", "ledger.db"))
    ledger = Ledger(place.ledger)
    ledger.append("tickets", expected=None, **change(1))
    version = attach_verdict(uri, run_id, "tickets", 2, SAID)
    ledger.request_approval(question("a1", 2, evidence=version.evidence))
    return place, version, ledger


def test_an_approval_killed_before_its_tag_is_told_by_the_next_call(uri: str) -> None:
    place, version, ledger = waiting(uri)
    ledger.append("tickets", expected=1, request=ledger.request("a1"), **change(2, evidence=version.evidence))
    MlflowClient(uri).set_registered_model_alias("tickets", "champion", "2")

    assert settle(place, "tickets") == ["version 2 was approved by ada@host: the verdict is PASS"]
    assert versions(uri, "tickets")[1].answer == "approved by ada@host: the verdict is PASS"
    assert settle(place, "tickets") == []


def test_a_reopening_killed_half_way_is_repaired(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, version, _ = waiting(uri)
    client = MlflowClient(uri)
    client.set_model_version_tag("tickets", "2", ANSWER, "expired")
    client.delete_registered_model_alias("tickets", CHALLENGER)
    for write in ("set_registered_model_alias", "delete_model_version_tag"):
        with monkeypatch.context() as patched:
            kill_after(patched, write)
            with pytest.raises(KeyboardInterrupt):
                reopen(uri, version)
        settle(place, "tickets")
        assert (versions(uri, "tickets")[1].aliases, versions(uri, "tickets")[1].answer) == ((CHALLENGER,), None)
        client.set_model_version_tag("tickets", "2", ANSWER, "expired")
        client.delete_registered_model_alias("tickets", CHALLENGER)
