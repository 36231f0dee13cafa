"""The story of a migration: look, send the files, copy the tables in one transaction each, and compare what the services show."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import BadInput, NotFound
from components.ledger import chain
from components.ledger.tables import check_file, make_engine, make_tables
from components.mlflow_store.connection import not_ours, revision_of
from components.training.tune import copy_studies
from flows.audit.retention import workspaces
from flows.migrate import cache, files, registry, tables
from flows.orchestrator.services import read_state
from flows.project.models import survey_models
from flows.project.run_locks import folder_lock, run_lock
from flows.settings import Settings, load_into_environment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Migrated:
    """What was carried, or with `--dry-run` would be; `rows` are those of MLflow's tables."""

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
    """Carry the embedded state of a project into the services of its settings.

    No run of the project works meanwhile. It can be repeated: what has arrived is not sent again, and each database is written in one
    transaction.

    Raises:
        NotFound: there is no embedded registry here.
        BadInput: the settings do not name what is needed, the target holds something else, or the project's own services are running.
        RetuneError: something did not arrive as it is here; run again.
        Unavailable: a service does not answer, or a run is at work.
    """
    settings = load_into_environment(project)
    if read_state(project / "var"):
        raise BadInput("the project's own services are running, and would write what is carried: `retune down` first")
    with ExitStack() as held:
        for root in workspaces(project):
            held.enter_context(folder_lock(root))
        for name in sorted({model.name for model in survey_models(project)[0]}):
            held.enter_context(run_lock(project, name))
        return copy_all(project, settings, dry_run)


def copy_all(project: Path, settings: Settings, dry_run: bool) -> Migrated:
    """Carry, alone with the project; raises as `migrate` does."""
    var = project / "var"
    database = check(settings, var)
    store = files.Store(settings.mlflow_uri, settings.mlflow_user, settings.mlflow_password.get_secret_value())
    store.check()
    source, target = tables.open_source(database), tables.open_target(settings.mlflow_database.get_secret_value(), "MLflow's database")
    with source.connect() as reading, target.begin() as writing:
        registry.check_source(reading)
        both = registry.open_both(reading, writing)
        done = registry.is_done(both)
        artifacts = files.find(both.places.folders())
        planned = report(both, artifacts, settings, var, project, sent=False)
        if dry_run:
            return planned
        log.info("%d artifacts are sent to %s", len(artifacts), settings.mlflow_uri)
        files.send_all(store, settings.mlflow_uri, artifacts, var)
        if not done:
            registry.copy_registry(both)
    registry.verify(f"sqlite:///{database}", settings.mlflow_uri, both.places)
    with source.connect() as reading, target.connect() as asking:
        return report(registry.open_both(reading, asking), artifacts, settings, var, project, sent=True)


def check(settings: Settings, var: Path) -> Path:
    """Return MLflow's embedded database, once the settings name all that is needed.

    Raises:
        NotFound: there is none.
        BadInput: a setting is missing; with all that are.
    """
    wanted = ("mlflow_uri", "mlflow_database", "database", "dvc_remote")
    absent = [f"RETUNE_{name.upper()}" for name in wanted if not getattr(settings, name)]
    if absent:
        raise BadInput(f"not set: {', '.join(absent)}; a stack's retune.env and secrets.env have them, see docs/operations.md")
    database = var / "mlflow.db"
    if not database.exists():
        raise NotFound(f"{database} is missing: there is no embedded registry here to migrate")
    if revision_of(database) is None:
        raise not_ours(database)
    return database


def report(both: registry.Both, artifacts: list[files.ArtifactFile], settings: Settings, var: Path, project: Path, sent: bool) -> Migrated:
    """Carry what is left where `sent`, and count everything."""
    contents = tables.contents(both.source, both.there, both.names, both.here, both.places.rewrite)
    return Migrated(
        done=sent,
        rows=sum(one.rows for one in contents.values()),
        runs=contents["runs"].rows,
        versions=contents["model_versions"].rows,
        artifacts=len(artifacts),
        bytes=sum(one.path.stat().st_size for one in artifacts),
        ledger=copy_ledger(var / "ledger.db", settings.database.get_secret_value(), sent),
        studies=copy_studies.copy_studies(var / "optuna", settings.database.get_secret_value(), sent),
        objects=cache.push(project) if sent else cache.count(project),
    )


def copy_ledger(file: Path, url: str, really: bool) -> int:
    """Copy the ledger's rows in one transaction, unless they are there, and return how many there are.

    Raises:
        BadInput: the ledger of the target holds something else.
    """
    if not file.exists():
        return 0
    check_file(file)
    target = tables.open_target(url, "the ledger's database")
    if really:
        make_tables(make_engine(url))  # with the triggers that refuse changes; the chain is carried as it is
    with tables.open_source(file).connect() as source, target.begin() as writing:
        there, here = tables.reflect(source), tables.reflect(writing)
        names = frozenset(there.tables)
        if "promotions" not in names:
            raise BadInput(f"{file} is a database, but not a ledger: restore a copy of the ledger, or move it away")
        if not names <= frozenset(here.tables):  # a target that has no ledger yet
            return sum(one.rows for one in tables.contents(source, there, names, there, unchanged).values())
        wanted = tables.contents(source, there, names, here, unchanged)
        found = tables.contents(writing, here, names, here, unchanged)
        if found != wanted and any(one.rows for one in found.values()):
            difference = tables.first_difference(wanted, found)
            raise BadInput(f"the shared ledger is not empty, and differs in {difference}: nothing is written over")
        if really and found != wanted:
            tables.copy(source, writing, (there, here), names, unchanged)
            if chain.head(writing) is None:
                chain.begin_over_older(writing)
        return sum(one.rows for one in wanted.values())


def unchanged(_table: str, row: dict[str, object]) -> dict[str, object]:
    """Return a row as it is."""
    return row
