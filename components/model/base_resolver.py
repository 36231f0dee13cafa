"""Where a base model lies: inside an installed package, in the hub's cache, in a folder, in the registry, or pinned in a workspace.

Whoever loads a version that is stored as an adapter finds its base again here, by the hashes that were recorded, and by nothing else.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from components.artifacts.adapter_manifest import AdapterManifest
from components.artifacts.manifest import OTHERS, FilePart
from components.core.errors import BadModel, RetuneError, first_line
from components.core.hashing import digest_file

BASE, PROJECT = "RETUNE_BASE", "RETUNE_PROJECT"
"""Variables of the environment: folders with the base, and the project whose workspaces are looked into."""

LACKING = "stored as an adapter, and its base is not at hand"
"""What the message says where a version cannot be loaded for lack of its base: no fault of the version's."""

PACKAGE, REGISTERED = "package:", "models:/"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")

Registered = Callable[[str], Path]
"""Given models:/NAME/VERSION, returns the folder of that model."""


def find_base(record: AdapterManifest, registered: Registered, uri: str) -> Path:
    """Return a folder that has each of the files that `record.base` names, with its hash; nothing of it was loaded.

    Where RETUNE_BASE names folders, only these are looked at. Else: the recorded source, asking `registered` for a version of a registry,
    and then what the workspaces of the project have pinned; `uri` is MLflow's, beside whose database a project may lie.

    Raises:
        BadModel: no place has the base; the message, of one line, says of each which file differs.
    """
    if named := [Path(each).expanduser() for each in os.environ.get(BASE, "").split(os.pathsep) if each]:
        places: Iterator[tuple[str, Path | str]] = ((f"{BASE} {folder}", folder) for folder in named)
    else:
        places = _places(record.source, registered, _projects(uri))
    tried = []
    for called, found in places:
        fault = found if isinstance(found, str) else base_mismatch(found, record.base)
        if fault is None:
            return Path(found)
        tried.append(f"{called}: {fault}")
    raise BadModel(
        f"this version is {LACKING}, without which it cannot be loaded. The base is {record.source}; looked at {'; '.join(tried)}. "
        f"Put the base that it was trained on into a folder, and name that in the environment variable {BASE}"
    )


def base_mismatch(folder: Path, parts: Sequence[FilePart]) -> str | None:
    """Say which of the files `parts` is missing in `folder` or differs there; None where all are the same."""
    if not folder.is_dir():
        return "there is no such folder"
    for part in sorted(parts, key=lambda each: each.bytes):
        path = folder / part.name
        if not path.is_file():
            return f"{part.name} is missing"
        if (found := digest_file(path)) != part.sha256:
            sizes = f"{part.bytes:,} bytes", f"{path.stat().st_size:,} bytes"
            return f"{part.name} differs, expected sha256 {part.sha256[:16]}… ({sizes[0]}), found {found[:16]}… ({sizes[1]})"
    return None


def in_package(model: str) -> Path:
    """Find the folder `package:NAME/PATH` inside an installed package, which is not imported.

    Raises:
        BadModel: there is no such package, or no such folder in it.
    """
    name, _, path = model.removeprefix(PACKAGE).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise BadModel(
            f"base.model {model}: no package {name!r} is installed here; expected package:NAME/PATH with the name that is imported"
        )
    home = Path(next(iter(spec.submodule_search_locations)))
    folder = home / path
    if not folder.is_dir():
        inside = sorted(each.name for each in home.iterdir() if each.is_dir() and not each.name.startswith("_"))
        raise BadModel(f"base.model {model}: {name} has no folder {path!r}; it has: {', '.join(inside) or 'none'}")
    return folder


def hub_id(source: str) -> tuple[str, str] | None:
    """Return repository and commit of a source that names both, ORG/NAME@COMMIT; None for any other."""
    repository, _, commit = source.partition("@")
    known = commit and HUB_ID.fullmatch(source) and not source.startswith((".", PACKAGE, REGISTERED))
    return (repository, commit) if known else None


def _places(source: str, registered: Registered, projects: Sequence[Path]) -> Iterator[tuple[str, Path | str]]:
    """Yield where the base may lie: what the place is called, and the folder, or why there is none."""
    if source.startswith(PACKAGE):
        yield source, _or_fault(lambda: in_package(source))
    elif source.startswith(REGISTERED):
        yield source, _or_fault(lambda: registered(source))
    else:
        relative = not Path(source).expanduser().is_absolute()
        folders = [(project if relative else Path()) / Path(source).expanduser() for project in projects]
        yield from ((f"the folder {folder}", folder) for folder in dict.fromkeys(folders) if folder.is_dir())
        if (named := hub_id(source)) is not None:
            yield f"the hub's cache, {source}", _in_hub_cache(*named)
        elif not any(folder.is_dir() for folder in folders):
            yield f"the folder {source}", "there is no such folder"
    for project in projects:
        bases = [project / "data/base", *sorted((project / "var/workspaces").glob("*/data/base"))]
        pinned = [folder for base in bases for folder in (base, *sorted((base / OTHERS).glob("*")))]
        yield from ((f"the pinned base {folder}", folder) for folder in pinned if folder.is_dir())


def _or_fault(find: Callable[[], Path]) -> Path | str:
    """Return what `find` returns, or in one line why it cannot."""
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
        return "it is not there; nothing is downloaded to load a version"


def _projects(uri: str) -> list[Path]:
    """Return the folders of projects at hand: above the working folder, or what RETUNE_PROJECT names, and beside MLflow's database."""
    start = Path(os.environ.get(PROJECT) or ".").absolute()
    above = next((folder for folder in (start, *start.parents) if (folder / "dvc.yaml").is_file()), start)
    database = uri.removeprefix("sqlite:///")
    beside = [Path(database).absolute().parent.parent] if database != uri else []
    return list(dict.fromkeys([above, *beside]))
