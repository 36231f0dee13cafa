"""`python -m infra.buckets` against an S3 server on loopback."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from components.core.errors import BadParams, Unavailable
from infra.buckets import create_missing


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project folder, and restore the AWS variables that loading its settings changes."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")
    return tmp_path


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def use(project: Path, endpoint: str) -> None:
    text = f"RETUNE_S3_ENDPOINT={endpoint}\nRETUNE_S3_ACCESS_KEY=admin\nRETUNE_S3_SECRET_KEY=key\n"
    (project / ".env").write_text(text, encoding="utf-8")


def test_existing_buckets_keep_their_content(project: Path, endpoint: str) -> None:
    use(project, endpoint)
    assert create_missing(["mlflow", "retune"], project) == ["mlflow", "retune"]
    boto3.client("s3").put_object(Bucket="retune", Key="dvc/a", Body=b"kept")

    assert create_missing(["mlflow", "retune", "more"], project) == ["more"]

    assert boto3.client("s3").get_object(Bucket="retune", Key="dvc/a")["Body"].read() == b"kept"


def test_invalid_bucket_name_is_reported_without_the_key(project: Path, endpoint: str) -> None:
    use(project, endpoint)

    with pytest.raises(BadParams, match=r"rejects x: .*InvalidBucketName.*RETUNE_S3_ACCESS_KEY") as raised:
        create_missing(["x"], project)
    assert "key" not in str(raised.value).lower().replace("_key", "")


def test_unreachable_store_is_reported(project: Path) -> None:
    use(project, "http://127.0.0.1:9")

    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9 does not answer: .*; check RETUNE_S3_ENDPOINT"):
        create_missing(["retune"], project)
