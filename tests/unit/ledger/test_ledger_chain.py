"""The hash chain of the ledger: tampering is detected, also against the head stored in MLflow."""

import inspect
import shutil
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from components.core.errors import BadInput, BadParams, RetuneError
from components.ledger import Chain, Ledger, Retraining, book
from components.ledger import chain as chain_of
from components.ledger.chain import KEY, ChainHead
from components.ledger.tables import evidence, make_engine, writing
from components.mlflow_store.registry import Environment, accept_ledger, champion, reconcile, verify_ledger
from components.mlflow_store.registry.versions import LEDGER
from components.mlflow_store.registry.worker_client import isolated_environment
from flows import doctor
from flows.audit.history import verify
from flows.audit.registered_model import RegisteredModel
from flows.dvc_adapter.repro import environment as stages_environment
from flows.migrate.migrate import copy_ledger
from flows.production import promotion
from flows.project.workspace import Workspace
from tests.support.finished import new_store
from tests.support.ledger_entries import approval_request, change
from tests.support.postgres import Cluster
from tests.support.promotion import NAME, aliases, create_versions, ledger_of, swap

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_store(tmp_path / "var")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "var/ledger.db"


def write_all(ledger: Ledger) -> Ledger:
    """Write a row into every table; two champions."""
    ledger.append("tickets", expected=None, **change(1, forced=True))
    ledger.record_test_use("tickets", "t", "k")
    ledger.request_approval(approval_request("a1"))
    ledger.append("tickets", expected=1, **change(3, evidence="f" * 64))  # closes the request
    at = datetime(2026, 11, 30, tzinfo=UTC)
    ledger.record_retraining(Retraining(model="tickets", at=at, outcome="skipped", reason="no news", basis="", git_commit="c"))
    ledger.record_test_use("tickets", "u", "k", rows=["a row", "another"])
    return ledger


def open_at(file: Path) -> Ledger:
    return Ledger(f"sqlite:///{file}")


def tamper(file: Path, *statements: str, triggers: bool = True) -> Chain:
    """Change the file without its triggers, which are restored afterwards."""
    connection = sqlite3.connect(file, isolation_level=None)
    saved = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in saved:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in saved if triggers else ():
        connection.execute(sql)
    connection.close()
    return open_at(file).chain()


def test_all_rows_are_in_the_chain(file: Path) -> None:
    chain = write_all(open_at(file)).chain()

    connection = sqlite3.connect(file)
    rows = {table.name: connection.execute(f"SELECT COUNT(*) FROM {table.name}").fetchone()[0] for table in evidence()}
    connection.close()
    assert min(rows.values()) > 0
    assert len(chain.links) == 1 + sum(rows.values())  # and the first link
    assert (chain.faults, chain.beginning.found) == ((), 0)


def test_book_inserts_rows_only_through_the_chain() -> None:
    assert ".insert()" not in inspect.getsource(book)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE promotions SET who = 'eve' WHERE sequence = 1", "promotions tickets 1 was changed since it was written"),
        ("UPDATE promotions SET forced = 0 WHERE sequence = 1", "promotions tickets 1 was changed since it was written"),
        ("UPDATE promotions SET outcome = 'PASS' WHERE sequence = 2", "promotions tickets 2 was changed since it was written"),
        ("UPDATE requests SET reason = 'so'", "requests 1 was changed since it was written"),
        ("UPDATE answers SET decision = 'approved'", "answers 1 was changed since it was written"),
        ("UPDATE looks SET candidate_key = 'other'", "looks tickets t 1 was changed since it was written"),
        ("UPDATE retrainings SET outcome = 'PASS'", "retrainings 1 was changed since it was written"),
        ("UPDATE retrainings SET at = 'no time'", "retrainings 1 was changed since it was written"),
        ("DELETE FROM promotions WHERE sequence = 2", "promotions tickets 2 was deleted"),
        ("DELETE FROM answers", "answers 1 was deleted"),
        ("INSERT INTO looks VALUES ('tickets', 't', 2, 'mine', 'now')", "looks tickets t 2 is not in the chain"),
        ("DELETE FROM chain WHERE number = 3", "entries between 2 and 4 of the chain were deleted"),
        ("UPDATE chain SET content = hash WHERE number = 2", "entry 2 of the chain was changed"),
        ("UPDATE chain SET row = replace(row, 'new', 'old') WHERE number = 1", "entry 1 of the chain was changed"),
        ("DELETE FROM chain WHERE number = 1", "the chain has no beginning: its first entries were deleted"),
        ("DELETE FROM chain", "promotions tickets 1 is not in the chain"),
        ("UPDATE chain SET row = 'no key' WHERE number = 2", "promotions no key was deleted"),
        ("UPDATE chain SET row = '[1]' WHERE number = 1", "entry 1 of the chain was changed"),
        ("UPDATE promotions SET model = x'00' WHERE sequence = 1", "is not in the chain"),
    ],
)
def test_tampering_is_reported(file: Path, statement: str, fault: str) -> None:
    write_all(open_at(file))
    assert fault in "; ".join(tamper(file, statement).faults)


