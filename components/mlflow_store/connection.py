"""The way to MLflow: one connection, one lock a key, values that fit, and errors that say where to look.

Reads and writes nothing of its own; `tracking` and `registry` stand on it. A store is named by its URI and nothing else:
`sqlite:///…/var/mlflow.db` (made by `tracking.prepare_store`) or the address of a tracking server.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from components.core.errors import NotFound, RetuneError, Unavailable, first_line
from components.core.hashing import digest_file, digest_value
from components.core.locks import database_lock, lock, shared_database
from components.core.temporary import temporary

log = logging.getLogger(__name__)
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # read at each transfer; our lines say what was stored
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which belongs to what a command answers

SQLITE = "sqlite:///"
PARAM_CHARACTERS = 6_000  # MLflow cuts what is longer without a word
TAG_CHARACTERS = 8_000
KEY_CHARACTERS = 250
METRICS_A_BATCH = 900  # MLflow's limit is 1,000 entities a request
PAIRS_A_BATCH = 100
_PATIENCE = 5  # seconds for a server to accept a connection, and again for its answer
_SEARCH = "/api/2.0/mlflow/experiments/search"
_BROKEN = 500
_REACHED: set[str] = set()  # the servers that have answered this process
HEAD = ".head"  # ends the name of the file that says to which release an embedded database was brought
_RESTORE = "restore a copy of it; to begin a new one, move it away"
_KEY = re.compile(r"[^\w\-. :/]")


def database_of(uri: str) -> Path | None:
    """Return the SQLite file that `uri` names, or None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def connect(uri: str) -> MlflowClient:
    """Return a client of the store at `uri`, for runs and for versions.

    Raises:
        NotThere: the SQLite file is missing or empty. MLflow would make it, and two processes at once would corrupt it.
        RetuneError: the file is not MLflow's database.
        Unavailable: the server does not answer.
    """
    database = database_of(uri)
    if database is not None:
        if not database.exists():
            raise NotFound(f"{database} is missing: no run has been recorded here; `retune run` makes it")
        if revision_of(database) is None:
            raise not_ours(database)
    reach(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def reach(uri: str) -> None:
    """Make sure that a tracking server answers, once a process: a dead one is known at once, where MLflow's client tries for minutes.

    Later outages are shorter ones, and that client waits for their end.

    Raises:
        Unavailable: it does not answer.
    """
    if uri in _REACHED or not uri.startswith(("http://", "https://")):
        return
    what, mends = f"MLflow's server at {uri}", "start it, or correct its address in RETUNE_MLFLOW_URI or RETUNE_ENVIRONMENTS"
    query = {"max_results": 1}  # of its database, which may be gone while the server is there
    try:
        answer = http_request(
            get_default_host_creds(uri), _SEARCH, "POST", max_retries=0, timeout=_PATIENCE, raise_on_status=False, json=query
        )
    except MlflowException as error:
        raise Unavailable(f"{what} does not answer: {_reason(error)}; {mends}") from None
    if answer.status_code >= _BROKEN:
        raise Unavailable(f"{what} answers with {answer.status_code}; see its log, or that of its database")
    _REACHED.add(uri)


def _reason(error: MlflowException) -> str:
    """Return in a few words why a server was not reached."""
    if "timed out" in str(error).lower():
        return f"nothing came within {_PATIENCE} s"
    said = re.search(r"\[Errno -?\d+\] ([\w ]+)", str(error))
    return said[1] if said else first_line(error)[:300]


def revision_of(database: Path) -> str | None:
    """Return the revision of the tables in MLflow's SQLite file; None where the file does not exist or has no such tables.

    Raises:
        NotThere: the file is empty: a new one is made aside and renamed, so this one lost its content.
        RetuneError: it is a folder, no database, or damaged.
        Unavailable: another process holds it.
    """
    if not database.exists():
        return None
    if database.is_dir():
        raise RetuneError(f"{database} is a folder, expected MLflow's database: move it away, and {_RESTORE}")
    if database.stat().st_size == 0:
        raise NotFound(f"{database} is empty (0 bytes), its content was lost: {_RESTORE}, with {database.name}{HEAD}")
    try:
        # To write, where that is allowed: what a killed writer left half written is rolled back by whoever opens it next.
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=10)
        try:
            row = connection.execute("select version_num from alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise Unavailable(f"{database} cannot be opened: {error}; another process may hold it, or it may not be readable") from error
    except sqlite3.DatabaseError as error:
        raise RetuneError(f"{database} is damaged ({error}): {_RESTORE}") from error
    return str(row[0]) if row else None


def not_ours(database: Path) -> RetuneError:
    """Return the error for a database without MLflow's tables."""
    return RetuneError(f"{database} is a database, but not MLflow's: move it away, and {_RESTORE}")


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn MLflow's and the database's errors into one message: Unavailable where a retry can mend it."""
    try:
        yield
    except MlflowException as error:
        kind = Unavailable if error.error_code in ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED") else RetuneError
        raise kind(f"MLflow at {uri}: {first_line(error)}") from error
    except sqlalchemy.exc.OperationalError as error:
        raise Unavailable(f"MLflow's database {uri} is busy or out of reach: {first_line(error)}") from error
    except sqlalchemy.exc.DatabaseError as error:
        raise RetuneError(f"MLflow's database {uri} cannot be read: {first_line(error)}; restore a copy or move it away") from error


@contextmanager
def as_default(uri: str) -> Iterator[None]:
    """Make `uri` MLflow's global store for the block: a few of its calls ask that one, whatever client they are made on."""
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
def alone(uri: str, name: str, timeout: float = 300) -> Iterator[None]:
    """Hold the lock `name` of the store: beside the database; for a server in the database that workers share, or the temporary folder.

    Raises:
        Unavailable: another process has held it for `timeout` seconds.
    """
    database, shared = database_of(uri), shared_database()
    if database is None and shared:
        with database_lock(shared, f"{uri} {name}", timeout):
            yield
        return
    folder = database.parent if database else Path(tempfile.gettempdir())
    path = folder / f"mlflow-{digest_value([uri, name])[:16]}.lock"
    with lock(path, timeout):
        yield


def experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Return the id of the experiment `name`, made with its artifacts beside the database if it is not there."""
    found = client.get_experiment_by_name(name)
    if found is None:
        database = database_of(uri)
        place = (database.parent / "mlartifacts" / _folder_name(name)).as_uri() if database else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage == "deleted":
        raise RetuneError(f"the experiment {name!r} was deleted in MLflow; restore it, or give the model another name in params.yaml")
    return str(found.experiment_id)


def _folder_name(name: str) -> str:
    return re.sub(r"[^\w\-.]", "_", name)


def forget_folder(place: str) -> None:
    """Remove the folder of artifacts at an address, and the folder around it that is empty then; a server removes its own (`mlflow gc`)."""
    parsed = urlparse(place)
    if not place or parsed.scheme not in ("", "file"):
        return
    folder = Path(unquote(parsed.path))
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def milliseconds() -> int:
    """Return the time in MLflow's unit."""
    return int(time.time() * 1_000)


def key(name: str) -> str:
    """Return `name` with what MLflow does not allow in a key replaced, cut to its limit."""
    return _KEY.sub("_", name)[:KEY_CHARACTERS]


def params_of(values: Mapping[str, object]) -> list[Param]:
    """Return flat `values` as params; a value that MLflow would cut is replaced by its length and hash."""
    return [Param(key(name), _fitting(name, text(value), PARAM_CHARACTERS)) for name, value in values.items()]


def tags_of(values: Mapping[str, object]) -> list[RunTag]:
    """Return `values` as tags; None is left out, and a value that MLflow would cut is replaced by its length and hash."""
    return [RunTag(key(name), _fitting(name, text(value), TAG_CHARACTERS)) for name, value in values.items() if value is not None]


def metrics_of(values: Mapping[str, float], step: int = 0, at: int | None = None) -> list[Metric]:
    """Return `values` as metrics; MLflow stores infinity as 1.8e308, so what is not finite is left out and told."""
    lost = [name for name, value in values.items() if not math.isfinite(value)]
    if lost:
        log.warning("not finite, not recorded as metrics: %s", ", ".join(lost))
    at = milliseconds() if at is None else at
    return [Metric(key(name), float(value), at, step) for name, value in values.items() if name not in lost]


def text(value: object) -> str:
    """Return a value as it is shown in MLflow: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _fitting(name: str, value: str, limit: int) -> str:
    if len(value) <= limit:
        return value
    log.warning("%s has %d characters, MLflow keeps %d: its hash is recorded instead", name, len(value), limit)
    return f"{len(value)} characters, sha256 {digest_value(value)}; see the artifacts"


def log_all(
    client: MlflowClient, run_id: str, *, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
) -> None:
    """Write any number of metrics, params and tags in batches that MLflow accepts."""
    for start in range(0, len(metrics), METRICS_A_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_BATCH])
    for start in range(0, len(params), PAIRS_A_BATCH):
        client.log_batch(run_id, params=params[start : start + PAIRS_A_BATCH])
    for start in range(0, len(tags), PAIRS_A_BATCH):
        client.log_batch(run_id, tags=tags[start : start + PAIRS_A_BATCH])


def upload(client: MlflowClient, run_id: str, folder: Path, into: str | None = None) -> None:
    """Send every file of `folder` and read them back, since a killed or full store keeps part of them without a word.

    Raises:
        Unavailable: what is stored differs from what was sent.
    """
    client.log_artifacts(run_id, str(folder), into)
    with temporary() as back:
        stored = Path(client.download_artifacts(run_id, into or "", str(back)))
        sent = {path.relative_to(folder).as_posix(): digest_file(path) for path in folder.rglob("*") if path.is_file()}
        bad = [name for name, digest in sent.items() if not (stored / name).is_file() or digest_file(stored / name) != digest]
    if bad:
        raise Unavailable(f"run {run_id}: {len(bad)} of {len(sent)} artifacts were not stored whole, first {bad[0]}; is the disk full?")
