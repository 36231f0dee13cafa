"""s3://BUCKET/PREFIX: every data file below the prefix, or that matches a glob.

boto3 reads endpoint, region and credentials from the standard AWS_… variables and files.
"""

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from components.core.errors import BadParams, BadSource, RetuneError, Unavailable
from components.data.snapshot.features import CARDS
from components.data.snapshot.source_changes import SourceChanged
from components.data.snapshot.sources import FetchedFiles, SourceRequest
from components.data.snapshot.sources._file_selection import choose, literal_prefix, no_match
from components.data.snapshot.tables import format_of

log = logging.getLogger(__name__)

SETTINGS: frozenset[str] = frozenset()

_BLOCK = 1 << 20
_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 60}  # seconds
_RETRIES = {"total_max_attempts": 3, "mode": "standard"}
_OPTIONS = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
    "region_name": "AWS_DEFAULT_REGION",
}  # if one is unset, boto3 uses its own lookup
_CHANGED = {"PreconditionFailed", "NoSuchKey", "412"}
_FORBIDDEN = {401, 403}
_BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded"}


@dataclass(frozen=True)
class Object:
    """An object as listed."""

    key: str
    etag: str
    size: int


def fetch(request: SourceRequest, folder: Path) -> FetchedFiles:
    """Download the objects to `folder`.

    Raises:
        BadParams: the address has no bucket, or boto3 is not installed.
        BadSource: the bucket is missing or forbidden, or there are no credentials or no data files.
        Unavailable: the endpoint is unreachable, the disk is full, or an object changed while it was read.
    """
    bucket, pattern = _parse(request)
    with _client(request) as client:
        listed = list_objects(client, bucket, pattern)
        objects = _choose(request, listed, pattern)
        file_format = format_of([PurePosixPath(item.key) for item in objects], request.address)
        size, free = sum(item.size for item in objects), shutil.disk_usage(folder).free
        if size > free:
            raise Unavailable(f"{request.address} has {size / 2**20:,.0f} MiB, but only {free / 2**20:,.0f} MiB are free in {folder}")
        files = {}
        for number, item in enumerate(objects):
            path = folder / f"{number:06}{PurePosixPath(item.key).suffix.lower()}"  # a key may contain characters that file names cannot
            download(client, bucket, item, path)
            files[path] = f"s3://{bucket}/{item.key}"
        cards = []
        for number, item in enumerate(_cards(listed, objects)):
            cards.append(folder / f"card-{number}")
            cards[-1].mkdir()
            download(client, bucket, item, cards[-1] / PurePosixPath(item.key).name)
        if (now := _choose(request, list_objects(client, bucket, pattern), pattern)) != objects:
            changed = sorted({item.key for item in {*now} ^ {*objects}})
            raise SourceChanged(f"{request.address} was changed while it was read: s3://{bucket}/{changed[0]}")
    log.info("downloaded %d objects of %s, %.1f MB", len(objects), request.address, size / 1e6)
    return FetchedFiles(files, request.address, file_format, cards)


def describe(request: SourceRequest) -> str:
    """Return the number and size of the objects; raises as `fetch` does."""
    bucket, pattern = _parse(request)
    with _client(request) as client:
        objects = _choose(request, list_objects(client, bucket, pattern), pattern)
    return f"{len(objects)} object(s), {sum(item.size for item in objects) / 2**20:.1f} MiB"