def test_second_link_of_a_row_is_reported(file: Path) -> None:
    write_all(open_at(file))
    tamper(file, "UPDATE promotions SET who = 'eve' WHERE sequence = 1")
    engine = make_engine(f"sqlite:///{file}")
    with writing(engine) as connection:  # as someone who knows the code would
        number, last = chain_of._last(connection) or (0, "")
        chain_of._link(connection, number, last, [next(row for row in chain_of._rows(connection) if row[0] == "promotions")])
    message = "promotions tickets 1 has a second entry in the chain, number 10: a row is written once and never changed"
    assert open_at(file).chain().faults == (message, "promotions tickets 1 was changed since it was written")


def test_swapped_entries_are_reported(file: Path) -> None:
    write_all(open_at(file))
    swaps = [f"UPDATE promotions SET sequence = {new} WHERE sequence = {old}" for old, new in ((1, 9), (2, 1), (9, 2))]
    assert [fault.split(" was")[0] for fault in tamper(file, *swaps).faults] == ["promotions tickets 1", "promotions tickets 2"]


def test_swapped_links_are_reported(file: Path) -> None:
    write_all(open_at(file))
    swaps = [f"UPDATE chain SET number = {new} WHERE number = {old}" for old, new in ((2, 99), (3, 2), (99, 3))]
    assert any("one of them was changed, or their order" in fault for fault in tamper(file, *swaps).faults)


@pytest.mark.parametrize("name", ["promotions_no_update", "chain_no_delete", "retrainings_no_replace"])
def test_dropped_triggers_are_reported(file: Path, name: str) -> None:
    write_all(open_at(file))
    connection = sqlite3.connect(file)
    connection.execute(f"DROP TRIGGER {name}")
    connection.close()
    assert open_at(file).chain().faults == (f"the trigger {name} is missing or changed: the database allows changes of entries",)


def test_new_entries_do_not_hide_tampering(file: Path) -> None:
    write_all(open_at(file))
    tamper(file, "UPDATE promotions SET who = 'eve' WHERE sequence = 1")
    ledger = open_at(file)
    ledger.append("tickets", expected=3, **change(4))
    assert ledger.chain().faults == ("promotions tickets 1 was changed since it was written",)


def test_older_ledger_gets_a_chain(file: Path) -> None:
    write_all(open_at(file))
    connection = sqlite3.connect(file)
    connection.execute("DROP TABLE chain")
    connection.close()

    chain = open_at(file).chain()
    assert (chain.faults, chain.beginning.found, chain.beginning.why) == ((), 8, "the ledger is older than its chain")
    assert "promotions tickets 2 was deleted" in tamper(file, "DELETE FROM promotions WHERE sequence = 2").faults


