"""One table out of files: all of one format and with the same columns, under canonical names."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from types import ModuleType

from components.artifacts.rows import GIVEN_SPLIT, MARKS, in_order
from components.core.errors import BadSource
from components.core.section import nearest
from components.data.snapshot import delimited, jsonl, parquet
from components.data.snapshot.features import ColumnType
from components.data.snapshot.read_errors import listed, shown
from components.data.snapshot.settings import SnapshotParams

log = logging.getLogger(__name__)

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
READERS: dict[str, ModuleType] = {"csv": delimited, "tsv": delimited, "jsonl": jsonl, "parquet": parquet}


def format_of(files: Sequence[PurePath], place: str | None = None) -> str:
    """Return the one format of the files; messages say that they lie in `place`, which is the folder of the first where none is given.

    Raises:
        BadSource: a file has an unknown ending, or there are two formats.
    """
    unknown = [file for file in files if file.suffix.lower() not in FORMATS]
    if unknown:
        where = f"{place}: {unknown[0].name}" if place else unknown[0]
        raise BadSource(f"{where}: unknown ending {unknown[0].suffix!r}; expected {', '.join(FORMATS)}")
    found = {FORMATS[file.suffix.lower()]: file for file in files}
    if len(found) > 1:
        names = ", ".join(f"{file.name} ({kind})" for kind, file in sorted(found.items()))
        raise BadSource(f"{place or files[0].parent}: expected files of one format, found {names}; choose with a glob")
    return next(iter(found))


def name_columns(called: str, found: Sequence[str], snapshot: SnapshotParams, required: Sequence[str]) -> dict[str, str]:
    """Return the source's name of every canonical column, in canonical order; messages speak of the file as `called`.

    A column that is not mapped keeps its name, or becomes `source_NAME` where a mapped column has taken the name.

    Raises:
        BadSource: a column that is mapped or required is not there.
    """
    wanted = {**{name: name for name in required}, **snapshot.columns}
    if snapshot.split_column is not None:
        wanted[GIVEN_SPLIT] = snapshot.split_column
    faults = [f"{called}: {_lacking(canonical, source, snapshot, found)}" for canonical, source in wanted.items() if source not in found]
    if faults:
        raise BadSource("\n".join(faults))
    named = {name: source for name, source in wanted.items() if name in snapshot.columns or name == GIVEN_SPLIT}
    renamed, taken = set(named), set(named.values())
    for source in found:
        if source not in taken:
            name = f"source_{source}" if source in renamed else source
            if name in named or (name != source and name in found):
                both = f"{shown(source)} and {shown(name)}"
                raise BadSource(f"{called}: the columns {both} would both be called {shown(name)}; rename one of them")
            named[name] = source
    return {name: named[name] for name in in_order(list(named))}


def same_columns(first: str, expected: Iterable[str], called: str, found: Iterable[str], may_lack: Iterable[str] = MARKS) -> None:
    """Raise BadSource when two files of a source have other columns; their order is free, and those that a file `may_lack` are."""
    known, there, free = set(expected), set(found), set(may_lack)
    lacks, more = sorted(known - there - free), sorted(there - known - free)
    if lacks or more:
        differs = [f"lacks {listed(lacks)}"] * bool(lacks) + [f"has {listed(more)} besides"] * bool(more)
        raise BadSource(f"{called}: expected the same columns as in {first}, found that it {' and '.join(differs)}")


def warn_of_types(found: Mapping[str, Mapping[str, ColumnType]]) -> None:
    """Warn of columns whose values are of different types in the files `found`, by the files' names: whole numbers get one text of all."""
    for name in dict.fromkeys(column for columns in found.values() for column in columns):
        kinds: dict[str, str] = {}
        for called, columns in found.items():
            if name in columns and columns[name].kind:
                kinds.setdefault(columns[name].kind, called)
        if len(kinds) > 1:
            types = ", ".join(f"{kind} in {called}" for kind, called in list(kinds.items())[:4])
            log.warning("the column %s is of different types: %s; 7, 7.0 and 7.00 are the same text, 7", shown(name), types)


def _lacking(canonical: str, source: str, snapshot: SnapshotParams, found: Sequence[str]) -> str:
    if canonical == GIVEN_SPLIT:
        return f"there is no column {shown(source)}, which snapshot.split_column names{nearest(source, list(found))}"
    mapped = canonical in snapshot.columns
    hint = "" if mapped else f"; if it has another name, set snapshot.columns: {{{canonical}: its name}}"
    why = "snapshot.columns gives as" if mapped else "is needed as"
    return f"there is no column {source!r}, which {why} {canonical}{nearest(source, list(found))}{hint}"
