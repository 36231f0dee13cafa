"""Content hashes: of files, of folders, of values, and of the code that is loaded."""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path, exclude: Iterable[str] = ()) -> str:
    """Return a sha256 over the relative names and bytes of all files below `folder`, but for what `exclude` names: files, folders."""
    left_out = set(exclude)
    files = sorted((path.relative_to(folder), path) for path in folder.rglob("*") if path.is_file())
    return digest_value([(name.as_posix(), digest_file(path)) for name, path in files if left_out.isdisjoint(name.parts)])


def digest_value(value: object) -> str:
    """Return the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_code(*folders: str) -> str:
    """Return a sha256 over the sources of every module of `components` that is loaded in this process, and over all below `folders`.

    Inside a step this is the step's own import closure, so a study or a checkpoint made by other code is not continued. What is
    loaded only when it is needed, as the torch half of a task, must stand in one of `folders`, relative to `components`.
    The launcher is left out: it starts the code and does not shape a result.
    """
    home = Path(__file__).parents[1]
    loaded = {
        Path(str(module.__file__))
        for name, module in sys.modules.items()
        if name.split(".")[0] == "components" and not name.endswith("__main__") and getattr(module, "__file__", None)
    }
    below = {path for folder in folders for path in (home / folder).rglob("*.py")}
    return digest_value({str(path.relative_to(home)) if home in path.parents else path.name: digest_file(path) for path in loaded | below})
