"""`python -m infra.passwords`: secrets that no one chose, written once."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from components.core.errors import BadParams
from flows.settings import Settings
from infra.passwords import new_secret, write


def test_every_secret_is_another_one_each_time() -> None:
    one, other = new_secret(), new_secret()

    assert not [name for name in one if one[name] == other[name]]
    assert len(set(one.values())) == len(one)


def test_the_address_of_the_database_has_the_password_of_its_owner() -> None:
    found = new_secret()
    url = sa.make_url(Settings(database=found["retune_database"]).database.get_secret_value())

    assert (url.username, url.password, url.database) == ("retune", found["retune_password"], "retune")


def test_the_folder_is_its_owners_and_each_file_can_be_read_by_a_container(tmp_path: Path) -> None:
    folder = tmp_path / "infra/secrets"
    names = write(folder)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == names
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    assert [path.name for path in folder.parent.iterdir()] == ["secrets"]


def test_secrets_that_are_there_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "secrets")
    before = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()}

    with pytest.raises(BadParams, match="exists, and the databases know"):
        write(tmp_path / "secrets")

    assert {path: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()} == before
