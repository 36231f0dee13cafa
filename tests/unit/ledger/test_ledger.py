"""The ledger: compare-and-swap, gapless and append-only entries, requests that expire."""

import multiprocessing
import sqlite3
from dataclasses import replace
from datetime import UTC, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from components.core.errors import BadInput, BadParams, NotFound, RetuneError, Unavailable
from components.ledger import Entry, Ledger, Request, StaleVerdict
from tests.support.ledger_entries import NOW, approval_request, change


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/var/ledger.db"


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url)


def newest(ledger: Ledger, run: str) -> Request:
    return [request for request in ledger.requests() if request.run == run][-1]


def test_new_model_has_no_entries(ledger: Ledger) -> None:
    assert (ledger.head("tickets"), ledger.entries("tickets"), ledger.models()) == (None, [], [])


def test_entries_have_sequence_and_predecessor(ledger: Ledger) -> None:
    first = ledger.append("tickets", expected=None, **change(1, anchor=1, outcome="PASS", evidence="e", verdict_key="v"))
    second = ledger.append("tickets", expected=1, **change(4, anchor=1, forced=True, origin="staging"))

    assert (first.sequence, first.previous, first.anchor, first.outcome, first.forced) == (1, None, 1, "PASS", False)
    assert (second.sequence, second.previous, second.forced, second.origin) == (2, 1, True, "staging")
    assert ledger.entries("tickets") == [first, second]
    assert ledger.head("tickets") == second
    assert ledger.models() == ["tickets"]
    assert first.at.tzinfo is UTC


def test_each_model_has_its_own_sequence(ledger: Ledger) -> None:
    ledger.append("tickets", expected=None, **change(1))
    assert ledger.append("mails", expected=None, **change(7)).sequence == 1


def test_stale_verdict_writes_nothing(ledger: Ledger) -> None:
    ledger.append("tickets", expected=None, **change(4))
    ledger.append("tickets", expected=4, **change(5))

    with pytest.raises(StaleVerdict, match=r"^verdict is about version 4, champion is now 5: judge again$") as error:
        ledger.append("tickets", expected=4, **change(6))
    assert not isinstance(error.value, Unavailable)  # a retry does not help
    with pytest.raises(StaleVerdict, match="verdict is about no champion, champion is now 5: judge again"):
        ledger.append("tickets", expected=None, **change(6))
    with pytest.raises(StaleVerdict, match="verdict is about version 1, champion is now none: judge again"):
        ledger.append("mails", expected=1, **change(6))
    assert [entry.version for entry in ledger.entries("tickets")] == [4, 5]


def test_promotion_can_accept_any_champion(ledger: Ledger) -> None:
    ledger.append("tickets", expected="any", **change(4))
    assert ledger.append("tickets", expected="any", **change(5)).previous == 4


@pytest.mark.parametrize("table", ["promotions", "requests", "answers", "looks", "test_rows"])
@pytest.mark.parametrize("verb", ["DELETE FROM {0}", "UPDATE {0} SET rowid = rowid + 1", "INSERT OR REPLACE INTO {0} SELECT * FROM {0}"])
def test_database_refuses_changes(ledger: Ledger, url: str, table: str, verb: str) -> None:
    ledger.append("tickets", expected=None, **change(1))
    ledger.record_test_use("tickets", "t", "k", ["r"])
    ledger.request_approval(approval_request("a1"))
    ledger.answer("a1", "rejected", "ada", "no")

    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(verb.format(table))
    finally:
        connection.close()


def test_database_refuses_to_replace_by_any_key(ledger: Ledger, url: str) -> None:
    ledger.record_test_use("tickets", "t", "k", ["r"])
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("INSERT OR REPLACE INTO looks SELECT model, test_digest, 9, candidate_key, at FROM looks")
    finally:
        connection.close()
    assert ledger.record_test_use("tickets", "t", "k").number == 1


def test_stale_rollback_is_rejected(ledger: Ledger) -> None:
    ledger.append("tickets", expected=None, **change(1))
    with pytest.raises(StaleVerdict, match="the rollback is from version 4, champion is now 1: check again") as error:
        ledger.append("tickets", expected=4, **(change(2) | {"action": "rolled back"}))
    assert error.value.exit_code == 1


