"""File locks: exclusive, shared, and released at the end."""

from pathlib import Path

import pytest

from components.core.locks import LockTimeout, lock


def test_lock_creates_its_folder_and_excludes_others(tmp_path: Path) -> None:
    path = tmp_path / "var/runs/tickets.lock"
    with lock(path), pytest.raises(LockTimeout, match=r"held by another process for 0\.2 s"), lock(path, 0.2):
        pass
    with lock(path), pytest.raises(LockTimeout, match=r"^busy$"), lock(path, shared=True, busy="busy"):
        pass
    with lock(path):
        pass


def test_shared_locks_exclude_only_exclusive_ones(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock(path, shared=True), lock(path, shared=True), pytest.raises(LockTimeout), lock(path):
        pass
