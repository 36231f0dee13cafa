"""Whether the files that a run works on are those that DVC and the manifests name, by hash.

DVC takes an object of its cache for whole because it may only be read, and what it laid out from there for known. So what came from the
cache or a remote is hashed here before it is used, once: var/verified.json keeps time stamp, inode and size of what was found whole.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from components.artifacts.manifest import BaseManifest, SnapshotManifest, base_folder, base_names
from components.core.atomic import write_text
from components.core.errors import NotFound
from components.core.hashing import digest_value
from flows.dvc_adapter import lock
from flows.dvc_adapter.repro import cached_listing, cached_object, object_path

log = logging.getLogger(__name__)

RECORD = "var/verified.json"


class VerifiedFiles:
    """What of a workspace was found whole, by which hash, and the stamps of its files then; `anew` believes and keeps nothing."""

    def __init__(self, root: Path, anew: bool = False) -> None:
        self._root, self._path, self._anew = root, root / RECORD, anew
        self._known: dict[str, list[Any]] = {}
        if anew:
            return
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = {str(name): [str(digest), dict(files)] for name, (digest, files) in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            log.debug("%s cannot be read: all is hashed anew", self._path)

    def has(self, name: str, digest: str) -> bool:
        """Say whether `name` was found whole with this hash, and none of its files was touched since."""
        known, files = self._known.get(name, ("", {}))
        return bool(known == digest and all(self._stamp(file) == stamp for file, stamp in files.items()))

    def check(self, name: str, digest: str, files: Mapping[str, str]) -> list[str]:
        """Return the `files` of `name` that have other bytes than their md5 or sha256 says; where all are whole, keep that."""
        stamps = {file: self._stamp(file) for file in files}
        bad = [file for file, wanted in files.items() if stamps[file] is not None and self._hash(file, len(wanted)) != wanted]
        if not bad and None not in stamps.values() and not self._anew:
            self._known[name] = [digest, stamps]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(self._known))
        return bad

    def _stamp(self, file: str) -> list[int] | None:
        try:
            found = (self._root / file).stat()
        except OSError:
            return None
        return [found.st_mtime_ns, found.st_ino, found.st_size]

    def _hash(self, file: str, digits: int) -> str:
        with (self._root / file).open("rb") as content:
            return hashlib.file_digest(content, "md5" if digits == 32 else "sha256").hexdigest()


def damaged_outputs(root: Path, stages: Collection[str], anew: bool = False) -> dict[str, str]:
    """Return the files of these stages' outputs that are there with other bytes than dvc.lock says, each with the object that it should be.

    A folder stands for its listing, where that is damaged in the cache. What is missing is left to DVC, which sees that. `anew` hashes all.
    """
    verified, bad = VerifiedFiles(root, anew), dict[str, str]()
    for path, md5 in lock.outputs(root, stages).items():
        if (root / path).exists() and not verified.has(path, md5):
            try:
                files = (
                    {f"{path}/{name}": each for name, each in cached_listing(root, md5).items()} if md5.endswith(".dir") else {path: md5}
                )
            except NotFound:
                bad |= {path: md5} if object_path(root, md5).exists() else {}  # gone: then it was not laid out from there
                continue
            bad |= {file: files[file] for file in verified.check(path, md5, files)}
    return bad


def damaged_input(root: Path, folder: Path, anew: bool = False) -> list[str]:
    """Return the files of a snapshot, or of pinned base models, that are missing or have other bytes than their manifest says."""
    verified, name = VerifiedFiles(root, anew), folder.relative_to(root).as_posix()
    files = listed(root, folder)
    digest = digest_value(files)
    if not files or verified.has(name, digest):
        return []
    return [file for file in files if not (root / file).is_file()] + verified.check(name, digest, files)


def listed(root: Path, folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a snapshot or of base models; nothing where there is no manifest."""
    places = [folder] if folder.name == "raw" else [base_folder(folder, name) for name in base_names(folder)]
    try:
        kind: type[SnapshotManifest] | type[BaseManifest] = SnapshotManifest if folder.name == "raw" else BaseManifest
        manifests: dict[Path, SnapshotManifest | BaseManifest] = {place: kind.read(place) for place in places}
    except NotFound:
        return {}
    return {(place / part.name).relative_to(root).as_posix(): part.sha256 for place, found in manifests.items() for part in found.parts}


def drop(root: Path, bad: Mapping[str, str]) -> None:
    """Remove damaged files, and their objects where DVC's cache has these damaged too, so that DVC brings or makes them anew."""
    for name, md5 in bad.items():
        path, where = root / name, object_path(root, md5)
        log.warning("%s is damaged: its bytes are not those of DVC's object %s (%s)", path, md5, where)
        _remove(path)
        drop_object(root, md5)


def drop_object(root: Path, md5: str) -> None:
    """Remove an object from DVC's cache if it is there with other bytes than its name says."""
    try:
        cached_object(root, md5)
    except NotFound:
        path = object_path(root, md5)
        if path.exists():
            log.warning("%s is damaged, and removed from DVC's cache", path)
            path.unlink(missing_ok=True)


def drop_input(root: Path, folder: Path, bad: Collection[str], md5: str | None) -> None:
    """Remove a damaged snapshot or base, and what of it is damaged in DVC's cache; `md5` is the folder as DVC knows it."""
    log.warning("%s: damaged or missing: %s", folder, ", ".join(bad))
    if md5 is not None:
        try:
            for each in cached_listing(root, md5).values():
                drop_object(root, each)
        except NotFound:
            drop_object(root, md5)
    _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
