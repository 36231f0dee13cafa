"""Which of the many names below an address are its data: one that is named, those that a glob matches, or all in a folder."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from components.data.snapshot.tables import FORMATS

_MAGIC = "*?["


def is_glob(wanted: str) -> bool:
    """Say whether `wanted` is a pattern rather than a name."""
    return any(character in wanted for character in _MAGIC)


def literal(wanted: str) -> str:
    """Return what all names begin with that `wanted` can match."""
    return wanted[: min((wanted.index(character) for character in _MAGIC if character in wanted), default=len(wanted))]


def choose(names: Iterable[str], wanted: str) -> list[str]:
    """Return, sorted, the names that `wanted` means.

    One that is exactly so; else all with a known ending that match the glob, in which a star also stands for what has slashes; or
    all below the folder, but for those that a writer has hidden (`_temporary/…`, `.part-0.csv`). No `wanted` is the whole.
    """
    known = sorted(names)
    if wanted in known:
        return [wanted]
    readable = [name for name in known if PurePosixPath(name).suffix.lower() in FORMATS]
    if is_glob(wanted):
        pattern = wanted.replace("**/", "*")  # which may stand for no folder at all
        return [name for name in readable if fnmatchcase(name, pattern)]
    folder = f"{wanted.rstrip('/')}/" if wanted else ""
    below = [name for name in readable if name.startswith(folder)]
    return [name for name in below if not any(part[0] in "._" for part in name[len(folder) :].split("/") if part)]


def nothing(names: Iterable[str]) -> str:
    """Say what there is instead, where nothing was chosen."""
    known = sorted(names)
    there = f"; there are {len(known)} others, as {', '.join(known[:3])}" if known else ""
    return f"nothing there ends in {', '.join(FORMATS)}{there}"
