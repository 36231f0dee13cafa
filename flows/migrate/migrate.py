"""Run a migration: check, send the files, copy the tables in one transaction each, and compare the services."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import BadInput, NotFound
from components.ledger import chain
from components.ledger.tables import check_file, make_engine, make_tables
from components.mlflow_store.connection import foreign_database_error, revision_of
from flows.audit.retention import workspaces
from flows.migrate import cache, files, registry, tables
from flows.orchestrator.services import read_state
from flows.project.models import survey_models
from flows.project.run_locks import folder_lock, run_lock
from flows.settings import Settings, load_into_environment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Migrated:
    """Counts of what was migrated, or with `--dry-run` would be; `rows` are those of MLflow's tables."""

    done: bool
    rows: int
    runs: int
    versions: int
    artifacts: int
    bytes: int
    ledger: int
    studies: int
    objects: int


def migrate(project: Path, dry_run: bool) -> Migrated:
    """Migrate the embedded state of a project to the services in its settings.

    No run of the project may be active. It can be repeated: transferred files are not sent again, and each database is written in one
    transaction.

    Raises:
        NotFound: there is no embedded registry.
        BadInput: a setting is missing, the target has other content, or the project's own services are running.
        RetuneError: the copy differs from the source; run again.
        Unavailable: a service does not answer, or a run is active.
    """
    settings = load_into_environment(project)
    if read_state(project / "var"):
        raise BadInput("the project's own services are running and may write during the migration: run `retune down` first")
    with ExitStack() as locks:
        for root in workspaces(project):
            locks.enter_context(folder_lock(root))
        for name in sorted({model.name for model in survey_models(project)[0]}):
            locks.enter_context(run_lock(project, name))
        return copy_all(project, settings, dry_run)


def copy_all(project: Path, settings: Settings, dry_run: bool) -> Migrated:
    """Migrate while holding the project's locks; raises like `migrate`."""
    var = project / "var"
    database = check(settings, var)
    store = files.Store(settings.mlflow_uri, settings.mlflow_user, settings.mlflow_password.get_secret_value())
    store.check()
    source, target = tables.open_source(database), tables.open_target(settings.mlflow_database.get_secret_value(), "MLflow's database")
    with source.connect() as reading, target.begin() as writing:
        registry.check_source(reading)
        databases = registry.open_databases(reading, writing)
        done = registry.is_done(databases)
        artifacts = files.find(databases.roots.folders())
        planned = report(databases, artifacts, settings, project, sent=False)
        if dry_run:
            return planned
        log.info("sending %d artifacts to %s", len(artifacts), settings.mlflow_uri)
        files.send_all(store, settings.mlflow_uri, artifacts, var)
        if not done:
            registry.copy_registry(databases)
    registry.verify(f"sqlite:///{database}", settings.mlflow_uri, databases.roots)
    with source.connect() as reading, target.connect() as querying:
        return report(registry.open_databases(reading, querying), artifacts, settings, project, sent=True)


def check(settings: Settings, var: Path) -> Path:
    """Return the path of MLflow's embedded database; raise NotFound without one, BadInput with all settings that are missing."""
    required = ("mlflow_uri", "mlflow_database", "database", "dvc_remote")
    missing = [f"RETUNE_{name.upper()}" for name in required if not getattr(settings, name)]
    if missing:
        raise BadInput(f"not set: {', '.join(missing)}; copy them from the stack's retune.env and secrets.env, see docs/operations.md")
    database = var / "mlflow.db"
    if not database.exists():
        raise NotFound(f"{database} is missing: there is no embedded registry to migrate")
    if revision_of(database) is None:
        raise foreign_database_error(database)
    return database


def report(databases: registry.Databases, artifacts: list[files.ArtifactFile], settings: Settings, project: Path, sent: bool) -> Migrated:
    """Copy ledger, studies and DVC objects if `sent`, and count everything."""
    contents, var, database = databases.source_contents(), project / "var", settings.database.get_secret_value()
    return Migrated(
        done=sent,
        rows=sum(table.rows for table in contents.values()),
        runs=contents["runs"].rows,
        versions=contents["model_versions"].rows,
        artifacts=len(artifacts),
        bytes=sum(artifact.path.stat().st_size for artifact in artifacts),
        ledger=copy_ledger(var / "ledger.db", database, sent),
        studies=copy_studies(var / "optuna", database, sent),
        objects=cache.push(project) if sent else cache.count(project),
    )


def copy_studies(folder: Path, url: str, really: bool) -> int:
    """Copy the studies of the search, and return their number."""
    studies = len(list(folder.glob("*.log")))
    if really and studies:
        from components.training.tune import storage  # slow: it imports Optuna

        storage.copy_studies(folder, url)
    return studies


def copy_ledger(file: Path, url: str, really: bool) -> int:
    """Copy the ledger's rows in one transaction, and return their number; raise BadInput if the target has other content."""
    if not file.exists():
        return 0
    check_file(file)
    target = tables.open_target(url, "the ledger's database")
    if really:
        make_tables(make_engine(url))  # including the triggers that reject changes; the chain is copied unchanged
    with tables.open_source(file).connect() as source, target.begin() as writing:
        source_tables, target_tables = tables.reflect(source), tables.reflect(writing)
        names = frozenset(source_tables.tables)
        if "promotions" not in names:
            raise BadInput(f"{file} is a database, but not a ledger: restore a copy of the ledger, or move it away")
        if not names <= frozenset(target_tables.tables):  # the target has no ledger yet
            return sum(table.rows for table in tables.contents(source, source_tables, names, source_tables).values())
        expected = tables.contents(source, source_tables, names, target_tables)
        actual = tables.contents(writing, target_tables, names, target_tables)
        if actual != expected and any(table.rows for table in actual.values()):
            difference = tables.first_difference(expected, actual)
            raise BadInput(f"the shared ledger is not empty and differs in {difference}: nothing was overwritten")
        if really and actual != expected:
            tables.copy(source, writing, (source_tables, target_tables), names)
            if chain.head(writing) is None:
                chain.begin_over_older(writing)
        return sum(table.rows for table in expected.values())
