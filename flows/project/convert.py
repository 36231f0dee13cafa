"""`retune convert`: write the rows of a file in another format as JSON lines, which snapshots read."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.core.atomic import replacing
from components.core.errors import BadParams, BadSource
from components.data.snapshot.take import read_file
from flows.project.guessing.candidates import flag_columns
from flows.project.guessing.foreign import conversion
from flows.project.guessing.head import read_head

_TRUE = ("1", "true")


def convert(data: Path, out: Path, force: bool = False) -> tuple[str, int]:
    """Write the rows of `data` to `out`, and return the name of the format and the number of rows.

    Raises:
        BadSource: the file has no format that can be converted, or is malformed; `out` is not written.
        BadParams: `out` exists and `force` is not set, or is not a .jsonl file.
    """
    if out.suffix.lower() != ".jsonl":
        raise BadParams(f"{out}: expected the name of a .jsonl file")
    if out.exists() and not force:
        raise BadParams(f"{out} exists; --force replaces it")
    if not data.exists():
        raise BadSource(f"{data}: no such file or folder")
    name, rows = _rows(data)
    count = 0
    with replacing(out) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
        if not count:
            raise BadSource(f"{data} is {name}, but has no rows")
    return name, count


def _rows(data: Path) -> tuple[str, Iterator[Mapping[str, Any]]]:
    if found := conversion(data):
        return found.name, found.rows()
    if flags := _flags(data):
        return "a table with a column of 0 and 1 for each label", _labels_of_flags(data, flags)
    raise BadSource(
        f"{data}: unknown format; expected CoNLL, CoNLL-U, SQuAD, a Label Studio export, fastText, JSON by columns, a folder with "
        "texts in a folder for each class, or columns of 0 and 1; `retune init` reads CSV, TSV, JSONL, JSON arrays and Parquet"
    )


def _flags(data: Path) -> list[str]:
    """Return the columns of 0 and 1 of a table; empty if it is none."""
    try:
        return flag_columns(read_head(data).frame) if data.is_file() else []
    except BadSource:
        return []


def _labels_of_flags(data: Path, flags: list[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a table with `labels`, the list of the flags that are set, instead of the flags; a row without any has none."""
    frame = read_file(data, read_head(data).settings)
    for row in frame.to_dict("records"):
        labels = [name for name in flags if str(row[name]).strip().lower().removesuffix(".0") in _TRUE]
        yield {str(name): None if value != value else value for name, value in row.items() if name not in flags} | {"labels": labels}
