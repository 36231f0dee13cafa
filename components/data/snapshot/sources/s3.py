"""s3://BUCKET/PREFIX: every object below the prefix, or that matches a glob, of a known ending.

Endpoint, region and credentials are those of the standard AWS_… variables and files, as boto3 finds them.
"""

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from components.core.errors import BadParams, BadSource, Cancelled, RetuneError, Unavailable
from components.data.snapshot.features import CARDS
from components.data.snapshot.read_errors import Changed
from components.data.snapshot.sources import FetchedFiles, SourceRequest
from components.data.snapshot.sources._file_selection import choose, literal, nothing
from components.data.snapshot.tables import format_of

log = logging.getLogger(__name__)

SETTINGS: frozenset[str] = frozenset()

_BLOCK = 1 << 20
_PATIENCE = {"connect_timeout": 10, "read_timeout": 60}  # seconds
_RETRIES = {"total_max_attempts": 3, "mode": "standard"}
_GIVEN = {
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
    "region_name": "AWS_DEFAULT_REGION",
}  # where one is not there, boto3 looks where it always does
_CHANGED = {"PreconditionFailed", "NoSuchKey", "412"}
_FORBIDDEN = {401, 403}
_BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded"}


@dataclass(frozen=True)
class Object:
    """An object as it was listed."""

    key: str
    etag: str
    size: int


def bring(asked: SourceRequest, folder: Path) -> FetchedFiles:
    """Download the objects into `folder`.

    Raises:
        BadParams: the address names no bucket, or boto3 is not installed.
        BadSource: the bucket is missing or forbidden, there are no credentials, or no object.
        Unavailable: the endpoint is out of reach, there is no room, or an object was changed while it was read.
    """
    bucket, wanted = _parts(asked)
    with _connected(asked) as client:
        there = list_objects(client, bucket, wanted)
        objects = _chosen(asked, there, wanted)
        kind = format_of([PurePosixPath(each.key) for each in objects], asked.address)
        _check_room(asked, objects, folder)
        files = {}
        for number, each in enumerate(objects):
            path = folder / f"{number:06}{PurePosixPath(each.key).suffix.lower()}"  # a key may hold what no file's name can
            download(client, bucket, each, path)
            files[path] = f"s3://{bucket}/{each.key}"
        cards = []
        for number, each in enumerate(_cards(there, objects)):
            cards.append(folder / f"card-{number}")
            cards[-1].mkdir()
            download(client, bucket, each, cards[-1] / PurePosixPath(each.key).name)
        if (now := _chosen(asked, list_objects(client, bucket, wanted), wanted)) != objects:
            changed = sorted({each.key for each in {*now} ^ {*objects}})
            raise Changed(f"{asked.address} was changed while it was read: s3://{bucket}/{changed[0]}")
    log.info("downloaded %d objects of %s, %.1f MB", len(objects), asked.address, sum(each.size for each in objects) / 1e6)
    return FetchedFiles(files, asked.address, kind, cards)


def look(asked: SourceRequest) -> str:
    """Return how many objects there are, and how large; raises as `bring` does."""
    bucket, wanted = _parts(asked)
    with _connected(asked) as client:
        objects = _chosen(asked, list_objects(client, bucket, wanted), wanted)
    return f"{len(objects)} object(s), {sum(each.size for each in objects) / 2**20:.1f} MiB"


