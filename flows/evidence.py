"""What the gates decide on, gathered: rows from the workspace, earlier data from DVC's cache, answers from the registered versions."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from components import registry, tasks
from components.artifacts.behaviour import Behaviour
from components.artifacts.cost import Cost
from components.artifacts.earlier import Earlier, prepare_earlier
from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows, read_snapshot
from components.artifacts.served import Served
from components.artifacts.verdict import Role
from components.behaviour import collect, make_cases, read_cases
from components.errors import BadModel, BadParams, NotThere, RetuneError
from components.gates import Evidence, GatesParams, Rival
from components.identity import digest_file
from components.ledger import Entry
from components.snapshot import take_snapshot
from flows import dvc
from flows.asked import Asked
from flows.params import Params
from flows.workspace import Workspace

log = logging.getLogger(__name__)


def gather(
    workspace: Workspace,
    uri: str,
    asked: Asked,
    version: registry.Version,
    known: dict[str, registry.Version],
    champion: Entry | None,
    anchor: Entry | None,
    params: Params,
    test_digest: str,
    look: int,
) -> Evidence:
    """Collect the evidence on a registered candidate; `known` are the registered versions by key.

    What cannot be had of the past (a version that was deleted, data that left the cache) is a fault that the gates name, no error.
    """
    gates, test, learnt = params.gates, test_rows(workspace), learn_rows(workspace.root / "data/prepared/learn")
    candidate, opponent = Predictions.read(workspace.predictions / "candidate.parquet"), known.get(champion.key) if champion else None
    asked.remember(version, test, candidate)
    found = rival(asked, champion, known, test, test_digest)
    able = opponent if found is not None and found.predictions is not None else None
    return Evidence(
        candidate=candidate,
        baselines={path.stem: Predictions.read(path) for path in baselines(workspace)},
        champion=found,
        anchor=rival(asked, anchor, known, test, test_digest) if wanted(gates, "anchor") else None,
        min_class_units=params.evaluate.min_class_units,
        level=gates.looks.level,
        look=look if wanted(gates, "looks") else None,
        rows=test,
        train=learnt,
        champion_train=champion_rows(workspace, opponent) if opponent and wanted(gates, "leakage") else None,
        earlier=tuple(earlier_tests(workspace, asked, version, able, known, params, test_digest, learnt))
        if wanted(gates, "forgetting")
        else (),
        served=serve(uri, version, test, gates) if wanted(gates, "servability") else None,
        behaviour=try_cases(workspace, asked, version, able, test, gates) if wanted(gates, "behaviour") else None,
        cost=time_both(uri, asked, version, able, test, gates) if wanted(gates, "cost") else None,
    )


def wanted(gates: GatesParams, name: str) -> bool:
    """Say whether a gate will be asked."""
    return getattr(gates, name).role is not Role.OFF


def baselines(workspace: Workspace) -> list[Path]:
    """Return the files with the baselines' predictions."""
    return [path for path in sorted(workspace.predictions.glob("*.parquet")) if path.stem != "candidate"]


def test_rows(workspace: Workspace) -> pd.DataFrame:
    """Return the test rows with all their columns, in the order of the predictions: by id."""
    rows = read_rows(workspace.root / "data/prepared/test/test.parquet")
    return rows.sort_values("id", ignore_index=True)


def learn_rows(folder: Path) -> pd.DataFrame:
    """Return the rows that a model learnt from: training and validation."""
    return pd.concat([read_rows(folder / f"{split}.parquet") for split in ("train", "validation")], ignore_index=True)


def serve(uri: str, version: registry.Version, rows: pd.DataFrame, gates: GatesParams) -> Served:
    """Ask the version behind the scoring server; a package that must not be loaded is a fault of the version, not of the run."""
    try:
        return registry.serve_and_ask(
            uri, version.name, version.number, registry.evenly(rows, gates.servability.rows), gates.servability.max_seconds
        )
    except BadModel as error:
        return Served(version=version.uri, fault=str(error))


def try_cases(
    workspace: Workspace, asked: Asked, version: registry.Version, champion: registry.Version | None, rows: pd.DataFrame, gates: GatesParams
) -> Behaviour:
    """Ask candidate and champion about test rows that are changed on purpose, and about what the user wrote.

    Raises:
        BadParams: the user's file cannot be read, or names a label that the candidate does not know.
    """
    settings, labels = gates.behaviour, Predictions.read(workspace.predictions / "candidate.parquet").labels
    written = read_cases(workspace.origin / settings.cases, labels) if settings.cases else None
    cases, notes = make_cases(rows, written, kinds=settings.kinds, count=settings.rows, seed=settings.seed, padding=settings.padding)
    return collect(cases, asked.session(version), asked.session(champion) if champion else None, notes)


def time_both(
    uri: str, asked: Asked, version: registry.Version, champion: registry.Version | None, rows: pd.DataFrame, gates: GatesParams
) -> Cost:
    """Time candidate and champion in turn on test rows."""
    settings = gates.cost
    return registry.measure(
        asked.session(version),
        asked.session(champion) if champion else None,
        rows["text"].tolist(),
        sizes=(
            registry.package_bytes(uri, version.name, version.number),
            registry.package_bytes(uri, champion.name, champion.number) if champion else None,
        ),
        batch_sizes=settings.batch_sizes,
        pairs=settings.pairs,
        requests=settings.requests,
        seconds=settings.max_seconds,
    )


