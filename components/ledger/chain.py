"""The chain over the ledger: a link for every row, with the row's hash and the hash of the link before.

Whoever can write the database can switch its triggers off. What is changed, added, deleted or moved behind the ledger's back shows here,
unless every link after it is made anew; that shows where the head is kept outside the ledger, in MLflow.
"""

import hmac
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from components.core.errors import BadParams
from components.core.hashing import digest_value
from components.ledger.tables import chain, evidence, unguarded

KEY = "RETUNE_LEDGER_KEY"  # a secret that signs the head
BEGIN = "begin"  # the entry of a link that stands for no row: from here on, a chain covers what was found and what was written after
RETUNE = "retune"  # who began a chain, where no person did
_KEY_CHARACTERS = 16
_ZERO = "0" * 64


@dataclass(frozen=True)
class ChainHead:
    """A link that is kept outside the ledger: its number and hash, and the hash of the link that began its chain.

    `signature` is the HMAC of these under a key, `signer` the name of that key; both are empty where nobody signed.
    """

    begun: str
    number: int
    hash: str
    signer: str = ""
    signature: str = ""

    def signed(self) -> "ChainHead":
        """Return it with a signature by the key of RETUNE_LEDGER_KEY; unsigned where none is set."""
        secret = _secret()
        if secret is None:
            return ChainHead(self.begun, self.number, self.hash)
        return ChainHead(self.begun, self.number, self.hash, _name_of(secret), self._sign(secret))

    def _sign(self, secret: bytes) -> str:
        return hmac.digest(secret, f"{self.begun} {self.number} {self.hash}".encode(), "sha256").hex()

    def as_text(self) -> str:
        """Return it as the text of a tag."""
        return json.dumps({name: value for name, value in vars(self).items() if value})

    @classmethod
    def read(cls, text: str) -> "ChainHead":
        """Return the head that a tag holds; one of nothing where the tag cannot be read."""
        try:
            found = cls(**json.loads(text))
        except (ValueError, TypeError):
            return cls("", 0, "")
        kinds = {"number": int}
        return found if all(type(value) is kinds.get(name, str) for name, value in vars(found).items()) else cls("", 0, "")

    def unsigned_because(self) -> str | None:
        """Return why the signature does not count under the key that is set here; None where it does, or no key is set."""
        secret = _secret()
        if secret is None:
            return None
        if not self.signature:
            return f"is not signed, and {KEY} holds the key {_name_of(secret)}"
        if self.signer != _name_of(secret):
            return f"is signed by the key {self.signer}, and {KEY} holds the key {_name_of(secret)}"
        if not hmac.compare_digest(self.signature, self._sign(secret)):
            return f"has a signature that the key {self.signer} did not make"
        return None


def has_key() -> bool:
    """Say whether a key is set that signs heads."""
    return _secret() is not None


def _secret() -> bytes | None:
    value = os.environ.get(KEY, "")
    if not value:
        return None
    if len(value) < _KEY_CHARACTERS:
        raise BadParams(
            f"{KEY} has {len(value)} characters, expected {_KEY_CHARACTERS} or more that nobody can guess: `openssl rand -hex 32`"
        )
    return value.encode()


def _name_of(secret: bytes) -> str:
    return hmac.digest(secret, b"the name of this key", "sha256").hex()[:12]


@dataclass(frozen=True)
class Beginning:
    """How a chain began: `found` rows were older than the chain, and are only trusted as they were found."""

    number: int
    hash: str
    at: str
    who: str
    why: str
    found: int


@dataclass(frozen=True)
class Chain:
    """What the links amount to: each link's hash by its number, how the chain began, and every fault; no fault is a good chain."""

    links: Mapping[int, str]
    beginning: Beginning | None
    faults: tuple[str, ...]

    def lacks(self, head: ChainHead, kept: str) -> str | None:
        """Return what is wrong where a head that is kept elsewhere, in `kept`, is not in this chain; None where it is."""
        called = f"{kept} names entry {head.number} with the hash {head.hash[:12]}"
        if not self.links:
            return f"the ledger is empty, and {called}: it was deleted, or begun anew"
        if self.beginning is None or head.begun != self.beginning.hash:
            return f"{called}, of another chain: the ledger was deleted and begun anew, or another ledger was put in its place"
        if head.number not in self.links:
            return f"the chain ends at entry {max(self.links)}, and {called}: the last entries were deleted, or an older copy was put back"
        if self.links[head.number] != head.hash:
            return (
                f"entry {head.number} has the hash {self.links[head.number][:12]}, and {called}: the ledger was written anew from there on"
            )
        return None


def add(connection: sa.Connection, table: sa.Table, **values: Any) -> None:
    """Insert a row and its link. Every row of the ledger is written here, in the caller's transaction, which is alone with the ledger."""
    last = _last(connection) or _link(connection, 0, _ZERO, [_beginning_of(RETUNE, "the ledger is new", 0)])
    made = connection.execute(table.insert().values(**values)).inserted_primary_key
    assert made is not None
    mine = [column == value for column, value in zip(table.primary_key.columns, made, strict=True)]
    row = connection.execute(_stored(table).where(*mine)).mappings().one()
    _link(connection, *last, [(table.name, _key_of(table, row), _content_of(table, row))])


def begin(connection: sa.Connection, who: str, why: str) -> tuple[int, str]:
    """Begin a chain over all rows that are there, and return number and hash of its last link."""
    rows = [(table.name, _key_of(table, row), _content_of(table, row)) for table in evidence() for row in _rows(connection, table)]
    number, previous = _last(connection) or (0, _ZERO)
    return _link(connection, number, previous, [_beginning_of(who, why, len(rows)), *rows])


