"""The ledger itself: appended to by compare-and-swap, asked by model and by moment."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Unpack

import sqlalchemy as sa
import sqlalchemy.exc

from components.core.errors import BadInput, NotFound, RetuneError
from components.core.output_dir import make_private
from components.ledger import chain
from components.ledger.chain import Chain, ChainHead
from components.ledger.records import Action, Answer, Change, Entry, Request, Retraining, StaleVerdict
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
from components.ledger.test_set_use import SHARED, Wear, kept, prior_use

_ASKED = sa.select(requests, answers.c.decision, answers.c.who, answers.c.why, answers.c.decided_at).outerjoin_from(requests, answers)


class Ledger:
    """The ledger at `url`, made if it does not exist. Every row gets a link of the chain in the transaction that writes it.

    Raises (every method):
        NotThere: the file is empty.
        Unavailable: the database is busy or out of reach.
        RetuneError: the file is a folder, not a ledger's database, or damaged.
    """

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        if (path := file_of(self._engine.url)) is not None:
            _make_folder(path.parent)
        prepare(self._engine, chain.begin_over_older)

    def __str__(self) -> str:
        """Return where it is, without a password."""
        return str(file_of(self._engine.url) or self._engine.url)

    def chain(self) -> Chain:
        """Verify the chain over all rows of all models, and return it with its faults."""
        with reading(self._engine) as connection:
            return chain.verify(connection)

    def chain_head(self) -> ChainHead | None:
        """Return the last entry of the chain; None where nothing was written yet."""
        with reading(self._engine) as connection:
            return chain.head(connection)

    def begin_chain(self) -> None:
        """Begin the chain of a ledger in which nothing was written yet, so that it has a head that can be signed."""
        with writing(self._engine) as connection:
            if chain.head(connection) is None:
                chain.begin(connection, chain.RETUNE, "the ledger is new")

    def accept(self, who: str, why: str) -> None:
        """Begin a new chain over all rows as they are now, faults or not, and make the triggers anew; `who` and `why` are kept in it."""
        with writing(self._engine) as connection:
            guard(connection)
            chain.begin(connection, who, why)

    def head(self, model: str) -> Entry | None:
        """Return the entry that made the present champion; None while nothing was promoted."""
        with reading(self._engine) as connection:
            return _head(connection, model)

    def entries(self, model: str) -> list[Entry]:
        """Return every change of champion, oldest first."""
        query = sa.select(promotions).where(promotions.c.model == model).order_by(promotions.c.sequence)
        with reading(self._engine) as connection:
            return [Entry(**row) for row in connection.execute(query).mappings()]

    def at(self, model: str, moment: datetime) -> Entry | None:
        """Return the entry that made who was champion at `moment` (UTC where it names no zone)."""
        query = sa.select(promotions).where(promotions.c.model == model, promotions.c.at <= moment)
        with reading(self._engine) as connection:
            row = connection.execute(query.order_by(promotions.c.sequence.desc()).limit(1)).mappings().first()
        return Entry(**row) if row else None

    def models(self) -> list[str]:
        """Return the names of all models that were promoted, or wait for a person, sorted."""
        query = sa.union(sa.select(promotions.c.model), sa.select(requests.c.model))
        with reading(self._engine) as connection:
            return sorted(connection.execute(query).scalars())

    def append(
        self, model: str, *, expected: int | Literal["any"] | None, request: Request | None = None, **change: Unpack[Change]
    ) -> Entry:
        """Write a change of champion, if the champion is `expected` (None: nobody); in one transaction.

        `request` is the question that a person answers by it: it must still wait. Every other open request of the model is answered, too:
        as approved where it was about this very evidence, else as superseded.

        Raises:
            Outdated: the champion is another one; nothing was written.
            BadInput: the request waits no more, or a person rejected this evidence and `forced` is not set; nothing was written.
        """
        try:
            with writing(self._engine) as connection:
                head = _head(connection, model)
                _check_expected(expected, head, change["action"])
                if request is not None:
                    _check_waits(connection, request, change)
                return _write(connection, model, head, change)
        except sqlalchemy.exc.IntegrityError:  # on a database that let another writer in between
            head = self.head(model)
            raise StaleVerdict(None if expected == "any" else expected, head.version if head else None, change["action"]) from None

    def adopt(self, model: str, changes: Sequence[Change]) -> list[Entry]:
        """Write the champions of a registry that is older than its ledger, all in one transaction; none where there are entries."""
        written: list[Entry] = []
        try:
            with writing(self._engine) as connection:
                if _head(connection, model) is None:
                    for change in changes:
                        written.append(_write(connection, model, written[-1] if written else None, change))
        except sqlalchemy.exc.IntegrityError:  # another process adopted them
            return []
        return written

    def look(
        self,
        model: str,
        test_digest: str,
        candidate_key: str,
        rows: Collection[str] = (),
        others: Mapping[str, Collection[str]] | None = None,
        shared: float = SHARED,
    ) -> Wear:
        """Count that a candidate is judged on a frozen test set; return its number among those judged on these rows, from 1. Idempotent.

        `rows` are the keys of its rows, and `others` those of earlier test sets, by digest, that `unknown_tests` named; `shared` is the
        share of today's rows from which on an earlier look counts whole.
        """
        with writing(self._engine) as connection:
            for digest, keys in {**(others or {}), **({test_digest: rows} if rows else {})}.items():
                if not connection.execute(sa.select(test_rows.c.test_digest).where(test_rows.c.test_digest == digest)).first():
                    chain.add(connection, test_rows, test_digest=digest, row_keys=" ".join(kept(keys)))
            known = _looks(connection, model)
            mine = next((one for one in known if (one.test_digest, one.candidate_key) == (test_digest, candidate_key)), None)
            if mine is None:
                number = 1 + sum(one.test_digest == test_digest for one in known)
                at = _now(known[-1].at if known else None)
                values = {"model": model, "test_digest": test_digest, "number": number, "candidate_key": candidate_key, "at": at}
                chain.add(connection, looks, **values)
                earlier = known
            else:
                earlier = known[: known.index(mine)]
            before = [(one.candidate_key, one.test_digest) for one in earlier if one.candidate_key != candidate_key]
            return prior_use(test_digest, before, _rows(connection), shared)

    def unknown_tests(self, model: str) -> list[str]:
        """Return the digests of the test sets that candidates were judged on and whose rows are not in the ledger."""
        with reading(self._engine) as connection:
            return sorted({one.test_digest for one in _looks(connection, model)} - _rows(connection).keys())

    def looks(self, model: str, test_digest: str, rows: Collection[str] = (), shared: float = SHARED) -> int:
        """Return how many candidates have worn out a frozen test set, whose rows have the keys `rows` where the ledger has none of it."""
        with reading(self._engine) as connection:
            judged = [(one.candidate_key, one.test_digest) for one in _looks(connection, model)]
            known = _rows(connection)
        return prior_use(test_digest, judged, {**({test_digest: kept(rows)} if rows else {}), **known}, shared).number - 1

    def note(self, retraining: Retraining) -> None:
        """Write how a scheduled run ended."""
        with writing(self._engine) as connection:
            chain.add(connection, retrainings, **asdict(retraining))

    def retrainings(self, model: str, last: int = 1, without: Collection[str] = ()) -> list[Retraining]:
        """Return how the last scheduled runs of a model ended, the newest first; those with an outcome of `without` do not count."""
        mine = sa.select(*(column for column in retrainings.c if column.name != "number")).where(retrainings.c.model == model)
        mine = mine.where(retrainings.c.outcome.not_in(without))
        with reading(self._engine) as connection:
            return [Retraining(**row) for row in connection.execute(mine.order_by(retrainings.c.number.desc()).limit(last)).mappings()]

    def ask(self, request: Request) -> Request:
        """Ask a person; the same question again is the one that waits, another question of the same run takes its place."""
        with writing(self._engine) as connection:
            for number, known in _asked(connection, requests.c.run == request.run, answers.c.decision.is_(None)):
                if known.waits() and _question(known) == _question(request):
                    return known
                _answer(connection, number, "superseded", "retune", "the run was judged again")
            chain.add(connection, requests, **_question(request), asked_at=request.asked_at, expires_at=request.expires_at)
        return request

    def answer(self, run_prefix: str, decision: Answer, who: str, why: str) -> Request:
        """Write a person's answer to the newest request of the run that `run_prefix` begins.

        Raises:
            NotThere: no run, or several, that begin so.
            BadInput: the request was answered before, or its time has passed.
        """
        with writing(self._engine) as connection:
            number, request = _open(*_newest(connection, run_prefix))
            decided_at = _answer(connection, number, decision, who, why)
        return replace(request, decision=decision, who=who, why=why, decided_at=decided_at)

    def open_request(self, run_prefix: str) -> Request:
        """Return the request that `answer` would answer, and raise what it would raise."""
        with reading(self._engine) as connection:
            return _open(*_newest(connection, run_prefix))[1]

    def request(self, run_prefix: str) -> Request:
        """Return the newest request of the run that `run_prefix` begins.

        Raises:
            NotThere: no run, or several, that begin so.
        """
        with reading(self._engine) as connection:
            return _newest(connection, run_prefix)[1]

    def rejection(self, model: str, evidence: str | None, verdict_key: str | None = None) -> Request | None:
        """Return the request by which a person said no to this evidence, the newest; None where nobody did.

        With `verdict_key` also to the same verdict under another digest: it has other numbers where a version was registered again.
        """
        with reading(self._engine) as connection:
            return _rejection(connection, model, evidence, verdict_key)

    def requests(self, model: str | None = None) -> list[Request]:
        """Return every request, answered or not, oldest first."""
        only = () if model is None else (requests.c.model == model,)
        with reading(self._engine) as connection:
            return [request for _, request in _asked(connection, *only)]

    def waiting(self, model: str | None = None) -> list[Request]:
        """Return the requests that a person can answer now, oldest first."""
        return [request for request in self.requests(model) if request.waits()]


def _head(connection: sa.Connection, model: str) -> Entry | None:
    query = sa.select(promotions).where(promotions.c.model == model).order_by(promotions.c.sequence.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return Entry(**row) if row else None


def _looks(connection: sa.Connection, model: str) -> list[Any]:
    """Return the looks at a model's test sets, oldest first."""
    query = sa.select(looks).where(looks.c.model == model).order_by(looks.c.at, looks.c.test_digest, looks.c.number)
    return list(connection.execute(query))


