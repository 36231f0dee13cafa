"""Environment settings come from variables, an `.env` file or secret files; errors name the variable and no secret."""

import sys
from pathlib import Path

import pytest

from components.core.errors import BadParams
from flows import settings
from flows.project.workspace import Workspace, share_remote, sync_workspace
from flows.settings import read_settings

SHARED = """RETUNE_DATABASE=postgresql+psycopg://retune:hidden@db/retune
RETUNE_MLFLOW_URI=http://mlflow:5000/
RETUNE_MLFLOW_USER=worker
RETUNE_MLFLOW_PASSWORD=hidden
RETUNE_PREFECT_AUTH=worker:hidden
RETUNE_DVC_REMOTE=s3://retune/dvc
RETUNE_S3_ENDPOINT=http://s3:8333
RETUNE_S3_ACCESS_KEY=key
RETUNE_S3_SECRET_KEY=hidden
"""


def test_state_is_embedded_by_default(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")

    assert read_settings(tmp_path).variables() == {}
    assert workspace.ledger == f"sqlite:///{tmp_path}/var/ledger.db"


def test_unknown_setting_in_env_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RETUNE_MLFLOW_URL=http://mlflow:5000\nRETUNE_SQL_SHOP=sqlite://\nRETUNE_PROJECT=.\n", encoding="utf-8")

    with pytest.raises(BadParams, match=r"\.env: no setting RETUNE_MLFLOW_URL; did you mean 'RETUNE_MLFLOW_URI'"):
        read_settings(tmp_path)


def test_env_file_selects_shared_services(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(SHARED, encoding="utf-8")
    shared = read_settings(tmp_path)

    assert shared.mlflow_uri == "http://mlflow:5000"
    assert Workspace(tmp_path, tmp_path, tmp_path / "params.yaml").ledger == "postgresql+psycopg://retune:hidden@db/retune"
    variables = shared.variables()
    assert variables["MLFLOW_TRACKING_PASSWORD"] == variables["AWS_SECRET_ACCESS_KEY"] == "hidden"
    assert (variables["PREFECT_API_AUTH_STRING"], variables["AWS_ENDPOINT_URL_S3"]) == ("worker:hidden", "http://s3:8333")
    assert "hidden" not in repr(shared)


def test_variable_wins_over_secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "retune_user").write_text("from the file", encoding="utf-8")
    monkeypatch.setattr(settings, "SECRETS", secrets)

    assert read_settings(tmp_path).user == "from the file"
    monkeypatch.setenv("RETUNE_USER", "from the variable")
    assert read_settings(tmp_path).user == "from the variable"


def test_database_url_comes_from_variable_file_or_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secrets").mkdir()
    for name in ("retune_sql_a", "retune_sql_b", "retune_sql_c", "retune_user"):
        (tmp_path / "secrets" / name).write_text("of a secret\n", encoding="utf-8")
    (tmp_path / ".env").write_text("RETUNE_SQL_B=of the file\nRETUNE_SQL_C=of the file\nOTHER=x\n", encoding="utf-8")
    monkeypatch.setattr(settings, "SECRETS", tmp_path / "secrets")
    monkeypatch.setenv("RETUNE_SQL_C", "of the variable")

    assert settings.databases(tmp_path) == {"RETUNE_SQL_A": "of a secret", "RETUNE_SQL_B": "of the file"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DATABASE", "mysql://u:hidden@h/d", "RETUNE_DATABASE: expected a URL that starts with postgresql"),
        ("DATABASE", "hidden", "RETUNE_DATABASE: expected postgresql"),
        ("MLFLOW_URI", "mlflow:5000", "RETUNE_MLFLOW_URI: expected a URL that starts with http"),
        ("PREFECT_API_URL", "http://u:hidden@h/api", "RETUNE_PREFECT_API_URL: expected a URL without a password"),
        ("MLFLOW_PASSWORD", "hidden", "RETUNE_MLFLOW_USER and RETUNE_MLFLOW_PASSWORD belong together"),
        ("S3_ACCESS_KEY", "key", "RETUNE_S3_ACCESS_KEY and RETUNE_S3_SECRET_KEY belong together"),
        ("SERVER_DEADLINE", "soon", "RETUNE_SERVER_DEADLINE"),
    ],
)
def test_invalid_setting_is_named_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"RETUNE_{name}", value)

    with pytest.raises(BadParams, match=message) as error:
        read_settings(tmp_path)
    assert "hidden" not in str(error.value)


def test_shared_remote_follows_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.local"
    config.write_text("[core]\n\tautostage = true\n", encoding="utf-8")
    (tmp_path / ".env").write_text(SHARED, encoding="utf-8")
    share_remote(config, read_settings(tmp_path))

    text = config.read_text(encoding="utf-8")
    assert "url = s3://retune/dvc" in text
    assert "endpointurl = http://s3:8333" in text
    assert "hidden" not in text
    (tmp_path / ".env").unlink()
    share_remote(config, read_settings(tmp_path))
    assert config.read_text(encoding="utf-8").split() == ["[core]", "autostage", "=", "true"]


def test_remote_without_its_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(SHARED, encoding="utf-8")
    monkeypatch.setitem(sys.modules, "dvc_s3", None)

    with pytest.raises(BadParams, match="RETUNE_DVC_REMOTE is an S3 URL, but dvc-s3 is not installed"):
        sync_workspace(Workspace(tmp_path, tmp_path, tmp_path / "params.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_no_config_is_written_without_shared_services(tmp_path: Path) -> None:
    sync_workspace(Workspace(tmp_path, tmp_path, tmp_path / "params.yaml"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"RETUNE_USER=\xff\n", r"\.env is not UTF-8: line 1 contains the byte 0xff"),
        (b"RETUNE_USER=a\n\nRETUNE_USER=b\n", r"\.env: RETUNE_USER is set in lines 1 and 3; keep one of them"),
        (b'RETUNE_ENVIRONMENTS={"a": {}, "a": {}}\n', "RETUNE_ENVIRONMENTS: the key 'a' occurs 2 times in one object"),
        (b"RETUNE_SERVER_DEADLINE=nan\n", "RETUNE_SERVER_DEADLINE: .*finite"),
        (b"RETUNE_SERVER_LINGER=inf\n", "RETUNE_SERVER_LINGER: .*finite"),
    ],
)
def test_invalid_env_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / ".env").write_bytes(content)

    with pytest.raises(BadParams, match=message):
        read_settings(tmp_path)


def test_env_file_with_bom_and_crlf_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfRETUNE_USER=ann\r\nRETUNE_SERVER_LINGER=5\r\n")

    assert (read_settings(tmp_path).user, read_settings(tmp_path).server_linger) == ("ann", 5)


def test_number_is_read_from_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_SERVER_DEADLINE", "30")

    assert read_settings(tmp_path).server_deadline == 30
