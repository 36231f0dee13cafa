"""Connect to MLflow: one client per store, named locks, values within MLflow's limits, and errors that name the store.

A store is identified by its URI: `sqlite:///…/var/mlflow.db` (created by `tracking.prepare_store`) or the URL of a tracking server.
`tracking` and `registry` are built on this module.
"""

import json
import logging
import math
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlparse

import mlflow
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from mlflow.utils import get_results_from_paginated_fn
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from components.core.errors import NotFound, RetuneError, Unavailable, first_line
from components.core.hashing import digest_file, digest_value
from components.core.locks import database_lock, lock, shared_database
from components.core.temporary import temporary

log = logging.getLogger(__name__)
T = TypeVar("T")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # read at each transfer
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is for the output of commands

SQLITE = "sqlite:///"
PARAM_CHARACTERS = 6_000  # MLflow silently truncates longer values
TAG_CHARACTERS = 8_000
KEY_CHARACTERS = 250
METRICS_PER_BATCH = 900  # MLflow allows 1,000 entities per request
PAIRS_PER_BATCH = 100
_TIMEOUT = 5  # seconds to connect, and again to receive the response
_SEARCH = "/api/2.0/mlflow/experiments/search"
_REACHABLE: set[str] = set()  # servers that have answered in this process
HEAD = ".head"  # suffix of the file that records which MLflow release migrated an embedded database
_RESTORE = "restore a copy of it; to start a new one, move it away"
_KEY = re.compile(r"[^\w\-. :/]")


def sqlite_path(uri: str) -> Path | None:
    """Return the SQLite file of `uri`, or None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def connect(uri: str) -> MlflowClient:
    """Return a client for the runs and versions of the store at `uri`.

    Raises:
        NotFound: the SQLite file is missing or empty. MLflow would create it, and two processes at once would corrupt it.
        RetuneError: the file is not an MLflow database.
        Unavailable: the server does not respond.
    """
    database = sqlite_path(uri)
    if database is not None:
        if not database.exists():
            raise NotFound(f"{database} is missing: no run has been recorded here; `retune run` creates it")
        if revision_of(database) is None:
            raise foreign_database_error(database)
    check_server(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def check_server(uri: str) -> None:
    """Check once per process that a tracking server responds, because MLflow's client retries a dead server for minutes.

    Raises:
        Unavailable: the server does not respond.
    """
    if uri in _REACHABLE or not uri.startswith(("http://", "https://")):
        return
    server, hint = f"MLflow's server at {uri}", "start it, or correct its address in RETUNE_MLFLOW_URI or RETUNE_ENVIRONMENTS"
    query = {"max_results": 1}  # queries the database, which may be down while the server is up
    try:
        response = http_request(
            get_default_host_creds(uri), _SEARCH, "POST", max_retries=0, timeout=_TIMEOUT, raise_on_status=False, json=query
        )
    except MlflowException as error:
        raise Unavailable(f"{server} does not answer: {_reason(error)}; {hint}") from None
    if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Unavailable(f"{server} returned status {response.status_code}; see its log, or the log of its database")
    _REACHABLE.add(uri)


def _reason(error: MlflowException) -> str:
    """Return a short reason why a server could not be reached."""
    if "timed out" in str(error).lower():
        return f"no response within {_TIMEOUT} s"
    match = re.search(r"\[Errno -?\d+\] ([\w ]+)", str(error))
    return match[1] if match else first_line(error)[:300]


def revision_of(database: Path) -> str | None:
    """Return the schema revision of MLflow's SQLite file; None if the file or its tables do not exist.

    Raises:
        NotFound: the file is empty. New databases are renamed into place, so an empty one has lost its content.
        RetuneError: it is a folder, not a database, or damaged.
        Unavailable: another process holds it.
    """
    if not database.exists():
        return None
    if database.is_dir():
        raise RetuneError(f"{database} is a folder, expected MLflow's database: move it away, and {_RESTORE}")
    if database.stat().st_size == 0:
        raise NotFound(f"{database} is empty (0 bytes), its content was lost: {_RESTORE}, with {database.name}{HEAD}")
    try:
        # Open for writing, so that SQLite rolls back what a killed writer left half written.
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=10)) as connection:
            row = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise Unavailable(f"{database} cannot be opened: {error}; another process may hold it, or it may not be readable") from error
    except sqlite3.DatabaseError as error:
        raise RetuneError(f"{database} is damaged ({error}): {_RESTORE}") from error
    return str(row[0]) if row else None


def foreign_database_error(database: Path) -> RetuneError:
    """Return the error for a database that does not contain MLflow's tables."""
    return RetuneError(f"{database} is a database, but not MLflow's: move it away, and {_RESTORE}")


@contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Translate errors of MLflow and its database into RetuneError; into Unavailable if a retry may succeed."""
    try:
        yield
    except MlflowException as error:
        temporary_error = error.error_code in ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED")
        raise (Unavailable if temporary_error else RetuneError)(f"MLflow at {uri}: {first_line(error)}") from error
    except sqlalchemy.exc.OperationalError as error:
        raise Unavailable(f"MLflow's database {uri} is busy or unreachable: {first_line(error)}") from error
    except sqlalchemy.exc.DatabaseError as error:
        raise RetuneError(f"MLflow's database {uri} cannot be read: {first_line(error)}; restore a copy or move it away") from error


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Set `uri` as MLflow's global store for the block; some client methods ignore the client's own store."""
    variable = os.environ.get("MLFLOW_TRACKING_URI")
    old = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(old)  # type: ignore[arg-type]  # None is MLflow's "not set"
        if variable is not None:
            os.environ["MLFLOW_TRACKING_URI"] = variable


