"""A wrong setting gives one message without a secret, before anything is written."""

from pathlib import Path

import pytest

from components.core.errors import RetuneError
from flows.migrate import cache
from infra.local.layout import MIGRATE_TO, Stack
from tests.support.project import retune
from tests.support.stack_services import Migration

WRONG = "a-password-that-is-wrong"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({MIGRATE_TO: "postgresql+psycopg://mlflow:{WRONG}@127.0.0.1:{port}/mlflow"}, "password authentication failed"),
        ({MIGRATE_TO: "postgresql+psycopg://mlflow:{WRONG}@127.0.0.1:1/mlflow"}, "cannot be used"),
        ({MIGRATE_TO: "mysql://mlflow:{WRONG}@127.0.0.1/mlflow"}, "starts with postgresql+psycopg://"),
        ({MIGRATE_TO: "{retune}"}, "tables have revision"),  # a database without MLflow's tables, or with older ones
        ({MIGRATE_TO: "{mlflow}", "RETUNE_MLFLOW_PASSWORD": "{WRONG}"}, "rejects RETUNE_MLFLOW_USER"),
        ({MIGRATE_TO: "{mlflow}", "RETUNE_MLFLOW_URI": "http://127.0.0.1:1"}, "does not answer"),
    ],
    ids=["password", "port", "address", "revision", "account", "server"],
)
def test_wrong_setting_gives_one_message(migrated: Migration, stack: Stack, project: Path, variables: dict[str, str], message: str) -> None:
    known = {"WRONG": WRONG, "port": stack.ports["postgres"], "retune": stack.database("retune"), "mlflow": stack.database("mlflow")}

    done = retune(project, "migrate", **{name: value.format(**known) for name, value in variables.items()})

    assert done.returncode in (2, 75)
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    for secret in (WRONG, *stack.secrets.values()):
        assert secret not in done.stderr + done.stdout


@pytest.mark.parametrize("remote", ["s3://there-is-none/dvc", "s3://mlflow/dvc"], ids=["missing", "forbidden"])
def test_unusable_bucket_is_reported(
    settings_of_stack: None, stack: Stack, project: Path, monkeypatch: pytest.MonkeyPatch, remote: str
) -> None:
    monkeypatch.setenv("RETUNE_DVC_REMOTE", remote)

    with pytest.raises(RetuneError, match=remote) as raised:
        cache.push(project)

    assert stack.secrets["S3_RETUNE_KEY"] not in str(raised.value)
    monkeypatch.undo()
    cache.share_remote(project / ".dvc/config.local", cache.read_settings(project))
