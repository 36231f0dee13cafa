"""What the gates decide on, gathered: rows from the workspace, earlier data from DVC's cache, answers from the registered versions."""

import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.behaviour import Behaviour
from components.artifacts.cost import Cost
from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows
from components.artifacts.served_answers import ServedAnswers
from components.artifacts.verdict import Role
from components.core.errors import BadModel, BadParams
from components.core.hashing import digest_file, digest_value
from components.evaluation.behaviour import evaluate_cases, make_cases, read_cases
from components.evaluation.metric_set import metric_set
from components.gates import Evidence, GatesParams, ReferenceModel, measure_exposure, without_learned_rows
from components.ledger import Entry, PriorUse
from components.mlflow_store import registry
from components.model import tasks
from flows.pipeline.historical_data import earlier_tests, training_rows
from flows.pipeline.model_sessions import ModelSessions
from flows.pipeline.reference_models import ReferenceModels
from flows.project.params import Params
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)


def gather(
    workspace: Workspace,
    uri: str,
    asked: ModelSessions,
    version: registry.Version,
    known: dict[str, registry.Version],
    rivals: ReferenceModels,
    params: Params,
    test_digest: str,
    wear: PriorUse,
) -> Evidence:
    """Collect the evidence on a registered candidate; `known` are the registered versions by key.

    What cannot be had of the past (a version that was deleted, data that left the cache) is a fault that the gates name, no error.
    """
    gates, test, learnt = params.gates, test_rows(workspace), learn_rows(workspace.root / "data/prepared/learn")
    task = params.made_task
    champion = rivals.champion
    candidate, opponent = Predictions.read(workspace.predictions / "candidate.parquet"), known.get(champion.key) if champion else None
    asked.remember(version, test, candidate)
    found = reference_model(asked, task, champion, known, test, test_digest)
    able = opponent if found is not None and found.predictions is not None else None
    asked_about = replace(
        rivals, anchor=rivals.anchor if wanted(gates, "best_champion") else None, before=rivals.before if wanted(gates, "leakage") else ()
    )
    others = tuple(training_rows(workspace, uri, version, asked_about, known))
    held = measure_exposure(test, learnt, others, gates.leakage.near_duplicate)
    rows = held.usable
    if held.left_out:
        log.warning(
            "%d of %d test rows leave every comparison: a compared model has learnt them or near copies", len(held.left_out), len(test)
        )
    whole = Evidence(
        candidate=candidate,
        baselines={path.stem: Predictions.read(path) for path in baselines(workspace)},
        champion=found,
        anchor=reference_model(asked, task, rivals.anchor, known, test, test_digest) if wanted(gates, "best_champion") else None,
        min_class_units=params.evaluate.min_class_units,
        level=gates.test_budget.level,
        look=wear.number if wanted(gates, "test_budget") else None,
        wear=tuple(in_words(wear)),
        rows=test,
        train=learnt,
        seen=others,
        earlier=tuple(earlier_tests(workspace, asked, version, able, known, params, test_digest, learnt, others))
        if wanted(gates, "forgetting")
        else (),
        served=serve(uri, version, rows, gates, task) if wanted(gates, "servability") else None,
        behaviour=behave(workspace, asked, version, able if held.fresh.any() else None, rows, params)
        if wanted(gates, "behaviour")
        else None,
        cost=measure_latency(uri, asked, version, able, rows[list(task.inputs)], gates) if wanted(gates, "cost") else None,
        yardstick=metric_set(task, candidate, params.evaluate.min_class_units),
        parts=task.slices(test),
        one_answer=task.one_answer,
    )
    return without_learned_rows(whole, held)


def in_words(wear: PriorUse) -> Iterator[str]:
    """Say how the looks at a test set were counted, where other test sets have part in it."""
    if wear.shared:
        yield f"{wear.shared:.1%} of the test rows, at the most, were judged in another test set".replace("%", " %")
    if wear.unknown:
        yield f"the rows of {wear.unknown} earlier test sets are not known any more: each candidate on them counts as one on today's"


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