def rival(asked: Asked, entry: Entry | None, known: dict[str, registry.Version], rows: pd.DataFrame, digest: str) -> Rival | None:
    """Return an earlier champion's answers to today's test rows, or why there are none."""
    if entry is None:
        return None
    version = known.get(entry.key)
    if version is None:
        return Rival(str(entry.version), None, "it was deleted from the registry")
    try:
        return Rival(str(version.number), asked.predictions(version, rows, digest))
    except BadModel as error:
        log.warning("version %d cannot be scored: %s", version.number, error)
        return Rival(str(version.number), None, str(error))


def champion_rows(workspace: Workspace, version: registry.Version) -> pd.DataFrame | None:
    """Return the rows that a version learnt from, out of DVC's cache; None where they are gone."""
    try:
        return pd.concat([cached_rows(workspace, version, "data/prepared/learn", f"{split}.parquet") for split in ("train", "validation")])
    except NotThere as error:
        log.warning("what version %d learnt from is not at hand: %s", version.number, error)
        return None


def cached_rows(workspace: Workspace, version: registry.Version, folder: str, name: str) -> pd.DataFrame:
    """Return a table that was an output of the stages when a version was made.

    Raises:
        NotThere: DVC's cache has it no more.
    """
    md5 = json.loads(version.tags.get("retune.dvc_lock", "{}")).get(folder)
    if md5 is None:
        raise NotThere(f"version {version.number} does not say which {folder} it was made with")
    return read_rows(dvc.cached_file(workspace.root, md5, name))


def earlier_tests(
    workspace: Workspace,
    asked: Asked,
    version: registry.Version,
    champion: registry.Version | None,
    known: dict[str, registry.Version],
    params: Params,
    test_digest: str,
    learnt: pd.DataFrame,
) -> Iterator[Earlier]:
    """Ask candidate and champion about the newest earlier test sets and the regression sets; without a champion nothing is forgotten."""
    if champion is None:
        return
    labels = Predictions.read(workspace.predictions / "candidate.parquet").labels
    for name, read in (*_past(workspace, version, known, params, test_digest), *_regression_sets(workspace, params)):
        try:
            rows, left_out = prepare_earlier(read(), learnt["text"], labels)
            mine, theirs = ([asked.about(one, rows) for one in (version, champion)]) if len(rows) else (None, None)
            yield Earlier(name, mine, theirs, left_out=left_out)
        except RetuneError as error:
            yield Earlier(name, fault=str(error))


def _past(
    workspace: Workspace, version: registry.Version, known: dict[str, registry.Version], params: Params, test_digest: str
) -> list[tuple[str, Callable[[], pd.DataFrame]]]:
    """Return the newest test sets of earlier versions that are not today's, and how to read them."""
    found: dict[str, registry.Version] = {}
    for one in sorted(known.values(), key=lambda each: -each.number):
        digest = one.tags.get("retune.test_digest", test_digest)
        if digest != test_digest and one.key != version.key:
            found.setdefault(digest, one)
    newest = list(found.items())[: params.gates.forgetting.last]
    return [
        (f"test set {digest[:8]} of version {one.number}", partial(cached_rows, workspace, one, "data/prepared/test", "test.parquet"))
        for digest, one in newest
    ]


def _regression_sets(workspace: Workspace, params: Params) -> list[tuple[str, Callable[[], pd.DataFrame]]]:
    return [(f"regression set {path}", partial(read_set, workspace, params, path)) for path in params.gates.forgetting.sets]


def read_set(workspace: Workspace, params: Params, path: str) -> pd.DataFrame:
    """Return the labelled rows of a file that the settings name, read as strictly as the data are; a row without an id gets its number."""
    with tempfile.TemporaryDirectory(prefix="retune-") as folder:
        settings = params.snapshot.model_copy(update={"source": path})
        take_snapshot(workspace.origin, Path(folder) / "set", snapshot=settings, required=tasks.load(params.task).COLUMNS)
        rows = read_snapshot(Path(folder) / "set").dropna(subset=["text", "label"]).reset_index(drop=True)
    numbers = pd.Series([f"row {place}" for place in range(len(rows))], dtype="str")
    ids = rows["id"].fillna(numbers) if "id" in rows else numbers
    return rows.assign(id=ids, group=rows["group"].fillna(ids) if "group" in rows else ids)


def outside(workspace: Workspace, params: Params) -> dict[str, str]:
    """Return the digests of the files that the gates' settings name: a verdict depends on them.

    Raises:
        BadParams: a file is missing.
    """
    gates = params.gates
    named = {f"gates.forgetting.sets: {path}": path for path in gates.forgetting.sets if wanted(gates, "forgetting")}
    if gates.behaviour.cases and wanted(gates, "behaviour"):
        named["gates.behaviour.cases"] = gates.behaviour.cases
    missing = [
        f"{setting}: {workspace.origin / path} is missing" for setting, path in named.items() if not (workspace.origin / path).is_file()
    ]
    if missing:
        raise BadParams("params.yaml: " + "; ".join(missing))
    return {setting: digest_file(workspace.origin / path) for setting, path in named.items()}