def test_invalid_ledger_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a database, and long enough to have a header " * 20)
    with pytest.raises(RetuneError, match="cannot be read"):
        Ledger(f"sqlite:///{tmp_path}/ledger.db")


@pytest.mark.parametrize("address", ["var/ledger.db", "oracle:///x", "postgresql+nobody://h/l"])
def test_invalid_url_is_rejected(address: str) -> None:
    with pytest.raises(BadParams, match="the URL of the ledger cannot be used"):
        Ledger(address)


def test_locked_ledger_is_unavailable(ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.ledger.tables.BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="busy or unreachable"):
            Ledger(url).append("tickets", expected=None, **change(1))
        assert Ledger(url).head("tickets") is None  # reading still works
    finally:
        holder.close()


def test_each_candidate_counts_once_per_test_set(ledger: Ledger) -> None:
    assert [ledger.record_test_use("tickets", "t1", key, ["r1"]).number for key in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 2]
    assert ledger.record_test_use("tickets", "t2", "a", ["r2"]).number == 1
    uses = [ledger.count_test_uses(*key) for key in (("tickets", "t1"), ("tickets", "t2"), ("mails", "t1"))]
    assert uses == [3, 1, 0]


def test_request_is_open_until_answered(ledger: Ledger) -> None:
    ledger.request_approval(approval_request("a1"))
    ledger.request_approval(approval_request("b2", version=3))

    assert [request.run for request in ledger.open_requests("tickets")] == ["a1", "b2"]
    answered = ledger.answer("a", "rejected", "ada", "not this one")
    assert (answered.decision, answered.who, answered.why) == ("rejected", "ada", "not this one")
    assert newest(ledger, "a1") == answered
    assert [request.run for request in ledger.open_requests()] == ["b2"]
    assert ledger.open_requests("mails") == []
    with pytest.raises(BadInput, match=r"run a1 was rejected by ada at .*: not this one"):
        ledger.answer("a1", "approved", "bob", "yes")


def test_request_expires(ledger: Ledger) -> None:
    ledger.request_approval(approval_request("a1", asked_at=NOW - timedelta(days=8), expires_at=NOW - timedelta(days=1)))

    assert ledger.open_requests() == []
    assert newest(ledger, "a1").expired()
    with pytest.raises(BadInput, match="the request of run a1 expired at"):
        ledger.answer("a1", "approved", "ada", "yes")


def test_new_verdict_supersedes_the_request(ledger: Ledger) -> None:
    ledger.request_approval(approval_request("a1"))
    assert ledger.request_approval(approval_request("a1", asked_at=NOW + timedelta(hours=1))) == approval_request("a1")
    ledger.request_approval(approval_request("a1", evidence="f" * 64))

    assert [(request.evidence[0], request.decision) for request in ledger.requests("tickets")] == [("e", "superseded"), ("f", None)]
    assert newest(ledger, "a1").evidence == "f" * 64
    assert ledger.requests("mails") == []


def test_promotion_closes_open_requests(ledger: Ledger) -> None:
    ledger.append("tickets", expected=None, **change(1))
    for run, version in (("a1", 2), ("b2", 3)):
        ledger.request_approval(approval_request(run, version))
    ledger.append("tickets", expected=1, **change(3, evidence="e" * 64))

    assert [(request.run, request.decision) for request in ledger.requests()] == [("a1", "superseded"), ("b2", "approved")]
    assert newest(ledger, "a1").why == "version 3 was promoted"


@pytest.mark.parametrize(
    ("promotion", "request_fields"),
    [
        ({"evidence": "f" * 64}, {}),
        ({"evidence": "e" * 64, "forced": True}, {}),
        ({"evidence": "e" * 64}, {"asked_at": NOW - timedelta(days=8), "expires_at": NOW - timedelta(days=1)}),
    ],
    ids=["other evidence", "forced", "expired"],
)
def test_promotion_approves_only_requests_on_the_same_evidence(
    ledger: Ledger, promotion: dict[str, object], request_fields: dict[str, object]
) -> None:
    ledger.append("tickets", expected=None, **change(1))
    ledger.request_approval(approval_request("a1", 2, **request_fields))
    ledger.append("tickets", expected=1, **change(2, **promotion))

    forced = " by force" if "forced" in promotion else ""
    assert (newest(ledger, "a1").decision, newest(ledger, "a1").why) == ("superseded", f"version 2 was promoted{forced}")