def serve(uri: str, version: registry.Version, rows: pd.DataFrame, gates: GatesParams, task: tasks.Task) -> ServedAnswers:
    """Ask the version behind the scoring server; a package that must not be loaded is a fault of the version, not of the run."""
    try:
        return registry.probe_server(
            uri,
            version.name,
            version.number,
            registry.sample_evenly(rows, gates.servability.rows),
            gates.servability.max_seconds,
            task.example,
        )
    except BadModel as error:
        return ServedAnswers(version=version.uri, fault=str(error))


def behave(
    workspace: Workspace,
    asked: ModelSessions,
    version: registry.Version,
    champion: registry.Version | None,
    rows: pd.DataFrame,
    params: Params,
) -> Behaviour:
    """Try the cases, which are single texts with classes for answers."""
    task = params.made_task
    if not task.classes or task.inputs != ("text",):
        return Behaviour(notes=("cases are single texts that get a class, and the task asks or answers otherwise",))
    return run_behaviour_cases(workspace, asked, version, champion, rows, params.gates)


def run_behaviour_cases(
    workspace: Workspace,
    asked: ModelSessions,
    version: registry.Version,
    champion: registry.Version | None,
    rows: pd.DataFrame,
    gates: GatesParams,
) -> Behaviour:
    """Ask candidate and champion about test rows that are changed on purpose, and about what the user wrote.

    Raises:
        BadParams: the user's file cannot be read, or names a label that the candidate does not know.
    """
    settings, labels = gates.behaviour, Predictions.read(workspace.predictions / "candidate.parquet").labels
    written = read_cases(workspace.origin / settings.cases, labels) if settings.cases else None
    cases, notes = make_cases(rows, written, kinds=settings.kinds, count=settings.rows, seed=settings.seed, padding=settings.padding)
    return evaluate_cases(cases, asked.session(version), asked.session(champion) if champion else None, notes)


def measure_latency(
    uri: str, asked: ModelSessions, version: registry.Version, champion: registry.Version | None, rows: pd.DataFrame, gates: GatesParams
) -> Cost:
    """Time candidate and champion in turn on the inputs of test rows."""
    settings = gates.cost
    return registry.measure(
        asked.session(version),
        asked.session(champion) if champion else None,
        rows,
        sizes=(
            registry.package_bytes(uri, version.name, version.number),
            registry.package_bytes(uri, champion.name, champion.number) if champion else None,
        ),
        batch_sizes=settings.batch_sizes,
        pairs=settings.pairs,
        requests=settings.requests,
        seconds=settings.max_seconds,
    )


def reference_model(
    asked: ModelSessions, task: tasks.Task, entry: Entry | None, known: dict[str, registry.Version], rows: pd.DataFrame, digest: str
) -> ReferenceModel | None:
    """Return an earlier champion's answers to today's test rows, or why there are none."""
    if entry is None:
        return None
    version = known.get(entry.key)
    if version is None:
        return ReferenceModel(str(entry.version), None, "it was deleted from the registry")
    try:
        spec = asked.inspect(version)  # answers that were kept do not make up for a package that is gone
        answers = asked.predictions(version, rows, digest)
        return ReferenceModel(
            str(version.number),
            answers,
            None,
            *unknown_labels(task, rows, {asked.label(name) for name in tasks.of(spec).names(spec.labels)}),
        )
    except BadModel as error:
        log.warning("version %d cannot be scored: %s", version.number, error)
        return ReferenceModel(str(version.number), None, str(error))


def unknown_labels(task: tasks.Task, rows: pd.DataFrame, known: Collection[str]) -> tuple[tuple[str, ...], npt.NDArray[np.bool_] | None]:
    """Return what the labels of `rows` speak of and `known` lacks, and which rows have none of it; classes are told by their answers."""
    unknown = task.names(task.label_counts(rows)) - set(known)
    if task.classes or not unknown:
        return (), None
    fits = [unknown.isdisjoint(task.names(task.label_counts(rows.iloc[[place]]))) for place in range(len(rows))]
    return tuple(sorted(unknown)), np.array(fits, dtype=np.bool_)


def outside_digests(workspace: Workspace, params: Params) -> dict[str, str]:
    """Return the digests of the files that the gates' settings name, and of `validate.label_map`: a verdict depends on them.

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
    files = {setting: digest_file(workspace.origin / path) for setting, path in named.items()}
    names = params.validation.label_map  # a name that only an earlier version has is read by it, too
    return {**files, **({"validate.label_map": digest_value(names)} if names else {})}
