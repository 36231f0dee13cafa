"""Bytes to text: the whole file is decoded once before it is read, so that a fault can be named by line and byte."""

import codecs
import stat
from dataclasses import dataclass
from pathlib import Path

from components.data.snapshot.read_errors import Faults

_BLOCK = 1 << 20
_HEAD = 512  # bytes that say what a file is
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x1f\x9d": "compress",
    b"LZIP": "lzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_BINARY = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"FEA1": "a Feather file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"SQLite format 3\x00": "an SQLite database",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a document of an old Excel or Word",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x93NUMPY": "an array of NumPy",
    b"%PDF-": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x80\x02": "a pickle of Python",
    b"\x80\x03": "a pickle of Python",
    b"\x80\x04\x95": "a pickle of Python",
    b"\x80\x05\x95": "a pickle of Python",
}
_POINTER = b"version https://git-lfs.github.com/spec/"
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


def other_format(path: Path) -> str:
    """Say what a path is that is no file, as `a named pipe (FIFO)`; nothing for a file or a folder, or where nothing is."""
    if not path.exists() or path.is_file() or path.is_dir():
        return ""
    mode = path.stat().st_mode
    known = {stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return known.get(stat.S_IFMT(mode), "something else than a file")


def refuse_other(path: Path, faults: Faults, expected: bytes = b"") -> None:
    """Refuse what is no file, has no bytes, or is another format by its first bytes; `expected` are those that a good file begins with.

    Raises:
        BadSource: with what the file is.
    """
    if other := other_format(path):  # to open a pipe would wait for a writer
        faults.add(f"{other}, expected a file: it is read twice. Write what comes from it into a file first")
        faults.settle()
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        faults.add("the file is empty; expected a header and rows")
    elif found := None if expected and head.startswith(expected) else _format_of(head):
        faults.add(found)
    faults.settle()


def _format_of(head: bytes) -> str | None:
    """Return what a file is that begins so, and what to do; None where nothing is known."""
    unpack = "; decompress it first"
    binary = any(byte < 9 for byte in head)  # a header may begin as a format does: ORCID
    for mark, called in _COMPRESSED.items():
        if head.startswith(mark) and (binary or not mark.isascii()):
            return f"the file is compressed ({called}){unpack}"
    if head.startswith(_ZIP):
        return "the file is a zip archive, or a workbook of Excel or LibreOffice, which is one: unpack it, or export it as CSV in UTF-8"
    for mark, called in _BINARY.items():
        if head.startswith(mark) and (binary or not mark.isascii() or mark == b"%PDF-"):
            return f"the file is {called}, and its name ends otherwise: rename it, or export it in the format of its ending"
    if head[257:262] == b"ustar":
        return "the file is a tar archive; unpack it first"
    if head.startswith(_POINTER):
        return "the file is a pointer of Git LFS, and the data are not here: `git lfs pull` brings them"
    if head.lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "the file is HTML or XML, perhaps the page of a login or an error instead of the data"
    return None


def _undecodable(error: UnicodeDecodeError, line: int, start: int, encoding: str) -> Spot:
    before = error.object[: error.start].decode(encoding, errors="replace")
    mark = next((name for mark, name in _MARKS.items() if start == 0 and error.object.startswith(mark)), None)
    other = f"it starts with the mark of {mark}: set snapshot.encoding: {mark}" if mark else "set snapshot.encoding, for example cp1252"
    found = error.object[error.start : error.start + 1].hex()
    return Spot(line + _line_ends(before), start + error.start, f"0x{found} is not {encoding} ({error.reason}); {other}")


def _line_ends(text: str) -> int:
    return text.count("\n")
