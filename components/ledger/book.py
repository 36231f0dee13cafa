"""The ledger: append by compare-and-swap, query by model and time."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Unpack

import sqlalchemy as sa
import sqlalchemy.exc

from components.core.errors import BadInput, NotFound
from components.ledger import chain
from components.ledger.chain import Chain, ChainHead
from components.ledger.records import Answer, Change, Entry, Expected, Request, Retraining, StaleVerdict, check_expected
from components.ledger.tables import (
    answers,
    file_of,
    guard,
    looks,
    make_engine,
    prepare,
    promotions,
    reading,
    requests,
    retrainings,
    test_rows,
    writing,
)
from components.ledger.test_set_use import SHARED, PriorUse, prior_use, sample_keys


class Ledger:
    """The ledger at `url`, created if missing. Every row gets a link of the chain in the transaction that writes it.

    Raises (every method):
        NotFound: the file is empty.
        Unavailable: the database is busy or unreachable.
        RetuneError: the path is a folder, another database, or damaged.
    """

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        prepare(self._engine, chain.begin_over_older)

    def __str__(self) -> str:
        return str(file_of(self._engine.url) or self._engine.url)

    def chain(self) -> Chain:
        """Verify the chain over all rows of all models; return it with its faults."""
        with reading(self._engine) as connection:
            return chain.verify(connection)

    def chain_head(self) -> ChainHead | None:
        """Return the last entry of the chain; None for an empty ledger."""
        with reading(self._engine) as connection:
            return chain.head(connection)

    def begin_chain(self) -> None:
        """Start the chain of an empty ledger, so that it has a head to sign."""
        with writing(self._engine) as connection:
            if chain.head(connection) is None:
                chain.begin(connection, chain.RETUNE, "the ledger is new")

    def accept(self, who: str, why: str) -> None:
        """Start a new chain over all current rows, with any faults, and recreate the triggers; the chain records `who` and `why`."""
        with writing(self._engine) as connection:
            guard(connection)
            chain.begin(connection, who, why)

    def head(self, model: str) -> Entry | None:
        """Return the entry of the current champion; None before the first promotion."""
        with reading(self._engine) as connection:
            return _head(connection, model)

    def entries(self, model: str) -> list[Entry]:
        """Return every change of champion, oldest first."""
        query = sa.select(promotions).where(promotions.c.model == model).order_by(promotions.c.sequence)
        with reading(self._engine) as connection:
            return [Entry(**row) for row in connection.execute(query).mappings()]

    def models(self) -> list[str]:
        """Return the sorted names of all models with a promotion or a request."""
        query = sa.union(sa.select(promotions.c.model), sa.select(requests.c.model))
        with reading(self._engine) as connection:
            return sorted(connection.execute(query).scalars())

    def append(self, model: str, *, expected: Expected, request: Request | None = None, **change: Unpack[Change]) -> Entry:
        """Write a change of champion in one transaction, if the current champion is `expected` (None: no champion).

        `request` is the request that this change answers: it must still be open. All other open requests of the model are closed: as
        approved if they are about the same evidence, else as superseded.

        Raises:
            StaleVerdict: the champion is not `expected`; nothing was written.
            BadInput: the request is closed, or a person rejected this evidence and `forced` is not set; nothing was written.
        """
        try:
            with writing(self._engine) as connection:
                head = _head(connection, model)
                check_expected(expected, head, change["action"])
                if request is not None:
                    _, newest = _open_request(connection, request.run)
                    same = (change["version"], change.get("evidence")) == (request.version, request.evidence)
                    if not same or _question(newest) != _question(request):
                        raise BadInput(f"run {request.run} was judged again and its request has changed: review it again")
                return _write(connection, model, head, change)
        except sqlalchemy.exc.IntegrityError:  # another writer came in between
            head = self.head(model)
            raise StaleVerdict(None if expected == "any" else expected, head.version if head else None, change["action"]) from None

    def adopt(self, model: str, changes: Sequence[Change]) -> list[Entry]:
        """Write the champions of a registry that is older than the ledger, in one transaction; nothing if the model has entries."""
        with suppress(sqlalchemy.exc.IntegrityError), writing(self._engine) as connection:  # raised if another process adopted them
            if _head(connection, model) is None:
                return [_write(connection, model, _head(connection, model), change) for change in changes]
        return []

    def record_test_use(
        self,
        model: str,
        test_digest: str,
        candidate_key: str,
        rows: Collection[str] = (),
        others: Mapping[str, Collection[str]] | None = None,
        shared: float = SHARED,
    ) -> PriorUse:
        """Record that a candidate is judged on a test set; return its number among the candidates judged on these rows. Idempotent.

        `rows` are the keys of the test rows; `others` those of the earlier test sets named by `tests_without_rows`, by digest. From
        a share of common rows of `shared` on, an earlier use counts fully.
        """
        with writing(self._engine) as connection:
            for digest, keys in {**(others or {}), **({test_digest: rows} if rows else {})}.items():
                if not connection.execute(sa.select(test_rows.c.test_digest).where(test_rows.c.test_digest == digest)).first():
                    chain.add(connection, test_rows, test_digest=digest, row_keys=" ".join(sample_keys(keys)))
            uses = _test_uses(connection, model)
            pairs = [(use.candidate_key, use.test_digest) for use in uses]
            if (candidate_key, test_digest) in pairs:
                pairs = pairs[: pairs.index((candidate_key, test_digest))]
            else:
                number = 1 + sum(use.test_digest == test_digest for use in uses)
                at = _now(uses[-1].at if uses else None)
                chain.add(connection, looks, model=model, test_digest=test_digest, number=number, candidate_key=candidate_key, at=at)
            earlier = [pair for pair in pairs if pair[0] != candidate_key]
            return prior_use(test_digest, earlier, _row_keys(connection), shared)

    def tests_without_rows(self, model: str) -> list[str]:
        """Return the digests of the used test sets whose row keys are not in the ledger."""
        with reading(self._engine) as connection:
            return sorted({use.test_digest for use in _test_uses(connection, model)} - _row_keys(connection).keys())

    def count_test_uses(self, model: str, test_digest: str, rows: Collection[str] = (), shared: float = SHARED) -> int:
        """Return how many candidates were judged on a test set; `rows` are its row keys, if the ledger has none."""
        with reading(self._engine) as connection:
            uses = [(use.candidate_key, use.test_digest) for use in _test_uses(connection, model)]
            keys = _row_keys(connection)
        return prior_use(test_digest, uses, {**({test_digest: sample_keys(rows)} if rows else {}), **keys}, shared).number - 1

    def record_retraining(self, retraining: Retraining) -> None:
        """Write the outcome of a scheduled run."""
        with writing(self._engine) as connection:
            chain.add(connection, retrainings, **asdict(retraining))

    def retrainings(self, model: str, last: int = 1, without: Collection[str] = ()) -> list[Retraining]:
        """Return the last scheduled runs of a model, newest first, except those with an outcome in `without`."""
        query = sa.select(*(column for column in retrainings.c if column.name != "number")).where(retrainings.c.model == model)
        query = query.where(retrainings.c.outcome.not_in(without)).order_by(retrainings.c.number.desc()).limit(last)
        with reading(self._engine) as connection:
            return [Retraining(**row) for row in connection.execute(query).mappings()]

    def request_approval(self, request: Request) -> Request:
        """Add a request; an equal open one is returned instead, a different one of the same run is superseded."""
        with writing(self._engine) as connection:
            for number, earlier in _requests(connection, requests.c.run == request.run, answers.c.decision.is_(None)):
                if earlier.is_open() and _question(earlier) == _question(request):
                    return earlier
                _answer(connection, number, "superseded", "retune", "the run was judged again")
            chain.add(connection, requests, **_question(request), asked_at=request.asked_at, expires_at=request.expires_at)
        return request

    def answer(self, run_prefix: str, decision: Answer, who: str, why: str) -> Request:
        """Write a person's answer to the newest request of the run whose id starts with `run_prefix`.

        Raises:
            NotFound: no run or several runs match.
            BadInput: the request was answered before or has expired.
        """
        with writing(self._engine) as connection:
            number, _ = _open_request(connection, run_prefix)
            _answer(connection, number, decision, who, why)
            return _requests(connection, requests.c.number == number)[0][1]

    def open_request(self, run_prefix: str) -> Request:
        """Return the request that `answer` would answer; raise the same errors."""
        with reading(self._engine) as connection:
            return _open_request(connection, run_prefix)[1]

    def rejection(self, model: str, evidence: str | None, verdict_key: str | None = None) -> Request | None:
        """Return the newest request that a person rejected on this evidence; None if there is none.

        With `verdict_key`, the same verdict with another digest also counts: its version numbers differ after registering again.
        """
        with reading(self._engine) as connection:
            return _rejection(connection, model, evidence, verdict_key)

    def requests(self, model: str | None = None) -> list[Request]:
        """Return all requests, answered or not, oldest first."""
        with reading(self._engine) as connection:
            return [request for _, request in _requests(connection, *([requests.c.model == model] if model is not None else []))]

    def open_requests(self, model: str | None = None) -> list[Request]:
        """Return the requests that can be answered now, oldest first."""
        return [request for request in self.requests(model) if request.is_open()]


def _head(connection: sa.Connection, model: str) -> Entry | None:
    query = sa.select(promotions).where(promotions.c.model == model).order_by(promotions.c.sequence.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return Entry(**row) if row else None


def _test_uses(connection: sa.Connection, model: str) -> list[Any]:
    """Return the uses of a model's test sets, oldest first."""
    query = sa.select(looks).where(looks.c.model == model).order_by(looks.c.at, looks.c.test_digest, looks.c.number)
    return list(connection.execute(query))


