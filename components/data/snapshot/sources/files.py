"""Local files, read in place: one file, a glob, or a folder."""

import glob
import os
from pathlib import Path

from components.core.errors import BadSource
from components.core.section import did_you_mean
from components.data.snapshot.decoding import NOT_A_FILE, special_file_type
from components.data.snapshot.features import card_folders
from components.data.snapshot.given_splits import SPLIT_WORDS
from components.data.snapshot.sources import FetchedFiles, SourceRequest
from components.data.snapshot.tables import CONVERTIBLE, FORMATS, format_of

SETTINGS: frozenset[str] = frozenset()

_FOLDERS = {"data", *SPLIT_WORDS}  # folders with the files of a hub dataset


def fetch(request: SourceRequest, folder: Path) -> FetchedFiles:
    """Return the files themselves; `folder` stays empty.

    Raises:
        BadSource: no file matches, or the files do not have one supported format.
    """
    files = find_files(request.root, request.address)
    named = {path: str(path) for path in files}
    source = _portable_path(request.root, request.address)
    return FetchedFiles(named, source, format_of(files), card_folders(files), lambda: find_files(request.root, request.address))


def describe(request: SourceRequest) -> str:
    """Return the number and size of the files; raises as `fetch` does."""
    files = find_files(request.root, request.address)
    return f"{len(files)} file(s), {sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


def find_files(root: Path, source: str) -> list[Path]:
    """Return the files of `source`, ordered by path; for a folder without data files, those in `data` and in folders of splits.

    Raises:
        BadSource: no file matches, or the files do not have one supported format.
    """
    path = root / Path(source).expanduser()
    try:
        if special := special_file_type(path):
            raise BadSource(f"snapshot.source {path}: {special}{NOT_A_FILE}")
        files = _match_files(path, source)
    except OSError as error:
        raise BadSource(f"snapshot.source {path} cannot be read: {error.strerror or error}") from error
    format_of(files)
    return files


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in FORMATS and file.name[0] not in "._")


def _match_files(path: Path, source: str) -> list[Path]:
    if path.is_dir():
        folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and folder.name in _FOLDERS)
        if files := _data_files(path) or [file for folder in folders for file in _data_files(folder)]:
            return files
        hint = f"to read subfolders, use a glob such as {source}/**/*.csv; {CONVERTIBLE}"
        raise BadSource(f"snapshot.source {path}: the folder contains no {', '.join(FORMATS)} file; {hint}")
    if path.exists():
        return [path]
    if files := sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()):
        return files
    raise BadSource(f"snapshot.source {path}: no such file or folder{_similar(path)}")


def _portable_path(root: Path, source: str) -> str:
    """Return a source inside the workspace relative to it, so that every clone writes the same manifest."""
    path, base = (Path(os.path.abspath(name)) for name in (root / Path(source).expanduser(), root))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else Path(source).as_posix()


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in FORMATS]
    return did_you_mean(path.name, names)
