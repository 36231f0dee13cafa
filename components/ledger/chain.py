"""The hash chain over the ledger: one link per row, with the hash of the row and of the previous link.

A user with write access to the database can disable the triggers. The chain then detects rows that were changed, added, deleted or moved,
unless all later links are rewritten; the head stored outside the ledger, in MLflow, detects that.
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

KEY = "RETUNE_LEDGER_KEY"  # a secret for signing the head
BEGIN = "begin"  # the entry of the first link of a chain, which has no row
RETUNE = "retune"  # `who` of a chain that no person started
_KEY_CHARACTERS = 16
_ZERO = "0" * 64


@dataclass(frozen=True)
class ChainHead:
    """A link stored outside the ledger: its number and hash, and the hash of the first link of its chain (`begun`).

    `signature` is the HMAC of these with a key, `signer` the name of that key; both are empty if unsigned.
    """

    begun: str
    number: int
    hash: str
    signer: str = ""
    signature: str = ""

    def signed(self) -> "ChainHead":
        """Return the head signed with RETUNE_LEDGER_KEY, or unsigned if no key is set."""
        secret = _secret()
        if secret is None:
            return ChainHead(self.begun, self.number, self.hash)
        return ChainHead(self.begun, self.number, self.hash, _name_of(secret), self._sign(secret))

    def _sign(self, secret: bytes) -> str:
        return hmac.digest(secret, f"{self.begun} {self.number} {self.hash}".encode(), "sha256").hex()

    def as_text(self) -> str:
        """Return the head as text for a tag."""
        return json.dumps({name: value for name, value in vars(self).items() if value})

    @classmethod
    def read(cls, text: str) -> "ChainHead":
        """Parse the text of a tag; return an empty head if it is invalid."""
        try:
            head = cls(**json.loads(text))
        except (ValueError, TypeError):
            return cls("", 0, "")
        valid = all(type(value) is (int if name == "number" else str) for name, value in vars(head).items())
        return head if valid else cls("", 0, "")

    def unsigned_because(self) -> str | None:
        """Return why the signature is invalid for the current key; None if it is valid or no key is set."""
        secret = _secret()
        if secret is None:
            return None
        if not self.signature:
            return f"is not signed, and {KEY} contains the key {_name_of(secret)}"
        if self.signer != _name_of(secret):
            return f"is signed by the key {self.signer}, and {KEY} contains the key {_name_of(secret)}"
        if not hmac.compare_digest(self.signature, self._sign(secret)):
            return f"has a signature that the key {self.signer} did not make"
        return None


def has_key() -> bool:
    """Return whether a signing key is set."""
    return _secret() is not None


def _secret() -> bytes | None:
    value = os.environ.get(KEY, "")
    if not value:
        return None
    if len(value) < _KEY_CHARACTERS:
        raise BadParams(f"{KEY} has {len(value)} characters, expected {_KEY_CHARACTERS} or more random ones: `openssl rand -hex 32`")
    return value.encode()


def _name_of(secret: bytes) -> str:
    return hmac.digest(secret, b"the name of this key", "sha256").hex()[:12]


@dataclass(frozen=True)
class Beginning:
    """The start of a chain; `found` counts older rows, which the chain covers only from then on."""

    number: int
    hash: str
    at: str
    who: str
    why: str
    found: int


@dataclass(frozen=True)
class Chain:
    """The verified chain: hashes of links by number, its start, and all faults; it is valid without faults."""

    links: Mapping[int, str]
    beginning: Beginning | None
    faults: tuple[str, ...]

    def lacks(self, head: ChainHead, kept: str) -> str | None:
        """Return the fault if a head stored elsewhere (`kept`) is not in this chain, else None."""
        stored = f"{kept} names entry {head.number} with the hash {head.hash[:12]}"
        if not self.links:
            return f"the ledger is empty, and {stored}: it was deleted or recreated"
        if self.beginning is None or head.begun != self.beginning.hash:
            return f"{stored}, of another chain: the ledger was deleted and recreated, or replaced by another one"
        if head.number not in self.links:
            return f"the chain ends at entry {max(self.links)}, and {stored}: the last entries were deleted, or an older copy was restored"
        if self.links[head.number] != head.hash:
            return f"entry {head.number} has the hash {self.links[head.number][:12]}, and {stored}: the ledger was rewritten from there on"
        return None


def add(connection: sa.Connection, table: sa.Table, **values: Any) -> None:
    """Insert a row and its link, in the exclusive transaction of the caller; all rows of the ledger are written here."""
    last = _last(connection) or _link(connection, 0, _ZERO, [_beginning_of(RETUNE, "the ledger is new", 0)])
    key = connection.execute(table.insert().values(**values)).inserted_primary_key
    assert key is not None
    conditions = [column == value for column, value in zip(table.primary_key.columns, key, strict=True)]
    row = connection.execute(_stored(table).where(*conditions)).mappings().one()
    _link(connection, *last, [(table.name, _key_of(table, row), _content_of(table, row))])


def begin(connection: sa.Connection, who: str, why: str) -> tuple[int, str]:
    """Start a chain over all existing rows; return number and hash of its last link."""
    rows = list(_rows(connection))
    return _link(connection, *(_last(connection) or (0, _ZERO)), [_beginning_of(who, why, len(rows)), *rows])


def _beginning_of(who: str, why: str, found: int) -> tuple[str, str, str]:
    details = {"id": uuid.uuid4().hex, "at": datetime.now(UTC).isoformat(timespec="seconds"), "who": who, "why": why, "found": found}
    text = json.dumps(details, sort_keys=True, ensure_ascii=False)
    return BEGIN, text, digest_value(text)


def begin_over_older(connection: sa.Connection) -> None:
    """Start the chain of a ledger written by an earlier release."""
    begin(connection, RETUNE, "the ledger is older than its chain")


def _link(connection: sa.Connection, number: int, previous: str, rows: list[tuple[str, str, str]]) -> tuple[int, str]:
    links = []
    for entry, row, content in rows:
        number += 1
        links.append({"number": number, "entry": entry, "row": row, "content": content, "previous": previous})
        links[-1]["hash"] = previous = _hash_of(links[-1])
    connection.execute(chain.insert(), links)
    return number, previous


def _last(connection: sa.Connection) -> tuple[int, str] | None:
    link = connection.execute(sa.select(chain.c.number, chain.c.hash).order_by(chain.c.number.desc()).limit(1)).one_or_none()
    return (int(link.number), str(link.hash)) if link else None


def head(connection: sa.Connection) -> ChainHead | None:
    """Return the last link; None for an empty ledger or a chain without a first link."""
    last = _last(connection)
    begun = connection.execute(sa.select(chain.c.hash).where(chain.c.entry == BEGIN).order_by(chain.c.number.desc()).limit(1)).scalar()
    return ChainHead(str(begun), *last) if last and begun else None


def _hash_of(link: Mapping[str, Any]) -> str:
    return digest_value([link[name] for name in ("number", "entry", "row", "content", "previous")])


def _stored(table: sa.Table) -> sa.Select[Any]:
    """Select the raw rows of a table, so that a value of the wrong type is reported as a fault instead of an error."""
    return sa.select(*(sa.type_coerce(column, sa.types.NullType()).label(column.name) for column in table.c))


def _rows(connection: sa.Connection) -> Iterator[tuple[str, str, str]]:
    """Yield the table, the key and the hash of every row."""
    for table in evidence():
        for row in connection.execute(_stored(table).order_by(*table.primary_key.columns)).mappings():
            yield table.name, _key_of(table, row), _content_of(table, row)


def _key_of(table: sa.Table, row: sa.RowMapping) -> str:
    return json.dumps([row[column.name] for column in table.primary_key.columns], ensure_ascii=False, default=str)


def _content_of(table: sa.Table, row: sa.RowMapping) -> str:
    """Return the hash of a row, the same on every database; null columns are left out, so that a release may add columns."""
    values = {column.name: row[column.name] for column in table.c if row[column.name] is not None}
    booleans = {column.name for column in table.c if isinstance(column.type, sa.Boolean)}
    return digest_value({name: bool(value) if name in booleans and value in (0, 1) else value for name, value in values.items()})


def verify(connection: sa.Connection) -> Chain:
    """Check every link against the previous one, every row against its link, and the triggers."""
    links = connection.execute(sa.select(chain).order_by(chain.c.number)).mappings().all()
    first = max((index for index, link in enumerate(links) if link["entry"] == BEGIN), default=None)
    current = links[first or 0 :]  # the last chain covers all earlier rows
    faults = [f"the trigger {name} is missing or changed: the database allows changes of entries" for name in unguarded(connection)]
    faults += _broken(current)
    if links and first is None:
        faults.append("the chain has no beginning: its first entries were deleted")
    faults += _differing(connection, current)
    beginning = _beginning(current) if first is not None else None
    return Chain({int(link["number"]): str(link["hash"]) for link in links}, beginning, tuple(faults))


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
    contents: dict[tuple[str, str], str] = {}
    for link in links:
        if link["entry"] == BEGIN:
            continue
        name = (str(link["entry"]), str(link["row"]))
        if name in contents:  # a second link would hide a change of the row
            yield f"{_row_name(*name)} has a second entry in the chain, number {link['number']}: a row is written once and never changed"
        contents.setdefault(name, str(link["content"]))
    for table, key, content in _rows(connection):
        written = contents.pop((table, key), None)
        if written is None:
            yield f"{_row_name(table, key)} is not in the chain: it was not written by Retune, or by a release without a chain"
        elif written != content:
            yield f"{_row_name(table, key)} was changed since it was written"
    for table, key in contents:
        yield f"{_row_name(table, key)} was deleted"


def _row_name(table: str, key: str) -> str:
    try:
        return f"{table} {' '.join(map(str, json.loads(key)))}"
    except (ValueError, TypeError):  # the link was changed
        return f"{table} {key}"


def _beginning(links: Any) -> Beginning:
    details: dict[str, Any] = {}
    with suppress(ValueError, TypeError):  # invalid JSON is reported by its hash
        details = dict(json.loads(links[0]["row"]))
    texts = {name: str(details.get(name, "")) for name in ("at", "who", "why")}
    found = details.get("found")
    return Beginning(int(links[0]["number"]), str(links[0]["hash"]), found=found if isinstance(found, int) else 0, **texts)
