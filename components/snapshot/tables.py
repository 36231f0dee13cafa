"""One table out of files: all of one format and with the same columns, under canonical names."""

from collections.abc import Sequence
from pathlib import PurePath
from types import ModuleType

from components.artifacts.rows import MARKS, in_order
from components.errors import BadSource
from components.params import nearest
from components.snapshot import delimited, jsonl, parquet
from components.snapshot.settings import SnapshotParams

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
    faults = [f"{called}: {_lacking(canonical, source, snapshot, found)}" for canonical, source in wanted.items() if source not in found]
    if faults:
        raise BadSource("\n".join(faults))
    taken = set(snapshot.columns.values())
    named = dict(snapshot.columns)
    for source in found:
        if source not in taken:
            name = f"source_{source}" if source in snapshot.columns else source
            if name in named or (name != source and name in found):
                raise BadSource(f"{called}: the columns {source!r} and {name!r} would both be called {name!r}; rename one of them")
            named[name] = source
    return {name: named[name] for name in in_order(list(named))}


def same_columns(first: str, expected: Sequence[str], called: str, found: Sequence[str]) -> None:
    """Raise BadSource when two files of a source have other columns; their order is free, and what marks pseudo-labels may be missing."""
    lacks = sorted({*expected} - {*found, *MARKS})
    more = sorted({*found} - {*expected, *MARKS})
    if lacks or more:
        differs = [f"lacks {', '.join(map(repr, lacks))}"] * bool(lacks) + [f"has {', '.join(map(repr, more))} besides"] * bool(more)
        raise BadSource(f"{called}: expected the same columns as in {first}, found that it {' and '.join(differs)}")


def _lacking(canonical: str, source: str, snapshot: SnapshotParams, found: Sequence[str]) -> str:
    mapped = canonical in snapshot.columns
    hint = "" if mapped else f"; if it has another name, set snapshot.columns: {{{canonical}: its name}}"
    why = "snapshot.columns gives as" if mapped else "is needed as"
    return f"there is no column {source!r}, which {why} {canonical}{nearest(source, list(found))}{hint}"
