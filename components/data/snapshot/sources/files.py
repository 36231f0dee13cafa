"""Local files, read where they lie: one file, a glob, or a folder."""

import glob
import os
from pathlib import Path

from components.core.errors import BadSource
from components.core.section import did_you_mean
from components.data.snapshot.decoding import other_format
from components.data.snapshot.features import folders_of
from components.data.snapshot.given_splits import SPLITS
from components.data.snapshot.sources import FetchedFiles, SourceRequest
from components.data.snapshot.tables import FORMATS, format_of

SETTINGS: frozenset[str] = frozenset()

_FOLDERS = {"data", *SPLITS}  # in which a data set of the hub has its files


def bring(asked: SourceRequest, folder: Path) -> FetchedFiles:
    """Return the files themselves; `folder` stays empty.

    Raises:
        BadSource: there are none, or they are not of one known format.
    """
    files = find_files(asked.root, asked.address)
    place, kind = _place(asked.root, asked.address), format_of(files)
    named = {path: str(path) for path in files}
    return FetchedFiles(named, place, kind, folders_of(files), lambda: find_files(asked.root, asked.address))


def look(asked: SourceRequest) -> str:
    """Return how many files there are, and how large they are; raises as `bring` does."""
    files = find_files(asked.root, asked.address)
    return f"{len(files)} file(s), {sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


def find_files(root: Path, source: str) -> list[Path]:
    """Return the files that `source` names, ordered by path; of a folder without data files those in `data` and in folders of splits.

    Raises:
        BadSource: there are none, or they are not of one known format.
    """
    path = root / Path(source).expanduser()
    try:
        if other := other_format(path):
            raise BadSource(
                f"snapshot.source {path}: {other}, expected a file: it is read twice. Write what comes from it into a file first"
            )
        files, missing = _found(path, source)
    except OSError as error:
        raise BadSource(f"snapshot.source {path} cannot be read: {error.strerror or error}") from error
    if not files:
        raise BadSource(missing)
    format_of(files)
    return files


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in FORMATS and file.name[0] not in "._")


def _found(path: Path, source: str) -> tuple[list[Path], str]:
    """Return the files, and what to say where there are none."""
    if path.is_dir():
        files = _data_files(path) or [
            file for folder in sorted(path.iterdir()) if folder.is_dir() and folder.name in _FOLDERS for file in _data_files(folder)
        ]
        hint = f"folders below it are named by a glob, as {source}/**/*.csv"
        return files, f"snapshot.source {path}: the folder has no {', '.join(FORMATS)} file; {hint}"
    if path.exists():
        return [path], ""
    files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    return files, f"snapshot.source {path}: no such file or folder{_similar(path)}"


def _place(root: Path, source: str) -> str:
    """Return the source relative to the workspace where it lies inside, so that a clone elsewhere has the same manifest."""
    path, base = (Path(os.path.abspath(each)) for each in (root / Path(source).expanduser(), root))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else Path(source).as_posix()


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} is not there either"
    names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in FORMATS]
    return did_you_mean(path.name, names)