def _rows(connection: sa.Connection) -> dict[str, tuple[str, ...]]:
    """Return the keys of the rows of each test set."""
    return {one.test_digest: tuple(one.row_keys.split()) for one in connection.execute(sa.select(test_rows))}


def _check_expected(expected: int | Literal["any"] | None, head: Entry | None, action: Action) -> None:
    found = head.version if head else None
    if expected != "any" and expected != found:
        raise StaleVerdict(expected, found, action)


def _check_waits(connection: sa.Connection, request: Request, change: Change) -> None:
    """Refuse to act on a question that was answered, or asked otherwise, since it was read, or that is about something else."""
    _, found = _open(*_newest(connection, request.run))
    if _question(found) != _question(request) or (change["version"], change.get("evidence")) != (request.version, request.evidence):
        raise BadInput(f"run {request.run} was judged again, and asks something else now: look at it again")


def _rejection(connection: sa.Connection, model: str, evidence: str | None, verdict_key: str | None) -> Request | None:
    known = ((requests.c.evidence, evidence), (requests.c.verdict_key, verdict_key))
    same = sa.or_(sa.false(), *(column == value for column, value in known if value is not None))
    found = _asked(connection, requests.c.model == model, same, answers.c.decision == "rejected")
    return found[-1][1] if found else None