def _row_keys(connection: sa.Connection) -> dict[str, tuple[str, ...]]:
    """Return the row keys of each test set."""
    return {row.test_digest: tuple(row.row_keys.split()) for row in connection.execute(sa.select(test_rows))}


def _rejection(connection: sa.Connection, model: str, evidence: str | None, verdict_key: str | None) -> Request | None:
    keys = ((requests.c.evidence, evidence), (requests.c.verdict_key, verdict_key))
    same = sa.or_(sa.false(), *(column == value for column, value in keys if value is not None))
    rejected = _requests(connection, requests.c.model == model, same, answers.c.decision == "rejected")
    return rejected[-1][1] if rejected else None


def _write(connection: sa.Connection, model: str, head: Entry | None, change: Change) -> Entry:
    """Write an entry after `head`, and close all open requests, also expired ones: the champion that they refer to has changed."""
    sequence, previous, at = (head.sequence + 1, head.version, _now(head.at)) if head else (1, None, _now())
    entry = Entry(model=model, sequence=sequence, at=at, previous=previous, **change)
    if entry.action == "promoted" and not entry.forced and (rejected := _rejection(connection, model, entry.evidence, entry.verdict_key)):
        raise BadInput(rejected.refusal())
    chain.add(connection, promotions, **asdict(entry))
    for number, request in _requests(connection, requests.c.model == model, answers.c.decision.is_(None)):
        same = (request.version, request.evidence) == (entry.version, entry.evidence) and entry.action == "promoted"
        if same and not entry.forced and request.is_open():
            _answer(connection, number, "approved", entry.who, entry.why)
        else:
            forced = " by force" if entry.forced else ""
            _answer(connection, number, "superseded", entry.who, f"version {entry.version} was {entry.action}{forced}")
    return entry


