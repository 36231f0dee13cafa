"""An S3 endpoint on loopback: moto's server in a thread, started on first use."""

import atexit
import functools
import uuid
from typing import Any

import httpx

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIATESTS", "AWS_SECRET_ACCESS_KEY": "hush-hush-secret"}


@functools.cache
def endpoint() -> str:
    """Return the address of the server, which runs until the process ends."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def environment() -> dict[str, str]:
    """Return the environment variables with which boto3 uses this server only."""
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
    return {"AWS_ENDPOINT_URL_S3": endpoint(), "AWS_DEFAULT_REGION": "us-east-1", **CREDENTIALS, **nowhere}


@functools.cache
def client() -> Any:
    """Return a client of the server."""
    import boto3

    keys = {"aws_access_key_id": CREDENTIALS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
    return boto3.client("s3", endpoint_url=endpoint(), region_name="us-east-1", **keys)


def new_bucket(objects: dict[str, bytes]) -> str:
    """Create a bucket with objects, by key, and return its name."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    client().create_bucket(Bucket=name)
    for key, body in objects.items():
        client().put_object(Bucket=name, Key=key, Body=body)
    return name


def put_at_once(bucket: str, key: str, body: bytes) -> None:
    """Put an object directly into moto's storage, without a request."""
    from moto.s3.models import s3_backends

    s3_backends["123456789012"]["aws"].put_object(bucket, key, body)


def let_in(requests: float) -> None:
    """Answer this number of requests, then reject all, since no credentials are registered."""
    httpx.post(f"{endpoint()}/moto-api/reset-auth", content=str(requests)).raise_for_status()
