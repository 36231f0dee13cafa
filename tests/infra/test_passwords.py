"""`python -m infra.passwords`: random secrets, written once."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from components.core.errors import BadParams
from flows.settings import Settings
from infra.passwords import generate_secrets, write


def test_secrets_are_unique() -> None:
    first, second = generate_secrets(), generate_secrets()

    assert not [name for name in first if first[name] == second[name]]
    assert len(set(first.values())) == len(first)


def test_database_url_has_the_owners_password() -> None:
    secrets = generate_secrets()
    url = sa.make_url(Settings(database=secrets["retune_database"]).database.get_secret_value())

    assert (url.username, url.password, url.database) == ("retune", secrets["retune_password"], "retune")


def test_folder_is_private_and_files_are_readable(tmp_path: Path) -> None:
    folder = tmp_path / "infra/secrets"
    names = write(folder)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == names
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    assert [path.name for path in folder.parent.iterdir()] == ["secrets"]


def test_existing_secrets_are_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "secrets")
    before = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()}

    with pytest.raises(BadParams, match="exists, and databases use its secrets"):
        write(tmp_path / "secrets")

    assert {path: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()} == before
