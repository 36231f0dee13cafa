"""MLflow's database, carried from `var/mlflow.db` into the one behind the server, with the places of artifacts as the server names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

from components.core.errors import BadInput, RetuneError
from components.mlflow_store.connection import connect, translated_errors
from flows.migrate import tables
from flows.migrate.tables import Content

SCHEME = "mlflow-artifacts:/"
VERSION = "alembic_version"
SEEDED = ("experiments", "workspaces")  # which a fresh server has a row in
OF_THE_SERVER = ("scheduler_leases", "job_locks")  # what servers tell each other at this moment
PLACES = {
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "logged_models": ["artifact_location"],
    "model_versions": ["source", "storage_location"],
}
_LOCK = 7_250_302  # PostgreSQL's advisory lock of whoever migrates; any number that nobody else takes


@dataclass(frozen=True)
class ArtifactRoots:
    """Where each experiment keeps its artifacts here, and where the server will have them."""

    moved: Mapping[str, str]

    def rewrite(self, table: str, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row with the server's name for every place."""
        for column in PLACES.get(table, ()):
            if isinstance(row.get(column), str):
                row[column] = self.of(row[column])
        return row

    def of(self, place: str) -> str:
        """Return the server's name for a place of ours; another one stays as it is."""
        for ours, theirs in self.moved.items():
            if place == ours or place.startswith(f"{ours}/"):
                return theirs + place.removeprefix(ours)
        return place

    def folders(self) -> dict[Path, str]:
        """Return the folders that are here, and their places in the server's store."""
        found = {Path(unquote(urlsplit(ours).path)): theirs.removeprefix(SCHEME) for ours, theirs in self.moved.items()}
        return {folder: place for folder, place in found.items() if folder.is_dir()}


@dataclass(frozen=True)
class Both:
    """An open transaction on either database, and their tables."""

    source: sa.Connection
    target: sa.Connection
    there: sa.MetaData
    here: sa.MetaData
    places: ArtifactRoots
    names: frozenset[str]

    def contents(self) -> tuple[dict[str, Content], dict[str, Content]]:
        """Return what the source holds, as the target would hold it, and what the target holds."""
        wanted = tables.contents(self.source, self.there, self.names, self.here, self.places.rewrite)
        return wanted, tables.contents(self.target, self.here, self.names, self.here, lambda _, row: row)


def read_places(source: sa.Connection) -> ArtifactRoots:
    """Return the places of the experiments' artifacts, the longest first, so that one within another is found."""
    known = source.execute(sa.text("SELECT artifact_location, experiment_id FROM experiments")).all()
    moved = {str(place).rstrip("/"): f"{SCHEME}{number}" for place, number in known if str(place).startswith("file:")}
    return ArtifactRoots(dict(sorted(moved.items(), key=lambda one: -len(one[0]))))


def check_source(source: sa.Connection) -> None:
    """Make sure that nothing is being written.

    Raises:
        BadInput: a run is at work, or was killed and not mended yet.
    """
    running = source.execute(sa.text("SELECT run_uuid FROM runs WHERE status = 'RUNNING'")).scalars().all()
    if running:
        raise BadInput(f"{len(running)} MLflow runs are at work, or were killed, first {running[0]}: wait, or `retune run` mends them")


def open_both(source: sa.Connection, target: sa.Connection) -> Both:
    """Look at both databases; the target's is held for us alone until its transaction ends.

    Raises:
        BadInput: they are not of the same revision, or someone else migrates now.
    """
    if not target.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))).scalar_one():
        raise BadInput("another migration into this database is at work: wait for it to end")
    there, here = tables.reflect(source), tables.reflect(target)
    revisions = [revision_of(source, there), revision_of(target, here)]
    if revisions[0] != revisions[1]:
        raise BadInput(
            f"MLflow's tables here are of revision {revisions[0]}, those of the server's database of {revisions[1]}: bring both to one"
            " release of MLflow (`mlflow db upgrade`), then migrate"
        )
    unknown = set(there.tables) - set(here.tables)
    if unknown:
        raise BadInput(f"the server's database has no table {', '.join(sorted(unknown))}")
    return Both(source, target, there, here, read_places(source), frozenset(set(there.tables) - {VERSION, *OF_THE_SERVER}))


def revision_of(connection: sa.Connection, found: sa.MetaData) -> str | None:
    """Return the revision of MLflow's tables; None where there are none."""
    if VERSION not in found.tables:
        return None
    return connection.execute(sa.select(found.tables[VERSION].c.version_num)).scalar()


def is_done(both: Both) -> bool:
    """Say whether the target holds what the source holds already; it is copied only into one that is as a server has made it.

    Raises:
        BadInput: the target holds something else.
    """
    wanted, found = both.contents()
    if wanted == found:
        return True
    filled = [name for name in sorted(found) if found[name].rows > (1 if name in SEEDED else 0)]
    if filled:
        counted = ", ".join(f"{name} {found[name].rows:,}" for name in filled[:5])
        raise BadInput(f"the server's database is not empty ({counted} rows), and nothing is written over: migrate into a fresh one")
    return False


def copy_registry(both: Both) -> dict[str, Content]:
    """Copy every table, and return what each holds once it was read back.

    Raises:
        RetuneError: a table does not come back as it was; nothing was written.
    """
    for name in reversed([table.name for table in both.here.sorted_tables if table.name in SEEDED]):
        both.target.execute(both.here.tables[name].delete())
    tables.copy(both.source, both.target, (both.there, both.here), both.names, both.places.rewrite)
    wanted, found = both.contents()
    if difference := tables.first_difference(wanted, found):
        raise RetuneError(f"the copy differs in {difference}; nothing was written")
    return found


def verify(source: str, server: str, places: ArtifactRoots) -> int:
    """Compare runs and versions as the server shows them with those that are here, and return how many runs there are.

    Raises:
        RetuneError: the server shows others: it has another database.
    """
    with translated_errors(source):
        ours = shown(source, places)
    with translated_errors(server):
        theirs = shown(server, places)
    if ours != theirs:
        lost = sorted(map(str, ours - theirs))
        raise RetuneError(
            f"MLflow at {server} does not show what was copied, first {lost[0] if lost else 'something more'}:"
            " is RETUNE_MLFLOW_DATABASE the database of this server?"
        )
    return sum(one[0] == "run" for one in ours)


def shown(uri: str, places: ArtifactRoots) -> set[tuple[object, ...]]:
    """Return runs, versions and aliases as a store shows them, each with what must be the same."""
    client, everything = connect(uri), 3  # MLflow's ViewType.ALL
    found: set[tuple[object, ...]] = set()
    experiments = [one.experiment_id for one in client.search_experiments(view_type=everything)]
    token = None
    while True:
        page = client.search_runs(experiments, run_view_type=everything, max_results=1000, page_token=token)
        found |= {("run", one.info.run_id, one.info.status, places.of(one.info.artifact_uri), len(one.data.metrics)) for one in page}
        if not (token := page.token):
            break
    for model in client.search_registered_models(max_results=1000):
        found |= {("alias", model.name, alias, int(number)) for alias, number in model.aliases.items()}
        versions = client.search_model_versions(f"name = '{model.name}'", max_results=1000)
        found |= {("version", model.name, int(one.version), one.run_id, tuple(sorted(one.tags.items()))) for one in versions}
    return found
