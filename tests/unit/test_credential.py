"""The credential of the managed servers: made once, for its owner alone."""

import os
from pathlib import Path

from flows import credential


def test_a_credential_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    os.umask(before := os.umask(0))
    try:
        os.umask(0)
        made = credential.make(tmp_path)
    finally:
        os.umask(before)

    assert credential.make(tmp_path) == credential.read(tmp_path) == made
    assert made.startswith("retune:")
    assert len(made) > 40
    assert (tmp_path / "prefect/auth").stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    made = credential.make(tmp_path)
    (tmp_path / "prefect/auth").chmod(0o644)

    assert credential.read(tmp_path) == made
    assert (tmp_path / "prefect/auth").stat().st_mode & 0o777 == 0o600


def test_a_damaged_credential_is_made_anew(tmp_path: Path) -> None:
    made = credential.make(tmp_path)
    (tmp_path / "prefect/auth").write_bytes(b"\xff\n")

    assert credential.read(tmp_path) is None
    assert credential.make(tmp_path) != made
