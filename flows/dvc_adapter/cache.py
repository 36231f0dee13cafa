"""Read files and folders from DVC's cache, checking their md5."""

import hashlib
import json
import shutil
from pathlib import Path

from components.core.errors import NotFound
from flows.dvc_adapter.config import cache_folder


def object_path(root: Path, md5: str) -> Path:
    """Return the path of an object in the cache of `root`."""
    return cache_folder(root) / "files/md5" / md5[:2] / md5[2:]


def cached_object(root: Path, md5: str) -> Path:
    """Return the cached file with this md5 (`….dir`: the listing of a folder); raise NotFound if it is missing or corrupt."""
    path = object_path(root, md5)
    if not path.is_file():
        raise NotFound(f"{md5} is not in DVC's cache ({path}): `dvc pull` restores it if it was pushed")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "md5").hexdigest()
    if actual != md5.removesuffix(".dir"):
        raise NotFound(f"{path} in DVC's cache is corrupt (its md5 is {actual}): delete it, then `dvc pull` restores it")
    return path


def cached_listing(root: Path, md5: str) -> dict[str, str]:
    """Return the md5 of each file of a cached folder, by relative path; raise NotFound like `cached_object`."""
    return {entry["relpath"]: entry["md5"] for entry in json.loads(cached_object(root, md5).read_text(encoding="utf-8"))}


def cached_file(root: Path, md5: str, name: str = "") -> Path:
    """Return the cached file `name` of the folder `md5` (`….dir`), or the file `md5`; raise NotFound if it is missing or corrupt."""
    if not md5.endswith(".dir"):
        return cached_object(root, md5)
    listing = cached_listing(root, md5)
    if name not in listing:
        raise NotFound(f"the folder {md5} in DVC's cache has no {name}; it has {', '.join(sorted(listing)) or 'nothing'}")
    return cached_object(root, listing[name])


def cached_folder(root: Path, md5: str, into: Path) -> Path:
    """Copy a cached folder into `into` and return that; raise NotFound before anything is written if a file is missing or corrupt."""
    files = {name: cached_object(root, object_md5) for name, object_md5 in cached_listing(root, md5).items()}
    into.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return into