def _write(connection: sa.Connection, model: str, head: Entry | None, change: Change) -> Entry:
    """Write an entry after `head`, and answer what waited."""
    sequence, previous, at = (head.sequence + 1, head.version, _now(head.at)) if head else (1, None, _now())
    entry = Entry(model=model, sequence=sequence, at=at, previous=previous, **change)
    _check_not_rejected(connection, entry)
    chain.add(connection, promotions, **asdict(entry))
    _close_open(connection, entry)
    return entry


def _check_not_rejected(connection: sa.Connection, entry: Entry) -> None:
    if entry.action != "promoted" or entry.forced:
        return
    if (said := _rejection(connection, entry.model, entry.evidence, entry.verdict_key)) is not None:
        raise BadInput(said.refusal())


def _now(after: datetime | None = None) -> datetime:
    """Return the time, never before `after`: a clock that was set back must not bend the order of entries."""
    now = datetime.now(UTC)
    return now if after is None else max(now, after)


def _asked(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[tuple[int, Request]]:
    rows = connection.execute(_ASKED.where(*where).order_by(requests.c.number)).mappings()
    return [(int(row["number"]), _request(row)) for row in rows]


def _request(row: sa.RowMapping | Mapping[str, Any]) -> Request:
    return Request(**{name: value for name, value in row.items() if name != "number"})


def _newest(connection: sa.Connection, run_prefix: str) -> tuple[int, Request]:
    found = _asked(connection, requests.c.run.startswith(run_prefix, autoescape=True)) if run_prefix else []
    runs = sorted({request.run for _, request in found})
    if len(runs) > 1:
        raise NotFound(f"{len(runs)} runs begin with {run_prefix!r}: {', '.join(runs[:5])}; give more of the id")
    if not found:
        waiting = [request.run[:12] for _, request in _asked(connection) if request.waits()]
        raise NotFound(f"no run that begins with {run_prefix!r} asked for approval; waiting: {', '.join(waiting) or 'none'}")
    return found[-1]


def _open(number: int, request: Request) -> tuple[int, Request]:
    if request.decision is not None:
        raise BadInput(f"run {request.run} was {request.decision} by {request.who} at {_minute(request.decided_at)}: {request.why}")
    if request.expired():
        raise BadInput(f"the request of run {request.run} expired at {_minute(request.expires_at)}: run again to judge anew")
    return number, request


def _question(request: Request) -> dict[str, Any]:
    answer = {"asked_at", "expires_at", "decision", "who", "why", "decided_at"}
    return {name: value for name, value in asdict(request).items() if name not in answer}


def _answer(connection: sa.Connection, number: int, decision: Answer, who: str, why: str) -> datetime:
    now = _now()
    chain.add(connection, answers, request=number, decision=decision, who=who, why=why, decided_at=now)
    return now


def _close_open(connection: sa.Connection, entry: Entry) -> None:
    """Answer what is open, expired or not: the champion that those requests were about is none any more."""
    for number, request in _asked(connection, requests.c.model == entry.model, answers.c.decision.is_(None)):
        asked_about = (request.version, request.evidence) == (entry.version, entry.evidence) and entry.action == "promoted"
        if asked_about and not entry.forced and request.waits():
            _answer(connection, number, "approved", entry.who, entry.why)
        else:
            forced = " by force" if entry.forced else ""
            _answer(connection, number, "superseded", entry.who, f"version {entry.version} was {entry.action}{forced}")


def _minute(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ") if moment else "an unknown time"


def _make_folder(folder: Path) -> None:
    try:
        make_private(folder)
    except OSError as error:
        raise RetuneError(f"the ledger's folder {folder} cannot be made: {error.strerror or error}") from error
