"""Check the files of a run against the hashes in dvc.lock and the manifests.

DVC does not rehash cached objects, since they are read-only, nor the files it checked out from them. So files from the cache or
a remote are hashed here once before use; var/verified.json keeps mtime, inode and size of intact files.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.artifacts.manifest import BaseManifest, SnapshotManifest, base_folder, base_names
from components.core.atomic import write_text
from components.core.errors import NotFound
from components.core.hashing import digest_value
from flows.dvc_adapter import lock
from flows.dvc_adapter.cache import cached_listing, cached_object, object_path

log = logging.getLogger(__name__)

RECORD = "var/verified.json"


class VerifiedFiles:
    """The verified files of a workspace with their hashes and stamps; `rehash` ignores the record and does not write it."""

    def __init__(self, root: Path, rehash: bool = False) -> None:
        self._root, self._path, self._rehash = root, root / RECORD, rehash
        self._verified: dict[str, list[Any]] = {}
        if rehash:
            return
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            self._verified = {str(name): [str(digest), dict(files)] for name, (digest, files) in record.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            log.debug("%s cannot be read: hashing all files", self._path)

    def has(self, name: str, digest: str) -> bool:
        """Return whether `name` was verified with this hash and its files are unchanged since."""
        verified, files = self._verified.get(name, ("", {}))
        return bool(verified == digest and all(self._stamp(file) == stamp for file, stamp in files.items()))

    def check(self, name: str, digest: str, files: Mapping[str, str]) -> list[str]:
        """Return the `files` of `name` whose md5 or sha256 differs; if there are none, record that."""
        stamps = {file: self._stamp(file) for file in files}
        bad = [file for file, expected in files.items() if stamps[file] is not None and self._hash(file, len(expected)) != expected]
        if not bad and None not in stamps.values() and not self._rehash:
            self._verified[name] = [digest, stamps]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(self._verified))
        return bad

    def _stamp(self, file: str) -> list[int] | None:
        try:
            status = (self._root / file).stat()
        except OSError:
            return None
        return [status.st_mtime_ns, status.st_ino, status.st_size]

    def _hash(self, file: str, digits: int) -> str:
        with (self._root / file).open("rb") as content:
            return hashlib.file_digest(content, "md5" if digits == 32 else "sha256").hexdigest()


def damaged_outputs(root: Path, stages: Collection[str], rehash: bool = False) -> dict[str, str]:
    """Return the existing output files of these stages that differ from dvc.lock, with their expected md5.

    A folder is returned itself if its listing is damaged. DVC detects missing files. `rehash` ignores earlier results.
    """
    verified, bad = VerifiedFiles(root, rehash), dict[str, str]()
    for path, md5 in lock.outputs(root, stages).items():
        if (root / path).exists() and not verified.has(path, md5):
            files = {path: md5}
            if md5.endswith(".dir"):
                try:
                    files = {f"{path}/{name}": file_md5 for name, file_md5 in cached_listing(root, md5).items()}
                except NotFound:
                    if object_path(root, md5).exists():  # else it was not checked out from the cache
                        bad[path] = md5
                    continue
            bad |= {file: files[file] for file in verified.check(path, md5, files)}
    return bad


def damaged_input(root: Path, folder: Path, rehash: bool = False) -> list[str]:
    """Return the missing or changed files of a snapshot or of pinned base models, by their manifest."""
    verified, name = VerifiedFiles(root, rehash), folder.relative_to(root).as_posix()
    files = manifest_hashes(root, folder)
    digest = digest_value(files)
    if not files or verified.has(name, digest):
        return []
    return [file for file in files if not (root / file).is_file()] + verified.check(name, digest, files)


def manifest_hashes(root: Path, folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a snapshot or of base models; empty without a manifest."""
    try:
        manifests: dict[Path, SnapshotManifest | BaseManifest] = (
            {folder: SnapshotManifest.read(folder)}
            if folder.name == "raw"
            else {path: BaseManifest.read(path) for path in (base_folder(folder, name) for name in base_names(folder))}
        )
    except NotFound:
        return {}
    return {(path / part.name).relative_to(root).as_posix(): part.sha256 for path, manifest in manifests.items() for part in manifest.parts}


def drop(root: Path, bad: Mapping[str, str]) -> None:
    """Remove damaged files, and their cached objects if these are damaged too, so that DVC restores or rebuilds them."""
    for name, md5 in bad.items():
        path, cached = root / name, object_path(root, md5)
        log.warning("%s is damaged: its content differs from DVC's object %s (%s)", path, md5, cached)
        _remove(path)
        drop_object(root, md5)


def drop_object(root: Path, md5: str) -> None:
    """Remove an object from DVC's cache if it is corrupt."""
    try:
        cached_object(root, md5)
    except NotFound:
        path = object_path(root, md5)
        if path.exists():
            log.warning("removed the damaged object %s from DVC's cache", path)
            path.unlink(missing_ok=True)


def drop_input(root: Path, folder: Path, bad: Collection[str], md5: str | None) -> None:
    """Remove a damaged snapshot or base, and its damaged objects in DVC's cache; `md5` is the folder's md5 in DVC."""
    log.warning("%s: damaged or missing: %s", folder, ", ".join(bad))
    if md5 is not None:
        drop_object(root, md5)
        with suppress(NotFound):
            for file_md5 in cached_listing(root, md5).values():
                drop_object(root, file_md5)
    _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
