"""Read DVC's configuration as DVC resolves it (system, global, project, local), and pass it on to workspaces."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from configobj import ConfigObj, ConfigObjError

from components.core.atomic import replacing
from components.core.errors import BadParams
from flows.settings import Settings

EMBEDDED = "local"  # the default remote in var/
SHARED = "shared"  # the remote of RETUNE_DVC_REMOTE
_SECTION = f'remote "{SHARED}"'
_MARK = "# written for RETUNE_DVC_REMOTE, and removed when that is unset"
_BEFORE = "# the default remote before RETUNE_DVC_REMOTE:"
_WORKSPACE = {"no_scm": "true", "analytics": "false", "check_update": "false", "autostage": "false"}  # a workspace is not a repository


def read(root: Path) -> dict[str, Any]:
    """Return the merged configuration for the project at `root`, with absolute paths; raise BadParams if a file is invalid."""
    with _reading(root) as config:
        merged: dict[str, Any] = config.read()
        return merged


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's cache for `root`."""
    return Path(read(root)["cache"].get("dir") or root / ".dvc/cache").resolve()


def keeps_no_history(root: Path) -> bool:
    """Return whether DVC is configured without a repository (`dvc init --no-scm`)."""
    return str(read(root)["core"].get("no_scm", "")).lower() == "true"


def default_remote(root: Path) -> tuple[str, str] | None:
    """Return name and URL, without password, of the remote that DVC pushes to; None if there is no default."""
    config = read(root)
    name = config["core"].get("remote")
    if not name:
        return None
    url = str(config["remote"].get(name, {}).get("url", ""))
    password = urlsplit(url).password if "://" in url else None
    return str(name), url.replace(f":{password}@", ":…@") if password else url


def inherit(project: Path, root: Path, cache: Path | None = None) -> None:
    """Give `root` the project's configuration, with the project's cache or another `cache`.

    Paths in the project stay relative, so that no file contains the project's path. They start from the folder's real path, as in DVC,
    since var/ may be a link to another disk.
    Only the owner may read the file: it contains the credentials of the project's config.local.

    Raises:
        BadParams: a file of the project is not valid.
    """
    from dvc.config import Config, merge
    from dvc.config_schema import RelPath

    project, root = project.resolve(), root.resolve()
    with _reading(project) as config:
        merged: dict[str, Any] = {}
        for level in Config.REPO_LEVELS:
            merge(merged, config.load_one(level))
        merge(merged, {"core": _WORKSPACE})
        if cache is not None:
            merged["cache"] = {"dir": RelPath(cache.resolve())}
        elif not config.read()["cache"].get("dir"):
            merged["cache"]["dir"] = RelPath(project / ".dvc/cache")
        if not merged["core"].get("remote") and not config.read()["remote"]:
            merge(merged, {"core": {"remote": EMBEDDED}, "remote": {EMBEDDED: {"url": RelPath(project / "var/dvc-remote")}}})
    file = root / ".dvc/config"
    (file.parent / "tmp").mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    os.close(os.open(file, os.O_CREAT | os.O_EXCL, 0o600))
    with _reading(root) as config, config.edit("repo", validate=False) as edited:
        edited.clear()
        edited.update(merged)


def share_remote(file: Path, settings: Settings, ours: bool = False) -> None:
    """Make RETUNE_DVC_REMOTE, if set, the default remote in the config.local `file`; S3 keys come from the environment.

    The previous default remote is restored when the setting is removed. A user's own remote `shared` is kept; with `ours`, only an
    earlier release of Retune wrote the file.

    Raises:
        BadParams: the DVC plug-in of the remote is not installed.
    """
    on_s3 = settings.dvc_remote.startswith("s3://")
    if on_s3 and find_spec("dvc_s3") is None:
        raise BadParams("RETUNE_DVC_REMOTE is an S3 URL, but dvc-s3 is not installed: pip install 'retune[s3]'")
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
    comments = core.comments.get("remote", []) if core.get("remote") == SHARED else []
    previous = next((line.partition(_BEFORE)[2].strip() for line in comments if _BEFORE in line), "")
    if settings.dvc_remote:
        endpoint = {"endpointurl": settings.s3_endpoint} if settings.s3_endpoint and on_s3 else {}
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
            if previous:
                core["remote"] = previous
        if not core:
            del config["core"]
    if config.dict() != before or (settings.dvc_remote and not marked):
        _write(config, file)


def _write(config: ConfigObj, file: Path) -> None:
    """Write a configuration atomically; a new file gets mode 0600."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    with replacing(file, mode) as partial, partial.open("wb") as out:
        config.write(out)


@contextmanager
def _reading(root: Path) -> Iterator[Any]:
    from dvc.config import Config, ConfigError  # a slow import (0.1 s) that most commands do not need

    try:
        yield Config(str(root / ".dvc"), validate=False)
    except (ConfigError, ConfigObjError, TypeError) as error:  # DVC reads an unquoted value with a comma as a list
        raise BadParams(
            f"{root / '.dvc'}: DVC's configuration cannot be read: {error}; a value with a comma or ` #` needs quotes"
        ) from None