def list_objects(client: Any, bucket: str, wanted: str) -> list[Object]:
    """Return every object whose key begins as `wanted` does."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=literal(wanted).rstrip("/"))
    return [Object(each["Key"], each["ETag"], each["Size"]) for page in pages for each in page.get("Contents", ())]


def download(client: Any, bucket: str, wanted: Object, path: Path) -> None:
    """Write an object into `path`, if it is still the one that was listed.

    Raises:
        Unavailable: it is another one, or has not come whole.
    """
    answer = client.get_object(Bucket=bucket, Key=wanted.key, IfMatch=wanted.etag)
    written = 0
    with path.open("wb") as file:
        for block in answer["Body"].iter_chunks(_BLOCK):
            written += file.write(block)
    if (answer["ETag"], written) != (wanted.etag, wanted.size):
        raise Changed(
            f"s3://{bucket}/{wanted.key} was changed while it was read: listed with {wanted.size} bytes and ETag {wanted.etag}, "
            f"read {written} bytes with ETag {answer['ETag']}"
        )


def _parts(asked: SourceRequest) -> tuple[str, str]:
    bucket, _, wanted = asked.place.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
        raise BadParams("params.yaml: snapshot.source: expected s3://BUCKET/PREFIX, found no name of a bucket after s3://")
    return bucket, wanted


def _chosen(asked: SourceRequest, objects: list[Object], wanted: str) -> list[Object]:
    known = {each.key: each for each in objects if not each.key.endswith("/")}  # which are what a console calls folders
    chosen = choose(known, wanted)
    if not chosen:
        raise BadSource(f"{asked.address}: {nothing(known)}")
    return [known[key] for key in chosen]


def _cards(there: list[Object], chosen: list[Object]) -> list[Object]:
    """Return the descriptions of the data set: those in the folders of the first object, the nearest first."""
    above = list(PurePosixPath(chosen[0].key).parents)
    found = [each for each in there if PurePosixPath(each.key).name in CARDS and PurePosixPath(each.key).parent in above]
    return sorted(found, key=lambda each: (above.index(PurePosixPath(each.key).parent), each.key))


def _check_room(asked: SourceRequest, objects: list[Object], folder: Path) -> None:
    size, free = sum(each.size for each in objects), shutil.disk_usage(folder).free
    if size > free:
        raise Unavailable(f"{asked.address} has {size / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB are free in {folder}")


@contextmanager
def _connected(asked: SourceRequest) -> Iterator[Any]:
    """Give a client of boto3, and turn what it raises into our errors; without causes: an endpoint's address may hold a password."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise BadParams(f"{asked.address} needs boto3, which is not installed: pip install 'retune[s3]'") from None
    try:
        given = {name: asked.environment.get(variable) for name, variable in _GIVEN.items()}
        endpoint = asked.environment.get("AWS_ENDPOINT_URL_S3") or asked.environment.get("AWS_ENDPOINT_URL")
        client = boto3.Session().client("s3", **given, endpoint_url=endpoint, config=Config(**_PATIENCE, retries=_RETRIES))
    except (BotoCoreError, ValueError) as error:
        raise BadSource(f"{asked.address}: the AWS_… variables cannot be used: {_masked(error)}") from None
    client.meta.events.register_first("needs-retry.s3", _end)
    try:
        yield client
    except ClientError as error:
        raise _refusal(asked, _masked(client.meta.endpoint_url), error.response) from None
    except BotoCoreError as error:
        raise _failure(asked, error) from None


def _end(caught_exception: Exception | None = None, **_: object) -> None:
    """Pass on what a signal has raised in the midst of a request: botocore takes it for a fault of the network, and tries again."""
    cause = getattr(caught_exception, "kwargs", {}).get("error")
    if isinstance(cause, Cancelled):
        raise cause


def _refusal(asked: SourceRequest, endpoint: str, answer: Mapping[str, Any]) -> RetuneError:
    """Return the error for what the endpoint answers."""
    code, status = answer["Error"]["Code"], answer["ResponseMetadata"].get("HTTPStatusCode", 0)
    said = f"{endpoint} answers {code}, {answer['Error'].get('Message') or status}"
    if code in _CHANGED:
        return Changed(f"{asked.address}: an object was changed or removed while it was read; {said}")
    if code in _BUSY or status >= 500:
        return Unavailable(f"{asked.address}: {said}")
    if status in _FORBIDDEN:
        return BadSource(f"{asked.address}: forbidden; {said}. The credentials of the AWS_… variables need s3:ListBucket and s3:GetObject")
    return BadSource(f"{asked.address}: {said}")


def _failure(asked: SourceRequest, error: Exception) -> RetuneError:
    """Return the error for what the client could not do."""
    from botocore import exceptions as known

    passing = known.ConnectionError, known.HTTPClientError, known.IncompleteReadError, known.FlexibleChecksumError
    if isinstance(error, passing) and not isinstance(error, known.SSLError):
        return Unavailable(f"{asked.address}: the endpoint is out of reach: {_masked(error)}")
    if isinstance(error, known.NoCredentialsError):
        expected = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another way that boto3 knows"
        return BadSource(f"{asked.address}: there are no credentials; expected {expected}")
    return BadSource(f"{asked.address}: {_masked(error)}")


def _masked(said: object) -> str:
    """Return a message on one line, without user and password of an address."""
    return re.sub(r"[^/@\s]+@", "***@", " ".join(str(said).split()))
