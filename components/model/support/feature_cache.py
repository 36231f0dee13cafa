"""A folder of arrays by content key, with a size limit; the least recently used arrays are deleted first."""

import hashlib
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.atomic import replacing

log = logging.getLogger(__name__)

DEFAULT_MIB = 2048
_MIB = 2**20


@dataclass(frozen=True)
class FeatureCache:
    """Arrays in `folder`, at most `limit_mib` MiB in total; with 0, arrays are read, and none is written.

    A file ends with the sha256 of its array, so that damage is detected. Several processes may use the same folder.
    """

    folder: Path
    limit_mib: float = DEFAULT_MIB

    def get(self, key: str) -> npt.NDArray[Any] | None:
        """Return the array of `key` and mark it as used; None if it is missing or damaged."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                array = np.load(file, allow_pickle=False)
                whole = file.read() == _digest(array)
        except FileNotFoundError:
            return None
        except (ValueError, EOFError):  # numpy cannot read the header or the values
            whole = False
        if whole:
            with suppress(FileNotFoundError):  # another process may have deleted it
                os.utime(path)
            return np.asarray(array)
        log.warning("the cached features %s are damaged; they are computed again", path)
        path.unlink(missing_ok=True)
        return None

    def put(self, key: str, array: npt.NDArray[Any]) -> None:
        """Store `array` and delete the least recently used ones above the limit; an array above the limit is not stored."""
        if not self.limit_mib:
            return
        if array.nbytes > self.limit_mib * _MIB:
            text = "features of %.0f MiB are not cached: tune.cache_mib is %g; they are computed again when they are needed again"
            log.warning(text, array.nbytes / _MIB, self.limit_mib)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self._path(key)) as partial, partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.write(_digest(array))
        self._shrink(keep=self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _shrink(self, keep: Path) -> None:
        """Delete the files that were unused for the longest time, also parts of killed processes, until the limit is kept."""
        files = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                files.append((path.stat(), path))
        room = self.limit_mib * _MIB
        for state, path in sorted(files, key=lambda item: (item[1] != keep, -item[0].st_mtime_ns)):
            room -= state.st_size
            if room < 0:
                path.unlink(missing_ok=True)


def _digest(array: npt.NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array).data).digest()
