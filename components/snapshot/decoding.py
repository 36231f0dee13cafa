"""Bytes to text: the whole file is decoded once before it is read, so that a fault can be named by line and byte."""

import codecs
from dataclasses import dataclass
from pathlib import Path

from components.snapshot.faults import Faults

_BLOCK = 1 << 20
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Spot:
    """A place in a file that cannot be read: `line` counts from 1, `byte` from 0."""

    line: int
    byte: int
    what: str


def codec(encoding: str) -> str:
    """Return the codec that also accepts a byte-order mark."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def first_fault(path: Path, encoding: str) -> Spot | None:
    """Return where the file stops being text of this encoding, or holds a NUL."""
    decoder = codecs.getincrementaldecoder(codec(encoding))()
    line, offset = 1, 0
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return _undecodable(error, line, offset + len(block) - len(error.object), encoding)
            if "\0" in text:
                before = text[: text.index("\0")]
                byte = offset + max(block.find(b"\0"), 0)
                return Spot(line + _line_ends(before), byte, "a NUL byte: the file is damaged, or its encoding is another one (utf-16?)")
            if not block:
                return None
            line += _line_ends(text)
            offset += len(block)


def refuse_empty(path: Path, faults: Faults) -> None:
    """Raise BadSource when the file has no bytes."""
    if path.stat().st_size == 0:
        faults.add("the file is empty; expected a header and rows")
        faults.settle()


def _undecodable(error: UnicodeDecodeError, line: int, start: int, encoding: str) -> Spot:
    before = error.object[: error.start].decode(encoding, errors="replace")
    mark = next((name for mark, name in _MARKS.items() if start == 0 and error.object.startswith(mark)), None)
    other = f"it starts with the mark of {mark}: set snapshot.encoding: {mark}" if mark else "set snapshot.encoding, for example cp1252"
    found = error.object[error.start : error.start + 1].hex()
    return Spot(line + _line_ends(before), start + error.start, f"0x{found} is not {encoding} ({error.reason}); {other}")


def _line_ends(text: str) -> int:
    return text.count("\n")
