"""Gather the evidence for the gates: rows of the workspace, past data from DVC's cache, answers of the registered versions."""

import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.behaviour import Behaviour
from components.artifacts.cost import Cost
from components.artifacts.metrics import Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows
from components.artifacts.served_answers import ServedAnswers
from components.artifacts.training import Training
from components.core.errors import BadModel, BadParams
from components.core.hashing import digest_file, digest_value
from components.evaluation.behaviour import evaluate_cases, make_cases, read_cases
from components.evaluation.metric_set import metric_set
from components.gates import GatesParams, needs, settings_of
from components.gates.support import Evidence, ReferenceModel
from components.gates.support.evidence_settings import BehaviourSettings, CostSettings, OverlapSettings, PastTestSettings, ServedSettings
from components.gates.support.learned_rows import measure_exposure, without_learned_rows
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
    sessions: ModelSessions,
    version: registry.Version,
    versions: dict[str, registry.Version],
    references: ReferenceModels,
    params: Params,
    test_digest: str,
    wear: PriorUse,
) -> Evidence:
    """Gather the evidence on a registered candidate; what only some gates use is gathered if an enabled gate needs it.

    `versions` are by key. Missing data of the past (deleted version, lost cache) are faults in the evidence, not errors.
    """
    gates, task, test, train = params.gates, params.made_task, test_rows(workspace), learn_rows(workspace.root / "data/prepared/learn")
    needed = needs(gates)
    references = replace(
        references,
        best_champion=references.best_champion if "best_champion" in needed else None,
        before=references.before if "training_rows" in needed else (),
    )
    predicted = sorted(workspace.predictions.glob("*.parquet"))
    candidate = Predictions.read(workspace.predictions / "candidate.parquet")
    sessions.remember(version, test, candidate)
    champion = reference_model(sessions, task, references.champion, versions, test, test_digest)
    scored = references.champion if champion and champion.predictions is not None else None
    champion_version = versions.get(scored.key) if scored else None
    others = tuple(training_rows(workspace, uri, version, references, versions))
    exposure = measure_exposure(test, train, others, settings_of(gates, OverlapSettings)[1].near_duplicate)
    if excluded := len(exposure.left_out):
        reason = "they are training rows of a compared model, or near copies"
        log.warning("%d of %d test rows are excluded from every comparison: %s", excluded, len(test), reason)
    rows = exposure.comparable
    past = partial(earlier_tests, workspace, sessions, version, champion_version, versions, params, test_digest, train, others)
    evidence = Evidence(
        candidate=candidate,
        baselines={path.stem: Predictions.read(path) for path in predicted if path.stem != "candidate"},
        baseline_scores=Metrics.read(workspace.reports / "evaluation").validation,
        method=str(Training.read(workspace.model.parent).settings.get("method", "")),
        champion=champion,
        best_champion=reference_model(sessions, task, references.best_champion, versions, test, test_digest),
        min_class_units=params.evaluate.min_class_units,
        level=gates.test_budget.level,
        candidate_number=wear.number if "candidate_number" in needed else None,
        budget_notes=tuple(budget_notes(wear)),
        rows=test,
        train=train,
        training_rows=others,
        past_test_sets=tuple(past()) if "past_test_sets" in needed else (),
        served=serve(uri, version, rows, gates, task) if "served" in needed else None,
        behaviour=run_behaviour(workspace, sessions, version, champion_version if exposure.unseen.any() else None, rows, params)
        if "behaviour" in needed
        else None,
        cost=measure_latency(uri, sessions, version, champion_version, rows[list(task.inputs)], gates) if "cost" in needed else None,
        metric_set=metric_set(task, candidate, params.evaluate.min_class_units),
        task_slices=task.slices(test),
        one_answer=task.one_answer,
    )
    return without_learned_rows(evidence, exposure)


def budget_notes(wear: PriorUse) -> Iterator[str]:
    """Describe how candidates of other test sets count towards the test-set budget."""
    if wear.shared:
        yield f"at most {wear.shared:.1%} of the test rows were judged in another test set".replace("%", " %")
    if wear.unknown:
        yield f"the rows of {wear.unknown} earlier test sets are unavailable: each of their candidates counts towards this test set"


def test_rows(workspace: Workspace) -> pd.DataFrame:
    """Return the test rows with all their columns, sorted by id like the predictions."""
    rows = read_rows(workspace.root / "data/prepared/test/test.parquet")
    return rows.sort_values("id", ignore_index=True)


def learn_rows(folder: Path) -> pd.DataFrame:
    """Return the training and validation rows of a model."""
    return pd.concat([read_rows(folder / f"{split}.parquet") for split in ("train", "validation")], ignore_index=True)


