"""Copy MLflow's database from `var/mlflow.db` to the server's database, with artifact locations as the server names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

from components.core.errors import BadInput, RetuneError
from components.mlflow_store.connection import all_pages, connect, translated_errors
from components.mlflow_store.registry.versions import records
from flows.migrate import tables
from flows.migrate.tables import Content

SCHEME = "mlflow-artifacts:/"
VERSION = "alembic_version"
SEEDED = ("experiments", "workspaces")  # have one row in a new server
SERVER_STATE = ("scheduler_leases", "job_locks")  # transient state of the servers
LOCATIONS = {
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "logged_models": ["artifact_location"],
    "model_versions": ["source", "storage_location"],
}
_LOCK = 7_250_302  # number of PostgreSQL's advisory lock for migrations; arbitrary, but unused elsewhere


@dataclass(frozen=True)
class ArtifactRoots:
    """The artifact location of each experiment, here and on the server."""

    moved: Mapping[str, str]

    def rewrite(self, table: str, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row with the server's locations."""
        columns = [column for column in LOCATIONS.get(table, ()) if isinstance(row.get(column), str)]
        return row | {column: self.on_server(row[column]) for column in columns}

    def on_server(self, location: str) -> str:
        """Return the server's location for a local one; others are unchanged."""
        for local, remote in self.moved.items():
            if location == local or location.startswith(f"{local}/"):
                return remote + location.removeprefix(local)
        return location

    def folders(self) -> dict[Path, str]:
        """Return the existing local folders and their paths in the server's store."""
        paths = {Path(unquote(urlsplit(local).path)): remote.removeprefix(SCHEME) for local, remote in self.moved.items()}
        return {folder: path for folder, path in paths.items() if folder.is_dir()}


@dataclass(frozen=True)
class Databases:
    """Open transactions on source and target, with their tables."""

    source: sa.Connection
    target: sa.Connection
    source_tables: sa.MetaData
    target_tables: sa.MetaData
    roots: ArtifactRoots
    names: frozenset[str]

    def source_contents(self) -> dict[str, Content]:
        """Return the source's content, converted for the target."""
        return tables.contents(self.source, self.source_tables, self.names, self.target_tables, self.roots.rewrite)

    def contents(self) -> tuple[dict[str, Content], dict[str, Content]]:
        """Return the source's content, converted for the target, and the target's content."""
        return self.source_contents(), tables.contents(self.target, self.target_tables, self.names, self.target_tables)


def read_roots(source: sa.Connection) -> ArtifactRoots:
    """Return the artifact locations of the experiments, longest first, so that nested ones match first."""
    rows = source.execute(sa.text("SELECT artifact_location, experiment_id FROM experiments")).all()
    moved = {str(location).rstrip("/"): f"{SCHEME}{number}" for location, number in rows if str(location).startswith("file:")}
    return ArtifactRoots(dict(sorted(moved.items(), key=lambda pair: -len(pair[0]))))


def check_source(source: sa.Connection) -> None:
    """Raise BadInput if a run is active, or was killed and is not repaired yet."""
    if running := source.execute(sa.text("SELECT run_uuid FROM runs WHERE status = 'RUNNING'")).scalars().all():
        raise BadInput(f"{len(running)} MLflow runs are active or were killed, first {running[0]}: wait, or repair them with `retune run`")


def open_databases(source: sa.Connection, target: sa.Connection) -> Databases:
    """Open both databases and lock the target; raise BadInput if it is locked, or their revisions differ."""
    if not target.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))).scalar_one():
        raise BadInput("another migration into this database is running: wait until it ends")
    source_tables, target_tables = tables.reflect(source), tables.reflect(target)
    ours, theirs = revision_of(source, source_tables), revision_of(target, target_tables)
    if ours != theirs:
        raise BadInput(
            f"MLflow's tables have revision {ours} here and {theirs} in the server's database: upgrade both to the same release of"
            " MLflow (`mlflow db upgrade`), then migrate"
        )
    if unknown := set(source_tables.tables) - set(target_tables.tables):
        raise BadInput(f"the server's database has no table {', '.join(sorted(unknown))}")
    names = frozenset(set(source_tables.tables) - {VERSION, *SERVER_STATE})
    return Databases(source, target, source_tables, target_tables, read_roots(source), names)


def revision_of(connection: sa.Connection, metadata: sa.MetaData) -> str | None:
    """Return the revision of MLflow's tables; None if there are none."""
    if VERSION not in metadata.tables:
        return None
    return connection.execute(sa.select(metadata.tables[VERSION].c.version_num)).scalar()


def is_done(databases: Databases) -> bool:
    """Return whether the target already has the source's content; raise BadInput if it has other content."""
    expected, actual = databases.contents()
    if expected == actual:
        return True
    if filled := [f"{name} {actual[name].rows:,}" for name in sorted(actual) if actual[name].rows > (1 if name in SEEDED else 0)]:
        counted = ", ".join(filled[:5])
        raise BadInput(f"the server's database is not empty ({counted} rows), and nothing was overwritten: migrate into a new one")
    return False


def copy_registry(databases: Databases) -> None:
    """Copy every table and read it back; raise RetuneError, without a change, if one differs."""
    for name in reversed([table.name for table in databases.target_tables.sorted_tables if table.name in SEEDED]):
        databases.target.execute(databases.target_tables.tables[name].delete())
    tables.copy(
        databases.source, databases.target, (databases.source_tables, databases.target_tables), databases.names, databases.roots.rewrite
    )
    if difference := tables.first_difference(*databases.contents()):
        raise RetuneError(f"the copy differs in {difference}; nothing was written")


def verify(source: str, server: str, roots: ArtifactRoots) -> None:
    """Raise RetuneError unless the server shows the local runs and versions; otherwise it uses another database."""
    with translated_errors(source):
        local = shown(source, roots)
    with translated_errors(server):
        remote = shown(server, roots)
    if local != remote:
        missing = sorted(map(str, local - remote))
        raise RetuneError(
            f"MLflow at {server} does not show what was copied, first difference: {missing[0] if missing else 'extra entries'};"
            " check that RETUNE_MLFLOW_DATABASE is this server's database"
        )


def shown(uri: str, roots: ArtifactRoots) -> set[tuple[object, ...]]:
    """Return the runs, versions and aliases that a store shows, with the values that must be equal."""
    client, everything = connect(uri), 3  # MLflow's ViewType.ALL
    entries: set[tuple[object, ...]] = set()
    experiments = [experiment.experiment_id for experiment in all_pages(client.search_experiments, view_type=everything)]
    for run in all_pages(client.search_runs, experiments, run_view_type=everything):
        entries.add(("run", run.info.run_id, run.info.status, roots.on_server(run.info.artifact_uri), len(run.data.metrics)))
    for model in all_pages(client.search_registered_models):
        entries |= {("alias", model.name, alias, int(number)) for alias, number in model.aliases.items()}
        for version in records(client, model.name):
            entries.add(("version", model.name, int(version.version), version.run_id, tuple(sorted(version.tags.items()))))
    return entries
