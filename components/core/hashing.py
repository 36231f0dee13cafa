"""Content hashes of files, folders, values and the loaded code."""

import hashlib
import json
import sys
from collections.abc import Collection
from pathlib import Path

_HOME = Path(__file__).parents[1]


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path, exclude: Collection[str] = ()) -> str:
    """Return a sha256 over the relative names and bytes of all files in `folder`, without the files and folders named in `exclude`."""
    files = sorted((path.relative_to(folder), path) for path in folder.rglob("*") if path.is_file())
    return digest_value([(name.as_posix(), digest_file(path)) for name, path in files if set(exclude).isdisjoint(name.parts)])


def digest_value(value: object) -> str:
    """Return the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_code(*folders: str) -> str:
    """Return a sha256 over the sources of all loaded modules of `components` and of all modules in `folders`.

    Inside a step this is the step's import closure, so that a study or checkpoint of other code is not resumed. Lazily loaded
    modules, such as the torch half of a task, must be in one of `folders`, relative to `components`. The launcher is left out,
    since it does not affect results.
    """
    loaded = {
        Path(str(module.__file__))
        for name, module in sys.modules.items()
        if name.split(".")[0] == "components" and not name.endswith("__main__") and getattr(module, "__file__", None)
    }
    return _digest_modules(loaded | _modules(folders))


def digest_sources(*folders: str) -> str:
    """Return a sha256 over the sources of all modules in `folders`, relative to `components`: the same value in every step."""
    return _digest_modules(_modules(folders))


def _modules(folders: Collection[str]) -> set[Path]:
    return {path for folder in folders for path in (_HOME / folder).rglob("*.py")}


def _digest_modules(paths: Collection[Path]) -> str:
    return digest_value({str(path.relative_to(_HOME)) if _HOME in path.parents else path.name: digest_file(path) for path in paths})