@contextmanager
def store_lock(uri: str, name: str, timeout: float = 300) -> Iterator[None]:
    """Hold the lock `name` of a store: a file next to an SQLite database; for a server, in the shared database or the temporary folder.

    Raises:
        Unavailable: another process has held it for `timeout` seconds.
    """
    database, shared = sqlite_path(uri), shared_database()
    if database is None and shared:
        with database_lock(shared, f"{uri} {name}", timeout):
            yield
        return
    folder = database.parent if database else Path(tempfile.gettempdir())
    path = folder / f"mlflow-{digest_value([uri, name])[:16]}.lock"
    with lock(path, timeout):
        yield


def ensure_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Return the id of the experiment `name`; create it, with its artifacts next to an SQLite database, if it does not exist."""
    record = client.get_experiment_by_name(name)
    if record is None:
        database = sqlite_path(uri)
        location = (database.parent / "mlartifacts" / re.sub(r"[^\w\-.]", "_", name)).as_uri() if database else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            record = client.get_experiment_by_name(name)
    if record is None or record.lifecycle_stage == "deleted":
        raise RetuneError(f"the experiment {name!r} is deleted in MLflow; restore it, or give the model another name in params.yaml")
    return str(record.experiment_id)


def local_folder(uri: str) -> Path | None:
    """Return the folder of an artifact URI; None if it is remote or empty."""
    parsed = urlparse(uri)
    return Path(unquote(parsed.path)) if uri and parsed.scheme in ("", "file") else None


def delete_artifacts(uri: str) -> None:
    """Remove a local artifact folder, and its parent if it is then empty; `mlflow gc` does this on a server."""
    if folder := local_folder(uri):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()


def all_pages(search: Callable[..., PagedList[T]], *arguments: Any, **filters: Any) -> list[T]:
    """Return the results of all pages of one of MLflow's searches."""
    return list(get_results_from_paginated_fn(lambda size, token: search(*arguments, max_results=size, page_token=token, **filters), 1_000))


def if_exists(read: Callable[..., T], *arguments: str) -> T | None:
    """Return what one of MLflow's functions reads; None if it does not exist."""
    try:
        return read(*arguments)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def now_ms() -> int:
    """Return the current time in milliseconds, MLflow's unit."""
    return int(time.time() * 1_000)


def key(name: str) -> str:
    """Return `name` without the characters that MLflow forbids in a key, cut to the maximum length."""
    return _KEY.sub("_", name)[:KEY_CHARACTERS]


def params_of(values: Mapping[str, object]) -> list[Param]:
    """Return flat `values` as params; a value that MLflow would truncate is replaced by its length and hash."""
    return [Param(key(name), _fitting(name, text(value), PARAM_CHARACTERS)) for name, value in values.items()]


def tags_of(values: Mapping[str, object]) -> list[RunTag]:
    """Return `values` as tags without None; a value that MLflow would truncate is replaced by its length and hash."""
    return [RunTag(key(name), _fitting(name, text(value), TAG_CHARACTERS)) for name, value in values.items() if value is not None]


def metrics_of(values: Mapping[str, float]) -> list[Metric]:
    """Return `values` as metrics; leave out and log infinities and NaN, because MLflow stores infinity as 1.8e308."""
    skipped = [name for name, value in values.items() if not math.isfinite(value)]
    if skipped:
        log.warning("not finite, not recorded as metrics: %s", ", ".join(skipped))
    at = now_ms()
    return [Metric(key(name), float(value), at, 0) for name, value in values.items() if name not in skipped]


def text(value: object) -> str:
    """Return a string as it is, any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _fitting(name: str, value: str, limit: int) -> str:
    if len(value) <= limit:
        return value
    log.warning("%s has %d characters, MLflow's limit is %d: its hash is recorded instead", name, len(value), limit)
    return f"{len(value)} characters, sha256 {digest_value(value)}; see the artifacts"


def log_in_batches(
    client: MlflowClient, run_id: str, *, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
) -> None:
    """Write any number of metrics, params and tags in batches that MLflow accepts."""
    kinds: dict[str, Any] = {"metrics": metrics, "params": params, "tags": tags}
    for name, entities in kinds.items():
        size = METRICS_PER_BATCH if name == "metrics" else PAIRS_PER_BATCH
        for start in range(0, len(entities), size):
            client.log_batch(run_id, **{name: entities[start : start + size]})


def upload(client: MlflowClient, run_id: str, folder: Path, into: str | None = None) -> None:
    """Upload every file of `folder` and read it back, because a killed or full store may silently keep only part of the files.

    Raises:
        Unavailable: the stored files differ from those that were sent.
    """
    client.log_artifacts(run_id, str(folder), into)
    with temporary() as copy:
        stored = Path(client.download_artifacts(run_id, into or "", str(copy)))
        sent = {path.relative_to(folder).as_posix(): digest_file(path) for path in folder.rglob("*") if path.is_file()}
        bad = [name for name, digest in sent.items() if not (stored / name).is_file() or digest_file(stored / name) != digest]
    if bad:
        raise Unavailable(f"run {run_id}: {len(bad)} of {len(sent)} artifacts are missing or damaged, first {bad[0]}; is the disk full?")
