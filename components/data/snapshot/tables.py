"""Combine files of one format and with the same columns into one table with canonical column names."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from types import ModuleType

from components.artifacts.rows import GIVEN_SPLIT, MARKS, in_order
from components.core.errors import BadSource
from components.core.section import nearest
from components.data.snapshot import delimited, jsonl, parquet
from components.data.snapshot.features import ColumnType
from components.data.snapshot.read_errors import short_list, short_repr
from components.data.snapshot.settings import SnapshotParams

log = logging.getLogger(__name__)

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
"""The format of each extension; files with another one in a folder are not data."""
_NAMED_FORMATS = {**FORMATS, ".json": "json"}  # in a folder, .json files usually describe the data
CONVERTIBLE = "`retune convert FILE rows.jsonl` reads CoNLL, SQuAD, Label Studio, and folders with one text per file"
READERS: dict[str, ModuleType] = {"csv": delimited, "tsv": delimited, "jsonl": jsonl, "json": jsonl, "parquet": parquet}


def format_of(files: Sequence[PurePath], location: str | None = None) -> str:
    """Return the format of the files; messages name `location`, by default the folder of the first file.

    Raises:
        BadSource: a file has an unknown extension, or the files have several formats.
    """
    unknown = [file for file in files if file.suffix.lower() not in _NAMED_FORMATS]
    if unknown:
        where = f"{location}: {unknown[0].name}" if location else unknown[0]
        raise BadSource(f"{where}: unknown extension {unknown[0].suffix!r}; expected {', '.join(_NAMED_FORMATS)}; {CONVERTIBLE}")
    formats = {_NAMED_FORMATS[file.suffix.lower()]: file for file in files}
    if len(formats) > 1:
        names = ", ".join(f"{file.name} ({format_})" for format_, file in sorted(formats.items()))
        raise BadSource(f"{location or files[0].parent}: expected files of one format, found {names}; choose with a glob")
    return next(iter(formats))


def name_columns(file: str, present: Sequence[str], snapshot: SnapshotParams, required: Sequence[str]) -> dict[str, str]:
    """Return the source's name of every canonical column, in canonical order; messages name `file`.

    A column that is not mapped keeps its name, or becomes `source_NAME` if a mapped column uses the name.

    Raises:
        BadSource: a mapped or required column is missing.
    """
    expected = {**{name: name for name in required}, **snapshot.columns}
    if snapshot.split_column is not None:
        expected[GIVEN_SPLIT] = snapshot.split_column
    faults = [f"{file}: {_missing(name, source, snapshot, present)}" for name, source in expected.items() if source not in present]
    if faults:
        raise BadSource("\n".join(faults))
    named = {name: source for name, source in expected.items() if name in snapshot.columns or name == GIVEN_SPLIT}
    renamed, used = set(named), set(named.values())
    for source in present:
        if source not in used:
            name = f"source_{source}" if source in renamed else source
            if name in named or (name != source and name in present):
                both = f"{short_repr(source)} and {short_repr(name)}"
                raise BadSource(f"{file}: the columns {both} would both be named {short_repr(name)}; rename one of them")
            named[name] = source
    return {name: named[name] for name in in_order(list(named))}


def same_columns(first: str, expected: Iterable[str], file: str, present: Iterable[str], optional: Iterable[str] = MARKS) -> None:
    """Raise BadSource if two files of a source have different columns; the order and the `optional` columns may differ."""
    missing = sorted(set(expected) - set(present) - set(optional))
    extra = sorted(set(present) - set(expected) - set(optional))
    if missing or extra:
        differences = [f"lacks {short_list(missing)}"] * bool(missing) + [f"also has {short_list(extra)}"] * bool(extra)
        raise BadSource(f"{file}: expected the same columns as in {first}, but it {' and '.join(differences)}")


def warn_of_types(files: Mapping[str, Mapping[str, ColumnType]]) -> None:
    """Log a warning for each column whose values have different types in `files`, by file name."""
    for name in dict.fromkeys(column for columns in files.values() for column in columns):
        types: dict[str, str] = {}
        for file, columns in files.items():
            if name in columns and columns[name].type:
                types.setdefault(columns[name].type, file)
        if len(types) > 1:
            listed = ", ".join(f"{type_} in {file}" for type_, file in list(types.items())[:4])
            log.warning("the column %s has different types: %s; 7, 7.0 and 7.00 all become the text 7", short_repr(name), listed)


def _missing(canonical: str, source: str, snapshot: SnapshotParams, present: Sequence[str]) -> str:
    similar = nearest(source, list(present))
    if canonical == GIVEN_SPLIT:
        return f"column {short_repr(source)} of snapshot.split_column is missing{similar}"
    if canonical in snapshot.columns:
        return f"column {source!r}, mapped to {canonical} in snapshot.columns, is missing{similar}"
    hint = f"; if it has another name, set snapshot.columns: {{{canonical}: its name}}"
    return f"the required column {source!r} is missing{similar}{hint}"
