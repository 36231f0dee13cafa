"""Select data files by exact name, glob or folder."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from components.data.snapshot.tables import FORMATS

_GLOB_CHARACTERS = "*?["


def is_glob(pattern: str) -> bool:
    """Return whether `pattern` contains a wildcard."""
    return any(character in pattern for character in _GLOB_CHARACTERS)


def literal_prefix(pattern: str) -> str:
    """Return the part of `pattern` before its first wildcard."""
    return pattern[: min((pattern.index(character) for character in _GLOB_CHARACTERS if character in pattern), default=len(pattern))]


def choose(names: Iterable[str], pattern: str) -> list[str]:
    """Return the sorted names that `pattern` selects: an exact name, the data files that match a glob, or those below a folder.

    In a glob, `*` also matches slashes. Below a folder, hidden files are skipped (`_temporary/…`, `.part-0.csv`). An empty pattern
    selects all data files.
    """
    present = sorted(names)
    if pattern in present:
        return [pattern]
    data_files = [name for name in present if PurePosixPath(name).suffix.lower() in FORMATS]
    if is_glob(pattern):
        flat = pattern.replace("**/", "*")  # matches without a folder too
        return [name for name in data_files if fnmatchcase(name, flat)]
    folder = f"{pattern.rstrip('/')}/" if pattern else ""
    below = [name for name in data_files if name.startswith(folder)]
    return [name for name in below if not any(part[0] in "._" for part in name[len(folder) :].split("/") if part)]


def no_match(names: Iterable[str]) -> str:
    """Return the message for an empty selection."""
    present = sorted(names)
    others = f"; found {len(present)} other files, such as {', '.join(present[:3])}" if present else ""
    return f"no file with the extension {', '.join(FORMATS)}{others}"