def _now(after: datetime | None = None) -> datetime:
    """Return the time, but not before `after`: entries stay ordered if the clock is set back."""
    now = datetime.now(UTC)
    return max(now, after or now)


def _requests(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[tuple[int, Request]]:
    """Return requests with their answers, and their numbers, oldest first."""
    answer = [column for column in answers.c if column is not answers.c.request]
    query = sa.select(requests, *answer).outerjoin_from(requests, answers).where(*conditions).order_by(requests.c.number)
    rows = connection.execute(query).mappings()
    return [(row["number"], Request(**{name: value for name, value in row.items() if name != "number"})) for row in rows]


def _open_request(connection: sa.Connection, run_prefix: str) -> tuple[int, Request]:
    """Return the newest request of a run with its number; raise the errors of `Ledger.answer`."""
    matches = _requests(connection, requests.c.run.startswith(run_prefix, autoescape=True)) if run_prefix else []
    runs = sorted({request.run for _, request in matches})
    if len(runs) > 1:
        raise NotFound(f"{len(runs)} runs start with {run_prefix!r}: {', '.join(runs[:5])}; give more of the id")
    if not matches:
        pending = [request.run[:12] for _, request in _requests(connection) if request.is_open()]
        raise NotFound(f"no run that starts with {run_prefix!r} requested approval; open requests: {', '.join(pending) or 'none'}")
    number, request = matches[-1]
    if request.decision is not None:
        at = f"{request.decided_at:%Y-%m-%dT%H:%MZ}"
        raise BadInput(f"run {request.run} was {request.decision} by {request.who} at {at}: {request.why}")
    if request.expired():
        raise BadInput(f"the request of run {request.run} expired at {request.expires_at:%Y-%m-%dT%H:%MZ}: run again for a new verdict")
    return number, request


def _question(request: Request) -> dict[str, Any]:
    """Return the fields of a request without its times and its answer."""
    others = {"asked_at", "expires_at", *answers.c.keys()}
    return {name: value for name, value in asdict(request).items() if name not in others}


def _answer(connection: sa.Connection, number: int, decision: Answer, who: str, why: str) -> None:
    chain.add(connection, answers, request=number, decision=decision, who=who, why=why, decided_at=_now())