def serve(uri: str, version: registry.Version, rows: pd.DataFrame, gates: GatesParams, task: tasks.Task) -> ServedAnswers:
    """Query the version behind the scoring server; a package that cannot be loaded is a fault of the version, not of the run."""
    try:
        settings = settings_of(gates, ServedSettings)[1]
        sample = registry.sample_evenly(rows, settings.rows)
        return registry.probe_server(uri, version.name, version.number, sample, settings.max_seconds, task.example)
    except BadModel as error:
        return ServedAnswers(version=version.uri, fault=str(error))


def run_behaviour(
    workspace: Workspace,
    sessions: ModelSessions,
    version: registry.Version,
    champion: registry.Version | None,
    rows: pd.DataFrame,
    params: Params,
) -> Behaviour:
    """Run perturbed test rows and user-written cases on candidate and champion."""
    task = params.made_task
    if not task.classes or task.inputs != ("text",):
        return Behaviour(notes=("cases are single texts with a class, and the task has other inputs or answers",))
    settings, labels = settings_of(params.gates, BehaviourSettings)[1], Predictions.read(workspace.predictions / "candidate.parquet").labels
    user_cases = read_cases(workspace.origin / settings.cases, labels) if settings.cases else None
    cases, notes = make_cases(rows, user_cases, kinds=settings.kinds, count=settings.rows, seed=settings.seed, padding=settings.padding)
    return evaluate_cases(cases, sessions.session(version), sessions.session(champion) if champion else None, notes)


def measure_latency(
    uri: str, sessions: ModelSessions, version: registry.Version, champion: registry.Version | None, rows: pd.DataFrame, gates: GatesParams
) -> Cost:
    """Time candidate and champion alternately on the inputs of test rows."""
    settings = settings_of(gates, CostSettings)[1]
    return registry.measure(
        sessions.session(version),
        sessions.session(champion) if champion else None,
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
    sessions: ModelSessions, task: tasks.Task, entry: Entry | None, versions: dict[str, registry.Version], rows: pd.DataFrame, digest: str
) -> ReferenceModel | None:
    """Return a former or current champion's answers to the test rows, or the fault."""
    if entry is None:
        return None
    version = versions.get(entry.key)
    if version is None:
        return ReferenceModel(str(entry.version), None, "it was deleted from the registry")
    try:
        spec = sessions.inspect(version)  # fails for a deleted package, even if its answers are cached
        answers = sessions.predictions(version, rows, digest)
        known = {sessions.label(name) for name in tasks.of(spec).names(spec.labels)}
        return ReferenceModel(str(version.number), answers, None, *unknown_labels(task, rows, known))
    except BadModel as error:
        log.warning("version %d cannot be scored: %s", version.number, error)
        return ReferenceModel(str(version.number), None, str(error))


def unknown_labels(task: tasks.Task, rows: pd.DataFrame, known: Collection[str]) -> tuple[tuple[str, ...], npt.NDArray[np.bool_] | None]:
    """Return the label names of `rows` that are not `known`, and the rows without them; not needed for classes."""
    unknown = task.names(task.label_counts(rows)) - set(known)
    if task.classes or not unknown:
        return (), None
    known_rows = [unknown.isdisjoint(task.names(task.label_counts(rows.iloc[[row]]))) for row in range(len(rows))]
    return tuple(sorted(unknown)), np.array(known_rows, dtype=np.bool_)


def outside_files(workspace: Workspace, gates: GatesParams) -> dict[str, Path]:
    """Return the files that evidence is gathered from besides the data, by their setting, if an enabled gate needs it."""
    needed = needs(gates)
    paths: dict[str, str] = {}
    if "past_test_sets" in needed:
        name, past = settings_of(gates, PastTestSettings)
        paths |= {f"gates.{name}.sets: {path}": path for path in past.sets}
    if "behaviour" in needed:
        name, behaviour = settings_of(gates, BehaviourSettings)
        paths |= {f"gates.{name}.cases": behaviour.cases} if behaviour.cases else {}
    return {setting: workspace.origin / path for setting, path in paths.items()}


def outside_digests(workspace: Workspace, params: Params) -> dict[str, str]:
    """Return the digests of files in the gates' settings and of `validate.label_map`, which a verdict depends on.

    Raises:
        BadParams: a file is missing, or the one with cases cannot be read.
    """
    files = outside_files(workspace, params.gates)
    if missing := [f"{setting}: {file} is missing" for setting, file in files.items() if not file.is_file()]:
        raise BadParams("params.yaml: " + "; ".join(missing))
    if cases := files.get(f"gates.{settings_of(params.gates, BehaviourSettings)[0]}.cases"):
        read_cases(cases)
    digests = {setting: digest_file(file) for setting, file in files.items()}
    label_map = params.validation.label_map  # also applies to labels of earlier versions
    return {**digests, **({"validate.label_map": digest_value(label_map)} if label_map else {})}