def test_answering_promotion_needs_an_open_request(ledger: Ledger) -> None:
    request = ledger.request_approval(approval_request("a1", 2))
    ledger.append("tickets", expected=None, **change(1, evidence="0" * 64))  # which supersedes it
    with pytest.raises(BadInput, match="run a1 was superseded by ada@host"):
        ledger.append("tickets", expected=1, request=request, **change(2, evidence=request.evidence))

    request = ledger.request_approval(approval_request("b2", 2))
    with pytest.raises(BadInput, match="run b2 was judged again and its request has changed"):
        ledger.append("tickets", expected=1, request=request, **change(2, evidence="f" * 64))
    ledger.request_approval(replace(request, evidence="f" * 64))
    with pytest.raises(BadInput, match="run b2 was judged again and its request has changed"):
        ledger.append("tickets", expected=1, request=request, **change(2, evidence=request.evidence))
    assert [entry.version for entry in ledger.entries("tickets")] == [1]


def test_rejected_evidence_needs_force(ledger: Ledger) -> None:
    ledger.request_approval(approval_request("a1", 2))
    ledger.answer("a1", "rejected", "bob", "it is harmful")

    with pytest.raises(BadInput, match=r"bob rejected version 2 of tickets on this evidence: it is harmful; a verdict on "):
        ledger.append("tickets", expected=None, **change(2, evidence="e" * 64))
    with pytest.raises(BadInput, match="bob rejected"):  # the same verdict with other version numbers
        ledger.append("tickets", expected=None, **change(2, evidence="f" * 64, verdict_key="v"))
    assert (ledger.rejection("tickets", "f" * 64), ledger.rejection("tickets", "f" * 64, "v")) == (None, newest(ledger, "a1"))
    assert ledger.entries("tickets") == []
    assert ledger.append("tickets", expected=None, **change(2, evidence="e" * 64, forced=True)).forced
    assert ledger.append("tickets", expected=2, **change(3, evidence="f" * 64)).version == 3


def test_champions_are_adopted_into_an_empty_ledger_only(ledger: Ledger) -> None:
    adopted = ledger.adopt("tickets", [change(1), change(2)])

    assert [(entry.sequence, entry.version, entry.previous) for entry in adopted] == [(1, 1, None), (2, 2, 1)]
    assert ledger.entries("tickets") == adopted
    assert ledger.adopt("tickets", [change(3)]) == []


def test_adoption_is_atomic(ledger: Ledger) -> None:
    with pytest.raises(TypeError):
        ledger.adopt("tickets", [change(1), change(2, unknown="killed here")])

    assert ledger.entries("tickets") == []


def test_unknown_or_ambiguous_run_is_reported(ledger: Ledger) -> None:
    ledger.request_approval(approval_request("a1"))
    ledger.request_approval(approval_request("a2"))

    with pytest.raises(NotFound, match="2 runs start with 'a': a1, a2"):
        ledger.open_request("a")
    for unknown in ("%", "zz", ""):
        with pytest.raises(NotFound, match="requested approval; open requests: a1, a2"):
            ledger.open_request(unknown)


def promote_many(url: str, rounds: int, version: int) -> list[Entry]:
    """Promote `version` repeatedly against the current champion; return the written entries."""
    ledger, written = Ledger(url), []
    for _ in range(rounds):
        head = ledger.head("tickets")
        try:
            written.append(ledger.append("tickets", expected=head.version if head else None, **change(version)))
        except StaleVerdict:
            continue
    return written


@pytest.mark.slow
def test_concurrent_writers_leave_no_gap(url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        written = [entry for entries in pool.starmap(promote_many, [(url, 50, version) for version in range(1, 5)]) for entry in entries]

    entries = Ledger(url).entries("tickets")
    assert [entry.sequence for entry in entries] == list(range(1, len(written) + 1))
    assert sorted(written, key=lambda entry: entry.sequence) == entries
    assert all(after.previous == before.version for before, after in pairwise(entries))
