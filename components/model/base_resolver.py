"""Finds a base model: in an installed package, the hub's cache, a folder, the registry, or pinned in a workspace.

The base of a version that is stored as an adapter is identified by the recorded hashes alone.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from components.artifacts.manifest import OTHERS, AdapterManifest, FilePart
from components.core.errors import BadModel, RetuneError, first_line
from components.core.hashing import digest_file

BASE, PROJECT = "RETUNE_BASE", "RETUNE_PROJECT"
"""Environment variables: folders with the base, and the project whose workspaces are searched."""

LACKING = "stored as an adapter, and its base is missing"
"""Part of the message about a missing base, which is not a fault of the version. Stored packages contain it: do not change it."""

PACKAGE, REGISTERED = "package:", "models:/"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")

Registered = Callable[[str], Path]
"""Given models:/NAME/VERSION, returns the folder of that model."""


def find_base(record: AdapterManifest, registered: Registered, uri: str) -> Path:
    """Return a folder that contains every file of `record.base` with its recorded hash; nothing is loaded from it.

    If RETUNE_BASE is set, only its folders are searched. Otherwise the recorded source is searched, with `registered` for a registered
    version, then the pinned bases of the project's workspaces; `uri` is MLflow's: a project may be next to its database.
    Raise BadModel if the base is not found; the message, one line, names for each location the file that differs.
    """
    if folders := [Path(name).expanduser() for name in os.environ.get(BASE, "").split(os.pathsep) if name]:
        candidates: Iterator[tuple[str, Path | str]] = ((f"{BASE} {folder}", folder) for folder in folders)
    else:
        candidates = _candidates(record.source, registered, _projects(uri))
    tried = []
    for name, result in candidates:
        fault = result if isinstance(result, str) else base_mismatch(result, record.base)
        if fault is None:
            return Path(result)
        tried.append(f"{name}: {fault}")
    raise BadModel(
        f"this version is {LACKING}, so it cannot be loaded. The base is {record.source}; searched {'; '.join(tried)}. "
        f"Put the base that it was trained on into a folder and set the environment variable {BASE} to it"
    )


def base_mismatch(folder: Path, parts: Sequence[FilePart]) -> str | None:
    """Return which of the files `parts` is missing or different in `folder`; None if all are equal."""
    if not folder.is_dir():
        return "the folder does not exist"
    for part in sorted(parts, key=lambda part: part.bytes):
        path = folder / part.name
        if not path.is_file():
            return f"{part.name} is missing"
        if (digest := digest_file(path)) != part.sha256:
            sizes = f"{part.bytes:,} bytes", f"{path.stat().st_size:,} bytes"
            return f"{part.name} differs, expected sha256 {part.sha256[:16]}… ({sizes[0]}), found {digest[:16]}… ({sizes[1]})"
    return None


def in_package(model: str) -> Path:
    """Return the folder `package:NAME/PATH` of an installed package, without importing it.

    Raise BadModel if the package is not installed, or does not contain the folder.
    """
    name, _, path = model.removeprefix(PACKAGE).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise BadModel(f"base.model {model}: no package {name!r} is installed; expected package:NAME/PATH with the import name")
    home = Path(next(iter(spec.submodule_search_locations)))
    folder = home / path
    if not folder.is_dir():
        inside = sorted(path.name for path in home.iterdir() if path.is_dir() and not path.name.startswith("_"))
        raise BadModel(f"base.model {model}: {name} has no folder {path!r}; it has: {', '.join(inside) or 'none'}")
    return folder


def hub_id(source: str) -> tuple[str, str] | None:
    """Return repository and commit of a source of the form ORG/NAME@COMMIT; None for any other."""
    repository, _, commit = source.partition("@")
    is_hub_id = commit and HUB_ID.fullmatch(source) and not source.startswith((".", PACKAGE, REGISTERED))
    return (repository, commit) if is_hub_id else None


def _candidates(source: str, registered: Registered, projects: Sequence[Path]) -> Iterator[tuple[str, Path | str]]:
    """Yield the name of each possible location with its folder, or with the reason why it has none."""
    if source.startswith(PACKAGE):
        yield source, _or_fault(lambda: in_package(source))
    elif source.startswith(REGISTERED):
        yield source, _or_fault(lambda: registered(source))
    else:
        relative = not Path(source).expanduser().is_absolute()
        folders = [(project if relative else Path()) / Path(source).expanduser() for project in projects]
        yield from ((f"the folder {folder}", folder) for folder in dict.fromkeys(folders) if folder.is_dir())
        if (repository := hub_id(source)) is not None:
            yield f"the hub's cache, {source}", _in_hub_cache(*repository)
        elif not any(folder.is_dir() for folder in folders):
            yield f"the folder {source}", "the folder does not exist"
    for project in projects:
        bases = [project / "data/base", *sorted((project / "var/workspaces").glob("*/data/base"))]
        pinned = [folder for base in bases for folder in (base, *sorted((base / OTHERS).glob("*")))]
        yield from ((f"the pinned base {folder}", folder) for folder in pinned if folder.is_dir())


def _or_fault(find: Callable[[], Path]) -> Path | str:
    """Return the result of `find`, or its error in one line."""
    try:
        return find()
    except (RetuneError, OSError) as error:
        return first_line(error)


def _in_hub_cache(repository: str, commit: str) -> Path | str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=commit, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return "not cached, and loading a version downloads nothing"


def _projects(uri: str) -> list[Path]:
    """Return the project folders: RETUNE_PROJECT or the one above the working directory, and the one next to MLflow's database."""
    start = Path(os.environ.get(PROJECT) or ".").absolute()
    above = next((folder for folder in (start, *start.parents) if (folder / "dvc.yaml").is_file()), start)
    database = uri.removeprefix("sqlite:///")
    of_database = [Path(database).absolute().parent.parent] if database != uri else []
    return list(dict.fromkeys([above, *of_database]))