def test_interrupted_start_of_a_chain_is_repeated(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(open_at(file))
    connection = sqlite3.connect(file)
    connection.execute("DROP TABLE chain")
    connection.close()
    with monkeypatch.context() as patched:
        patched.setattr("components.ledger.chain._link", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_at(file)
    assert (open_at(file).chain().faults, open_at(file).chain().beginning.found) == ((), 8)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_row_and_link_are_written_atomically(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = write_all(open_at(file))
    monkeypatch.setattr("components.ledger.chain._link", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ledger.append("tickets", expected=3, **change(4))
    assert (len(ledger.entries("tickets")), ledger.chain().faults) == (2, ())


def promote_two(uri: str) -> Path:
    create_versions(uri, 1, 2)
    ledger = Ledger(ledger_of(uri))
    swap(uri, ledger, 1)
    swap(uri, ledger, 2)
    return Path(ledger_of(uri).removeprefix("sqlite:///"))


@pytest.mark.slow
def test_mlflow_stores_the_head_on_model_and_champions(uri: str) -> None:
    promote_two(uri)
    client, head = MlflowClient(uri), Ledger(ledger_of(uri)).chain_head()
    assert ChainHead.read(client.get_registered_model(NAME).tags[LEDGER]) == head
    assert [ChainHead.read(client.get_model_version(NAME, number).tags[LEDGER]).number for number in ("1", "2")] == [2, 3]
    assert verify_ledger(uri, ledger_of(uri), NAME).faults == ()


@pytest.mark.slow
def test_truncated_ledger_is_reported(uri: str) -> None:
    file = promote_two(uri)
    assert tamper(file, "DELETE FROM promotions WHERE sequence = 2", "DELETE FROM chain WHERE number = 3").faults == ()
    assert "the chain ends at entry 2, and the registered model tickets in MLflow names entry 3" in refusal(uri)
    assert "the last entries were deleted, or an older copy was restored" in refusal(uri)


@pytest.mark.slow
def test_older_copy_is_reported(uri: str, tmp_path: Path) -> None:
    create_versions(uri, 1, 2)
    file = Path(ledger_of(uri).removeprefix("sqlite:///"))
    swap(uri, Ledger(ledger_of(uri)), 1)
    shutil.copyfile(file, tmp_path / "copy.db")
    swap(uri, Ledger(ledger_of(uri)), 2)
    shutil.copyfile(tmp_path / "copy.db", file)

    assert "or an older copy was restored" in refusal(uri)
    Ledger(ledger_of(uri)).append(NAME, expected=1, **change(7))  # a different history from here on
    assert "entry 3 has the hash" in refusal(uri)
    assert "the ledger was rewritten from there on" in refusal(uri)


@pytest.mark.slow
@pytest.mark.parametrize("recreate", [False, True], ids=["deleted", "recreated"])
def test_deleted_ledger_is_reported(uri: str, recreate: bool) -> None:
    file = promote_two(uri)
    file.unlink()
    if recreate:
        Ledger(ledger_of(uri)).append(NAME, expected=None, **change(1))
    message = "of another chain: the ledger was deleted and recreated" if recreate else "the ledger is empty, and the registered model"
    assert message in refusal(uri)


@pytest.mark.slow
def test_rewritten_ledger_is_reported(uri: str) -> None:
    file = promote_two(uri)
    tamper(file, "UPDATE promotions SET who = 'eve'", "DELETE FROM chain")
    Ledger(ledger_of(uri)).accept("eve", "nobody will see")
    assert "of another chain" in refusal(uri)


def refusal(uri: str) -> str:
    """Return why aliases do not follow the ledger."""
    before = aliases(uri)
    MlflowClient(uri).set_registered_model_alias(NAME, "champion", "1")
    with pytest.raises(RetuneError) as error:
        reconcile(uri, ledger_of(uri), NAME)
    assert aliases(uri) == {**before, "champion": 1}  # unchanged
    MlflowClient(uri).set_registered_model_alias(NAME, "champion", str(before["champion"]))
    assert "retune reconcile --accept --why TEXT" in str(error.value)
    return str(error.value)


@pytest.mark.slow
def test_tampered_ledger_blocks_promotion(uri: str) -> None:
    file = promote_two(uri)
    tamper(file, "UPDATE promotions SET who = 'eve' WHERE sequence = 1")
    with pytest.raises(RetuneError, match="promotions tickets 1 was changed"):
        swap(uri, Ledger(ledger_of(uri)), 1)
    assert len(Ledger(ledger_of(uri)).entries(NAME)) == 2


@pytest.mark.slow
def test_tampered_ledger_can_be_accepted(uri: str) -> None:
    file = promote_two(uri)
    tamper(file, "UPDATE promotions SET why = 'so' WHERE sequence = 1", "DROP TRIGGER IF EXISTS chain_no_update", triggers=False)
    accept_ledger(uri, ledger_of(uri), "ada", "it was I")

    report = verify_ledger(uri, ledger_of(uri), NAME)
    assert (report.faults, report.chain.beginning.who, report.chain.beginning.why) == ((), "ada", "it was I")
    assert reconcile(uri, ledger_of(uri), NAME) == []
    swap(uri, Ledger(ledger_of(uri)), 1)
    assert verify_ledger(uri, ledger_of(uri), NAME).faults == ()


@pytest.mark.slow
def test_lost_ledger_needs_acceptance(uri: str) -> None:
    file = promote_two(uri)
    file.unlink()
    refusal(uri)
    accept_ledger(uri, ledger_of(uri), "ada", "there is no copy")
    reconcile(uri, ledger_of(uri), NAME)

    entries = Ledger(ledger_of(uri)).entries(NAME)
    assert [(entry.action, entry.version) for entry in entries] == [("adopted", 1), ("adopted", 2)]
    assert champion(uri, NAME).number == 2


@pytest.mark.slow
def test_interrupted_head_is_stored_by_the_next_call(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    promote_two(uri)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_registered_model_tag", interrupt)
        with pytest.raises(KeyboardInterrupt):
            swap(uri, Ledger(ledger_of(uri)), 1)
    reconcile(uri, ledger_of(uri), NAME)
    assert verify_ledger(uri, ledger_of(uri), NAME).kept == Ledger(ledger_of(uri)).chain_head()


@pytest.mark.slow
def test_signed_head_needs_its_key(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    promote_two(uri)
    assert verify_ledger(uri, ledger_of(uri), NAME).signature.startswith("signed by key ")

    monkeypatch.delenv(KEY)
    report = verify_ledger(uri, ledger_of(uri), NAME)
    assert (report.faults, report.signature.endswith("not checked: RETUNE_LEDGER_KEY is not set")) == ((), True)
    with pytest.raises(RetuneError, match="RETUNE_LEDGER_KEY is not set: set it"):
        reconcile(uri, ledger_of(uri), NAME)
    monkeypatch.setenv(KEY, "another key of this project")
    assert "is signed by the key" in verify_ledger(uri, ledger_of(uri), NAME).faults[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forge", "fault"),
    [
        (lambda head: ChainHead(head.begun, head.number, head.hash), "is not signed, and RETUNE_LEDGER_KEY contains the key"),
        (lambda head: ChainHead(head.begun, head.number, head.hash, head.signer, "0" * 64), "has a signature that the key"),
        (None, "MLflow stores no signed head of the ledger for tickets"),
    ],
    ids=["unsigned", "another signature", "deleted"],
)
def test_forged_head_is_reported(uri: str, monkeypatch: pytest.MonkeyPatch, forge: object, fault: str) -> None:
    monkeypatch.setenv(KEY, SECRET)
    promote_two(uri)
    client, head = MlflowClient(uri), Ledger(ledger_of(uri)).chain_head()
    assert head is not None
    if forge is None:
        client.delete_registered_model_tag(NAME, LEDGER)
    else:
        client.set_registered_model_tag(NAME, LEDGER, forge(head.signed()).as_text())  # type: ignore[operator]
    assert fault in refusal(uri)


@pytest.mark.slow
def test_deleted_head_is_detected_by_the_champion_tag(uri: str) -> None:
    promote_two(uri)
    MlflowClient(uri).delete_registered_model_tag(NAME, LEDGER)
    assert "models:/tickets/1 has the tag retune.ledger, but the registered model has none: it was deleted there" in refusal(uri)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["no json", "[]", '{"begun": null, "number": 1, "hash": null}', '{"begun": "a", "number": "1", "hash": "a"}']
)
def test_invalid_head_is_reported(uri: str, text: str) -> None:
    promote_two(uri)
    MlflowClient(uri).set_registered_model_tag(NAME, LEDGER, text)
    assert "the registered model tickets in MLflow names entry 0" in refusal(uri)


@pytest.mark.slow
def test_concurrent_promotion_is_no_fault(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    promote_two(uri)
    read, meanwhile = Ledger.chain, [1]

    def chain(ledger: Ledger) -> Chain:
        result = read(ledger)
        if meanwhile:
            swap(uri, Ledger(ledger_of(uri)), meanwhile.pop())
        return result

    monkeypatch.setattr(Ledger, "chain", chain)
    assert verify_ledger(uri, ledger_of(uri), NAME).faults == ()
    assert verify_ledger(uri, ledger_of(uri), NAME).faults == ()


@pytest.mark.slow
def test_concurrent_new_chain_is_no_fault(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    promote_two(uri)
    read, meanwhile = Ledger.chain, ["the copy is right"]

    def chain(ledger: Ledger) -> Chain:
        if meanwhile:
            accept_ledger(uri, ledger_of(uri), "ada", meanwhile.pop())
        return read(ledger)

    monkeypatch.setattr(Ledger, "chain", chain)
    assert verify_ledger(uri, ledger_of(uri), NAME).faults == ()


@pytest.mark.slow
def test_tampered_ledger_blocks_rejection(uri: str) -> None:
    file = promote_two(uri)
    request = Ledger(ledger_of(uri)).request_approval(replace(approval_request("a1"), model=NAME))
    tamper(file, "UPDATE promotions SET who = 'eve' WHERE sequence = 1")
    with pytest.raises(RetuneError, match="promotions tickets 1 was changed"):
        promotion.reject(Environment("local", uri, ledger_of(uri)), request.run, who="bob", why="too slow")
    assert Ledger(ledger_of(uri)).open_request(request.run) == request


@pytest.mark.slow
def test_head_without_a_key_is_not_signed(uri: str) -> None:
    promote_two(uri)
    assert verify_ledger(uri, ledger_of(uri), NAME).signature == "not signed"


def test_first_promotion_is_signed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    create_versions(uri, 1)
    swap(uri, Ledger(ledger_of(uri)), 1)
    assert verify_ledger(uri, ledger_of(uri), NAME).faults == ()


def test_short_key_is_rejected(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "short")
    create_versions(uri, 1)
    with pytest.raises(BadParams, match="RETUNE_LEDGER_KEY has 5 characters, expected 16 or more"):
        swap(uri, Ledger(ledger_of(uri)), 1)


@pytest.mark.slow
def test_verify_reports_chain_and_head(uri: str, tmp_path: Path) -> None:
    file = promote_two(uri)
    model = RegisteredModel(NAME, tmp_path, uri, ledger_of(uri), ())
    report = verify(model)
    assert (report.ledger, report.entries, report.found, report.kept, report.signature, report.faults) == (
        str(file),
        3,
        0,
        3,
        "not signed",
        (),
    )
    tamper(file, "UPDATE promotions SET who = 'eve' WHERE sequence = 1")
    assert verify(model).faults == ("promotions tickets 1 was changed since it was written",)


@pytest.mark.slow
def test_history_verify_exits_with_1_on_a_fault(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import flows.cli
    from flows.cli.options import app

    assert flows.cli.app is app
    file = promote_two(uri)
    monkeypatch.setattr("flows.audit.registered_model.open_model", lambda *_: RegisteredModel(NAME, tmp_path, uri, ledger_of(uri), ()))
    message = CliRunner().invoke(app, ["history", NAME, "--verify"])
    assert (message.exit_code, "head in MLflow: entry 3, not signed" in message.output) == (0, True)
    tamper(file, "UPDATE promotions SET who = 'eve' WHERE sequence = 1")
    message = CliRunner().invoke(app, ["history", NAME, "--verify"])
    assert (message.exit_code, "fault: promotions tickets 1 was changed since it was written" in message.output) == (1, True)
    plain = CliRunner().invoke(app, ["history", NAME])
    assert "warning: the ledger was changed, first: promotions tickets 1 was changed" in plain.stderr


@pytest.mark.slow
def test_doctor_checks_the_chain(uri: str, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    for name in ("components", "flows"):
        (tmp_path / name).mkdir()
    file, workspace = promote_two(uri), Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")
    assert doctor.ledger(workspace) == "3 entries, unchanged since they were written, not signed"
    tamper(file, "DELETE FROM promotions WHERE sequence = 2")
    with pytest.raises(RetuneError, match="promotions tickets 2 was deleted: `retune history NAME --verify` shows all"):
        doctor.ledger(workspace)


def test_key_is_not_passed_to_stages_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    assert KEY not in isolated_environment("sqlite:///mlflow.db", tmp_path)
    assert KEY not in stages_environment(tmp_path)


@pytest.mark.slow
def test_chain_is_kept_by_a_migration_to_postgresql(file: Path, postgres: Cluster) -> None:
    url = postgres.url(postgres.new_database())
    before = write_all(open_at(file)).chain()
    carried = copy_ledger(file, url, really=True)

    ledger = Ledger(url)
    assert (ledger.chain(), carried, copy_ledger(file, url, really=True)) == (before, len(before.links) + 8, carried)
    ledger.append("tickets", expected=3, **change(4))
    assert (ledger.chain().faults, len(ledger.chain().links)) == ((), len(before.links) + 1)
    with pytest.raises(BadInput, match="the shared ledger is not empty"):
        copy_ledger(file, url, really=True)

    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE promotions DISABLE TRIGGER promotions_append_only")
        connection.exec_driver_sql("UPDATE promotions SET who = 'eve' WHERE sequence = 1")
    assert ledger.chain().faults == (
        "the trigger promotions_append_only is missing or changed: the database allows changes of entries",
        "promotions tickets 1 was changed since it was written",
    )


@pytest.mark.slow
def test_migration_adds_a_missing_chain(file: Path, postgres: Cluster) -> None:
    write_all(open_at(file))
    connection = sqlite3.connect(file)
    connection.execute("DROP TABLE chain")
    connection.close()
    url = postgres.url(postgres.new_database())

    assert copy_ledger(file, url, really=True) == copy_ledger(file, url, really=True) == 8
    assert (Ledger(url).chain().faults, Ledger(url).chain().beginning.found) == ((), 8)
