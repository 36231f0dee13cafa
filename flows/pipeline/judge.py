"""Judge a registered candidate: find its reference models, reuse an existing verdict, or reach a new one."""

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from components.artifacts.metrics import Metrics
from components.artifacts.verdict import Verdict
from components.core.errors import NotFound
from components.judge import judge as combine
from components.judge import verdict_key
from components.judge.selftest import selftest
from components.ledger import Ledger
from components.ledger.test_set_use import PriorUse
from components.mlflow_store import registry
from flows.pipeline.evidence import gather, outside_digests, test_rows
from flows.pipeline.historical_data import TEST, cached_rows, row_keys
from flows.pipeline.model_sessions import ModelSessions
from flows.pipeline.reference_models import ReferenceModels, reference_models
from flows.project.params import Params, read_params
from flows.project.stores import store
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgeResult:
    """A verdict; `fresh` is false if an earlier run reached it."""

    verdict: Verdict
    fresh: bool


def judge(workspace: Workspace, version: registry.Version, again: bool = False) -> JudgeResult:
    """Judge the registered candidate, or return the existing verdict for the same gates and reference models.

    Judges again if `again` is set, or if the existing verdict is undecided for a temporary reason (e.g. a server that did not start in
    time) and no person has decided about it.
    """
    params, ledger, uri = read_params(workspace.params), Ledger(workspace.ledger), store(workspace)
    test = Metrics.read(workspace.reports / "evaluation").test_digest
    references = reference_models(ledger.entries(version.name), version.key)
    key = verdict_key(
        version.key,
        references.champion.key if references.champion else None,
        test,
        params.gates,
        params.evaluate.min_class_units,
        anchor=references.best_champion.key if references.best_champion else None,
        outside=outside_digests(workspace, params),
    )
    verdict: Verdict | None = None
    existing = None if again else _find_verdict(workspace, uri, version, key)
    if existing is not None and existing.may_pass and not _decided(ledger, version, key):
        log.info("judging again: the earlier verdict was undecided for a temporary reason: %s", existing.reason)
    elif existing is not None:
        log.info("the verdict of an earlier run is still valid: %s; `retune judge --again` judges again", existing.outcome)
        verdict = _renumbered(existing, references)
    if fresh := verdict is None:
        verdict = _judge(workspace, uri, version, references, params, test, key)
        for gate in verdict.gates:
            log.info("gate %s (%s): %s, %s", gate.gate, gate.role, gate.outcome, gate.reason)
    verdict.write(workspace.reports)
    registry.attach_verdict(uri, version.run_id, version.name, version.number, verdict)
    return JudgeResult(verdict, fresh)


def _decided(ledger: Ledger, version: registry.Version, key: str) -> bool:
    """Return whether the version was promoted with this verdict, or a person rejected it."""
    entries = ledger.entries(version.name)
    promoted = any((entry.key, entry.verdict_key) == (version.key, key) for entry in entries)
    return promoted or ledger.rejection(version.name, None, key) is not None


def _find_verdict(workspace: Workspace, uri: str, version: registry.Version, key: str) -> Verdict | None:
    """Return the verdict with this key: from the registry, where its hash is checked, else from the workspace."""
    verdicts = [registry.read_verdict(uri, version) if version.verdict_key == key else None]
    with suppress(NotFound):
        verdicts.append(Verdict.read(workspace.reports))
    return next((verdict for verdict in verdicts if verdict is not None and verdict.key == key), None)


def _judge(
    workspace: Workspace, uri: str, version: registry.Version, references: ReferenceModels, params: Params, test: str, key: str
) -> Verdict:
    """Gather the evidence, run the self-test of the gates on it, and judge."""
    known = {other.key: other for other in registry.versions(uri, version.name) if other.complete}
    wear = count_prior_use(workspace, version, known.values(), test, params)
    with ModelSessions(workspace, uri, params.made_task, params.validation.label_map) as sessions:
        evidence = gather(workspace, uri, sessions, version, known, references, params, test, wear)
    tested = selftest(evidence, params.gates)
    verdict = combine(evidence, params.gates, key=key, candidate_digest=version.key, test_digest=test, tested=tested)
    return Verdict.model_validate_json(verdict.model_dump_json())  # as it is read back: JSON has no NaN


def count_prior_use(
    workspace: Workspace, version: registry.Version, known: Collection[registry.Version], test: str, params: Params
) -> PriorUse:
    """Record this use of the test set, and return how often earlier candidates used its rows; old test sets are read from DVC's cache."""
    ledger = Ledger(workspace.ledger)
    others = {}
    for digest in ledger.tests_without_rows(version.name):
        earlier = next((other for other in known if other.tags.get("retune.test_digest") == digest), None)
        if earlier is not None and digest != test:
            try:
                others[digest] = row_keys(cached_rows(workspace.root, earlier, TEST, "test.parquet"))
            except NotFound as error:
                log.warning("the test rows of version %d are unknown and count as today's: %s", earlier.number, error)
    return ledger.record_test_use(version.name, test, version.key, row_keys(test_rows(workspace)), others, params.gates.test_budget.shared)


def _renumbered(verdict: Verdict, references: ReferenceModels) -> Verdict:
    """Return the verdict with the current version numbers: the same model may have another number in another registry."""
    entries = {"champion": references.champion, "anchor": references.best_champion}
    return verdict.model_copy(update={name: str(entry.version) if entry else None for name, entry in entries.items()})
