"""Decode the whole file once before it is read, so that a fault is reported with its line and byte, and detect other formats."""

import codecs
import stat
from pathlib import Path

from components.data.snapshot.read_errors import Faults

_BLOCK = 1 << 20
_HEAD = 512  # bytes that identify the format
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
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel or Word document",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"%PDF-": "a PDF",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04\x95": "a Python pickle",
    b"\x80\x05\x95": "a Python pickle",
}
NOT_A_FILE = ", expected a file, because it is read twice; write its content to a file first"
_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def codec_with_bom(encoding: str) -> str:
    """Return the codec that accepts a byte-order mark too."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def first_decoding_fault(path: Path, encoding: str) -> tuple[int, str] | None:
    """Return the first line, from 1, that cannot be decoded or contains a NUL, and the fault; None if the whole file is text."""
    decoder = codecs.getincrementaldecoder(codec_with_bom(encoding))()
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
                message = f"byte {byte}: a NUL byte: the file is damaged or has another encoding (utf-16?)"
                return line + before.count("\n"), message
            if not block:
                return None
            line += text.count("\n")
            offset += len(block)


def special_file_type(path: Path) -> str:
    """Return the type of a path that is neither a file nor a folder, e.g. `a named pipe (FIFO)`; else an empty text."""
    if not path.exists() or path.is_file() or path.is_dir():
        return ""
    types = {stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return types.get(stat.S_IFMT(path.stat().st_mode), "not a regular file")


def check_file_format(path: Path, faults: Faults, expected: bytes = b"") -> None:
    """Refuse a special file, an empty file, or a file of another format; a good file may start with the bytes `expected`.

    Raises:
        BadSource: names the detected format.
    """
    if special := special_file_type(path):  # opening a pipe would wait for a writer
        faults.refuse(f"{special}{NOT_A_FILE}")
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        faults.refuse("the file is empty; expected a header and rows")
    if fault := None if expected and head.startswith(expected) else _format_fault(head):
        faults.refuse(fault)


def _format_fault(head: bytes) -> str | None:
    """Return the format of a file that starts with `head` and the fix; None if the format is not recognised."""
    binary = any(byte < 9 for byte in head)  # a CSV header may start like a format: ORCID
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic) and (binary or not magic.isascii()):
            return f"the file is compressed ({name}); decompress it first"
    if head.startswith(_ZIP):
        return "the file is a zip archive or an Excel or LibreOffice workbook: unpack it, or export it as CSV in UTF-8"
    for magic, name in _BINARY.items():
        if head.startswith(magic) and (binary or not magic.isascii() or magic == b"%PDF-"):
            return f"the file is {name}, which does not match its extension: rename it, or export it in the format of its extension"
    if head[257:262] == b"ustar":
        return "the file is a tar archive; unpack it first"
    if head.startswith(_POINTER):
        return "the file is a Git LFS pointer without the data; run `git lfs pull`"
    if head.lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "the file is HTML or XML, perhaps a login or error page instead of the data"
    return None


def _undecodable(error: UnicodeDecodeError, line: int, start: int, encoding: str) -> tuple[int, str]:
    before = error.object[: error.start].decode(encoding, errors="replace")
    bom = next((name for mark, name in _MARKS.items() if start == 0 and error.object.startswith(mark)), None)
    fix = f"it starts with the byte-order mark of {bom}: set snapshot.encoding: {bom}" if bom else "set snapshot.encoding, e.g. cp1252"
    byte = error.object[error.start : error.start + 1].hex()
    return line + before.count("\n"), f"byte {start + error.start}: 0x{byte} is not {encoding} ({error.reason}); {fix}"
