"""From the setting to files: one file, a glob, or a folder; all of one format and with the same columns."""

import glob
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from components.artifacts.rows import MARKS, in_order
from components.errors import BadSource
from components.params import nearest
from components.snapshot import delimited, jsonl, parquet
from components.snapshot.settings import SnapshotParams

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
READERS: dict[str, ModuleType] = {"csv": delimited, "tsv": delimited, "jsonl": jsonl, "parquet": parquet}


def find_files(root: Path, source: str) -> list[Path]:
    """Return the files that `source` names, ordered by path.

    Raises:
        BadSource: there are none, or they are not of one known format.
    """
    if "://" in source:
        raise BadSource(f"snapshot.source {source} is an address; expected a file, a glob or a folder")
    path = root / Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in FORMATS and file.name[0] not in "._")
        missing = f"snapshot.source {path}: the folder has no {_endings()} file; folders below it are named by a glob, as {source}/**/*.csv"
    elif path.exists():
        files = [path]
        missing = ""
    else:
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        missing = f"snapshot.source {path}: no such file or folder{_similar(path)}"
    if not files:
        raise BadSource(missing)
    format_of(files)
    return files


def format_of(files: Sequence[Path]) -> str:
    """Return the one format of the files.

    Raises:
        BadSource: a file has an unknown ending, or there are two formats.
    """
    unknown = [file for file in files if file.suffix.lower() not in FORMATS]
    if unknown:
        raise BadSource(f"{unknown[0]}: unknown ending {unknown[0].suffix!r}; expected {_endings()}")
    found = {FORMATS[file.suffix.lower()]: file for file in files}
    if len(found) > 1:
        names = ", ".join(f"{file.name} ({kind})" for kind, file in sorted(found.items()))
        raise BadSource(f"{files[0].parent}: expected files of one format, found {names}; choose with a glob")
    return next(iter(found))


def name_columns(path: Path, found: Sequence[str], snapshot: SnapshotParams, required: Sequence[str]) -> dict[str, str]:
    """Return the source's name of every canonical column, in canonical order.

    A column that is not mapped keeps its name, or becomes `source_NAME` where a mapped column has taken the name.

    Raises:
        BadSource: a column that is mapped or required is not there.
    """
    wanted = {**{name: name for name in required}, **snapshot.columns}
    faults = [
        f"{path}: there is no column {source!r}, which {'snapshot.columns gives as' if canonical in snapshot.columns else 'is needed as'} "
        f"{canonical}{nearest(source, list(found))}"
        + ("" if canonical in snapshot.columns else f"; if it has another name, set snapshot.columns: {{{canonical}: its name}}")
        for canonical, source in wanted.items()
        if source not in found
    ]
    if faults:
        raise BadSource("\n".join(faults))
    taken = set(snapshot.columns.values())
    named = dict(snapshot.columns)
    for source in found:
        if source not in taken:
            name = f"source_{source}" if source in snapshot.columns else source
            if name in named or (name != source and name in found):
                raise BadSource(f"{path}: the columns {source!r} and {name!r} would both be called {name!r}; rename one of them")
            named[name] = source
    return {name: named[name] for name in in_order(list(named))}


def same_columns(first: Path, expected: Sequence[str], path: Path, found: Sequence[str]) -> None:
    """Raise BadSource when two files of a source have other columns; their order is free, and what marks pseudo-labels may be missing."""
    lacks = sorted({*expected} - {*found, *MARKS})
    more = sorted({*found} - {*expected, *MARKS})
    if lacks or more:
        differs = [f"lacks {', '.join(map(repr, lacks))}"] * bool(lacks) + [f"has {', '.join(map(repr, more))} besides"] * bool(more)
        raise BadSource(f"{path}: expected the same columns as in {first.name}, found that it {' and '.join(differs)}")


def _endings() -> str:
    return ", ".join(FORMATS)


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} is not there either"
    names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in FORMATS]
    hint = nearest(path.name, names)
    return hint if hint.startswith("; did you mean") else ""