def list_objects(client: Any, bucket: str, pattern: str) -> list[Object]:
    """Return every object whose key starts with the literal prefix of `pattern`."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=literal_prefix(pattern).rstrip("/"))
    return [Object(entry["Key"], entry["ETag"], entry["Size"]) for page in pages for entry in page.get("Contents", ())]


def download(client: Any, bucket: str, item: Object, path: Path) -> None:
    """Write an object to `path` if it is unchanged since it was listed.

    Raises:
        SourceChanged: the object changed, or the download is incomplete.
    """
    response = client.get_object(Bucket=bucket, Key=item.key, IfMatch=item.etag)
    written = 0
    with path.open("wb") as file:
        for block in response["Body"].iter_chunks(_BLOCK):
            written += file.write(block)
    if (response["ETag"], written) != (item.etag, item.size):
        raise SourceChanged(
            f"s3://{bucket}/{item.key} was changed while it was read: listed with {item.size} bytes and ETag {item.etag}, "
            f"read {written} bytes with ETag {response['ETag']}"
        )


def _parse(request: SourceRequest) -> tuple[str, str]:
    bucket, _, pattern = request.location.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
        raise BadParams("params.yaml: snapshot.source: expected s3://BUCKET/PREFIX, found no bucket name after s3://")
    return bucket, pattern


def _choose(request: SourceRequest, objects: list[Object], pattern: str) -> list[Object]:
    by_key = {item.key: item for item in objects if not item.key.endswith("/")}  # a console creates keys with / as folders
    keys = choose(by_key, pattern)
    if not keys:
        raise BadSource(f"{request.address}: {no_match(by_key)}")
    return [by_key[key] for key in keys]


def _cards(listed: list[Object], chosen: list[Object]) -> list[Object]:
    """Return the dataset cards in the folders above the first object, the nearest first."""
    above = list(PurePosixPath(chosen[0].key).parents)
    cards = [item for item in listed if PurePosixPath(item.key).name in CARDS and PurePosixPath(item.key).parent in above]
    return sorted(cards, key=lambda item: (above.index(PurePosixPath(item.key).parent), item.key))


@contextmanager
def _client(request: SourceRequest) -> Iterator[Any]:
    """Yield a boto3 client and translate its errors; without causes, because the URL of an endpoint may contain a password."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise BadParams(f"{request.address} needs boto3, which is not installed: pip install 'retune[s3]'") from None
    try:
        options = {name: request.environment.get(variable) for name, variable in _OPTIONS.items()}
        endpoint = request.environment.get("AWS_ENDPOINT_URL_S3") or request.environment.get("AWS_ENDPOINT_URL")
        client = boto3.Session().client("s3", **options, endpoint_url=endpoint, config=Config(**_TIMEOUTS, retries=_RETRIES))
    except (BotoCoreError, ValueError) as error:
        raise BadSource(f"{request.address}: the AWS_… variables are invalid: {_masked(error)}") from None
    try:
        yield client
    except ClientError as error:
        raise _response_error(request, _masked(client.meta.endpoint_url), error.response) from None
    except BotoCoreError as error:
        raise _client_error(request, error) from None


def _response_error(request: SourceRequest, endpoint: str, response: Mapping[str, Any]) -> RetuneError:
    code, status = response["Error"]["Code"], response["ResponseMetadata"].get("HTTPStatusCode", 0)
    message = f"{endpoint} answers {code}, {response['Error'].get('Message') or status}"
    if code in _CHANGED:
        return SourceChanged(f"{request.address}: an object was changed or removed while it was read; {message}")
    if code in _BUSY or status >= 500:
        return Unavailable(f"{request.address}: {message}")
    if status in _FORBIDDEN:
        return BadSource(
            f"{request.address}: forbidden; {message}. The credentials of the AWS_… variables need s3:ListBucket and s3:GetObject"
        )
    return BadSource(f"{request.address}: {message}")


def _client_error(request: SourceRequest, error: Exception) -> RetuneError:
    from botocore import exceptions

    transient = exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError, exceptions.FlexibleChecksumError
    if isinstance(error, transient) and not isinstance(error, exceptions.SSLError):
        return Unavailable(f"{request.address}: the endpoint is unreachable: {_masked(error)}")
    if isinstance(error, exceptions.NoCredentialsError):
        expected = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another method that boto3 supports"
        return BadSource(f"{request.address}: no credentials; expected {expected}")
    return BadSource(f"{request.address}: {_masked(error)}")


def _masked(message: object) -> str:
    """Return a message on one line, without user and password in URLs."""
    return re.sub(r"[^/@\s]+@", "***@", " ".join(str(message).split()))