def _beginning_of(who: str, why: str, found: int) -> tuple[str, str, str]:
    said = {"id": uuid.uuid4().hex, "at": datetime.now(UTC).isoformat(timespec="seconds"), "who": who, "why": why, "found": found}
    text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    return BEGIN, text, digest_value(text)


def begin_over_older(connection: sa.Connection) -> None:
    """Begin the chain of a ledger that an earlier release wrote."""
    begin(connection, RETUNE, "the ledger is older than its chain")


def _link(connection: sa.Connection, number: int, previous: str, what: list[tuple[str, str, str]]) -> tuple[int, str]:
    links = []
    for entry, row, content in what:
        number += 1
        links.append({"number": number, "entry": entry, "row": row, "content": content, "previous": previous})
        links[-1]["hash"] = previous = _hash_of(links[-1])
    connection.execute(chain.insert(), links)
    return number, previous


def _last(connection: sa.Connection) -> tuple[int, str] | None:
    found = connection.execute(sa.select(chain.c.number, chain.c.hash).order_by(chain.c.number.desc()).limit(1)).one_or_none()
    return (int(found.number), str(found.hash)) if found else None


def head(connection: sa.Connection) -> ChainHead | None:
    """Return the last link; None where nothing was written yet, or the chain has no beginning."""
    last = _last(connection)
    begun = connection.execute(sa.select(chain.c.hash).where(chain.c.entry == BEGIN).order_by(chain.c.number.desc()).limit(1)).scalar()
    return ChainHead(str(begun), *last) if last and begun else None


def _hash_of(link: Mapping[str, Any]) -> str:
    return digest_value([link[name] for name in ("number", "entry", "row", "content", "previous")])


def _stored(table: sa.Table) -> sa.Select[Any]:
    """Select a table's rows as the database holds them: what cannot be read as its type is a fault to be told, and no error."""
    return sa.select(*(sa.type_coerce(column, sa.types.NullType()).label(column.name) for column in table.c))


def _rows(connection: sa.Connection, table: sa.Table) -> Iterator[sa.RowMapping]:
    yield from connection.execute(_stored(table).order_by(*table.primary_key.columns)).mappings()


def _key_of(table: sa.Table, row: sa.RowMapping) -> str:
    return json.dumps([row[column.name] for column in table.primary_key.columns], ensure_ascii=False, default=str)


def _content_of(table: sa.Table, row: sa.RowMapping) -> str:
    """Return the hash of a row, the same on every database; a column without a value is left out, so that a release may add one."""
    values = {column.name: row[column.name] for column in table.c if row[column.name] is not None}
    booleans = {column.name for column in table.c if isinstance(column.type, sa.Boolean)}
    return digest_value({name: bool(value) if name in booleans and value in (0, 1) else value for name, value in values.items()})


def verify(connection: sa.Connection) -> Chain:
    """Compare every link with the one before it, every row with its link, and the triggers with ours."""
    links = connection.execute(sa.select(chain).order_by(chain.c.number)).mappings().all()
    first = max((place for place, link in enumerate(links) if link["entry"] == BEGIN), default=None)
    mine = links[first or 0 :]  # what was linked before the last beginning was found there, as it is
    faults = [f"the trigger {name} is missing or changed: the database lets entries be changed" for name in unguarded(connection)]
    faults += _broken(mine)
    if links and first is None:
        faults.append("the chain has no beginning: its first entries were deleted")
    faults += _differing(connection, mine)
    return Chain({int(link["number"]): str(link["hash"]) for link in links}, _beginning(mine) if first is not None else None, tuple(faults))


def _broken(links: Any) -> Iterator[str]:
    for link in links:
        if link["hash"] != _hash_of(link) or (link["entry"] == BEGIN and link["content"] != digest_value(link["row"])):
            yield f"entry {link['number']} of the chain was changed"
    for before, link in pairwise(links):
        if link["number"] != before["number"] + 1:
            yield f"entries between {before['number']} and {link['number']} of the chain were deleted"
        elif link["previous"] != before["hash"]:
            yield f"entry {link['number']} of the chain does not follow entry {before['number']}: one of them was changed, or their order"


def _differing(connection: sa.Connection, links: Any) -> Iterator[str]:
    known: dict[tuple[str, str], str] = {}
    for link in links:
        if link["entry"] == BEGIN:
            continue
        name = (str(link["entry"]), str(link["row"]))
        if name in known:  # a row is written once: a second link would stand for what it was changed to
            yield f"{_called(*name)} has a second entry in the chain, number {link['number']}: a row is written once and never changed"
        known.setdefault(name, str(link["content"]))
    for table in evidence():
        for row in _rows(connection, table):
            key = _key_of(table, row)
            content = known.pop((table.name, key), None)
            if content is None:
                row_name = _called(table.name, key)
                yield f"{row_name} is in no entry of the chain: it was not written by Retune, or by a release without a chain"
            elif content != _content_of(table, row):
                yield f"{_called(table.name, key)} was changed since it was written"
    for entry, key in known:
        yield f"{_called(entry, key)} was deleted"


def _called(table: str, key: str) -> str:
    try:
        return f"{table} {' '.join(map(str, json.loads(key)))}"
    except (ValueError, TypeError):  # a link that was changed
        return f"{table} {key}"


def _beginning(links: Any) -> Beginning:
    said: dict[str, Any] = {}
    with suppress(ValueError, TypeError):  # what cannot be read is a fault by its hash
        said = dict(json.loads(links[0]["row"]))
    words = {name: str(said.get(name, "")) for name in ("at", "who", "why")}
    found = said.get("found")
    return Beginning(int(links[0]["number"]), str(links[0]["hash"]), found=found if isinstance(found, int) else 0, **words)
