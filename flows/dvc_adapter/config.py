"""DVC's configuration as DVC resolves it: system, global, project, local; and how the folders in which models are made inherit it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from configobj import ConfigObj, ConfigObjError

from components.core.errors import BadParams
from flows.settings import Settings

EMBEDDED = "local"  # the remote below var/, which the project comes with
SHARED = "shared"  # the remote that RETUNE_DVC_REMOTE names
_SECTION = f'remote "{SHARED}"'
_MARK = "# written for RETUNE_DVC_REMOTE, and removed when that is unset"
_BEFORE = "# the default remote before RETUNE_DVC_REMOTE:"
_APART = {"no_scm": "true", "analytics": "false", "check_update": "false", "autostage": "false"}  # a folder of ours is no repository


def read(root: Path) -> dict[str, Any]:
    """Return what all levels say for the project at `root`; paths are absolute.

    Raises:
        BadParams: a file is not what DVC reads.
    """
    with _reading(root) as config:
        found: dict[str, Any] = config.read()
        return found


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's cache for `root`."""
    return Path(read(root)["cache"].get("dir") or root / ".dvc/cache").resolve()


def keeps_no_history(root: Path) -> bool:
    """Say whether DVC was told that the project is in no repository, as by `dvc init --no-scm`."""
    return str(read(root)["core"].get("no_scm", "")).lower() == "true"


def default_remote(root: Path) -> tuple[str, str] | None:
    """Return the name and the address of the remote that DVC pushes to, without a password; None where there is no default."""
    config = read(root)
    name = config["core"].get("remote")
    if not name:
        return None
    url = str(config["remote"].get(name, {}).get("url", ""))
    password = urlsplit(url).password if "://" in url else None
    return str(name), url.replace(f":{password}@", ":…@") if password else url


def inherit(project: Path, root: Path, cache: Path | None = None) -> None:
    """Give the folder `root` the project's configuration, with the project's cache or, where one is named, another.

    System and global files are read there as everywhere. What is below the project stays relative, so that its path stands in no file.
    It is taken from where the folder really is, as DVC takes it: var/ may be a link to another disk.
    Only we may read the file: it holds the credentials of the project's config.local.

    Raises:
        BadParams: a file of the project is not what DVC reads.
    """
    from dvc.config import Config, merge
    from dvc.config_schema import RelPath

    project, root = project.resolve(), root.resolve()
    with _reading(project) as config:
        found: dict[str, Any] = {}
        for level in Config.REPO_LEVELS:
            merge(found, config.load_one(level))
        merge(found, {"core": _APART})
        if cache is not None:
            found["cache"] = {"dir": RelPath(cache.resolve())}
        elif not config.read()["cache"].get("dir"):
            found["cache"]["dir"] = RelPath(project / ".dvc/cache")
        if not found["core"].get("remote") and not config.read()["remote"]:
            merge(found, {"core": {"remote": EMBEDDED}, "remote": {EMBEDDED: {"url": RelPath(project / "var/dvc-remote")}}})
    file = root / ".dvc/config"
    (file.parent / "tmp").mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_EXCL, 0o600))
    with _reading(root) as config, config.edit("repo", validate=False) as edited:
        edited.clear()
        edited.update(found)


def share_remote(file: Path, settings: Settings, ours: bool = False) -> None:
    """Let DVC push to RETUNE_DVC_REMOTE where it is set, by the config.local `file`; the S3 service's keys come from the environment.

    A default remote that is in the file comes back when the setting goes. A remote of that name that a person added stays; with `ours`
    nobody but an earlier release wrote the file.

    Raises:
        BadParams: what DVC needs for such a remote is not installed: better known now than after a training.
    """
    if settings.dvc_remote.startswith("s3://") and find_spec("dvc_s3") is None:
        raise BadParams("RETUNE_DVC_REMOTE is an S3 address, and dvc-s3 is not installed: pip install 'retune[s3]'")
    if not settings.dvc_remote and not (file.exists() and _SECTION in file.read_text(encoding="utf-8")):
        return
    try:
        config = ConfigObj(str(file), encoding="utf-8", interpolation=False)
    except ConfigObjError as error:
        raise BadParams(f"{file}: DVC's configuration cannot be read: {error}") from None
    before = config.dict()
    marked = _MARK in config.comments.get(_SECTION, [])
    if not settings.dvc_remote and not (marked or ours):
        return
    core = config.setdefault("core", {})
    noted = core.comments.get("remote", []) if core.get("remote") == SHARED else []
    own = next((line.partition(_BEFORE)[2].strip() for line in noted if _BEFORE in line), "")
    if settings.dvc_remote:
        endpoint = {"endpointurl": settings.s3_endpoint} if settings.s3_endpoint and settings.dvc_remote.startswith("s3://") else {}
        if core.get("remote", SHARED) != SHARED:
            core.comments["remote"] = [f"{_BEFORE} {core['remote']}"]
        core["remote"] = SHARED
        config[_SECTION] = {"url": settings.dvc_remote, **endpoint}
        if not marked:
            config.comments[_SECTION] = [_MARK]
    else:
        del config[_SECTION]
        if core.get("remote") == SHARED:
            del core["remote"]
            if own:
                core["remote"] = own
        if not core:
            del config["core"]
    if config.dict() != before or (settings.dvc_remote and not marked):
        _write(config, file)


def _write(config: ConfigObj, file: Path) -> None:
    """Write a configuration by rename, readable by those who could read it before, else by us alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
        config.write(out)
    partial.replace(file)


@contextmanager
def _reading(root: Path) -> Iterator[Any]:
    from dvc.config import Config, ConfigError  # a tenth of a second, which most commands need not wait for

    try:
        yield Config(str(root / ".dvc"), validate=False)
    except (ConfigError, ConfigObjError, TypeError) as error:  # a value with a comma and without quotes is a list to DVC, and no path
        raise BadParams(
            f"{root / '.dvc'}: DVC's configuration cannot be read: {error}; a value with a comma or ` #` needs quotes"
        ) from None
