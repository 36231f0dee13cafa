"""Judging a registered candidate: who it is held against, whether a verdict stands already, and the verdict where none does."""

import logging
from collections.abc import Collection
from dataclasses import dataclass

from components.artifacts.metrics import Metrics
from components.artifacts.verdict import Verdict
from components.core.errors import NotFound
from components.judge import judge as fold
from components.judge import verdict_key
from components.judge.selftest import selftest
from components.ledger import Ledger, PriorUse
from components.mlflow_store import registry
from flows.pipeline.evidence import gather, outside_digests, test_rows
from flows.pipeline.historical_data import TEST, cached_rows, row_keys
from flows.pipeline.model_sessions import ModelSessions
from flows.pipeline.reference_models import ReferenceModels, reference_models
from flows.project.params import Params, read_params
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgeResult:
    """A verdict; `fresh` is false when an earlier run had reached it."""

    verdict: Verdict
    fresh: bool


def judge(workspace: Workspace, uri: str, version: registry.Version, again: bool = False) -> JudgeResult:
    """Reach a verdict on the registered candidate, or return the one that was reached under the same gates against the same versions.

    It is reached anew where it is asked for `again`, and where it is undecided for a reason that may have passed, as a server that did
    not start in time, unless a person has settled it.
    """
    params, ledger = read_params(workspace.params), Ledger(workspace.ledger)
    test = Metrics.read(workspace.reports / "evaluation").test_digest
    rivals = reference_models(ledger.entries(version.name), version.key)
    key = verdict_key(
        version.key,
        rivals.champion.key if rivals.champion else None,
        test,
        params.gates,
        params.evaluate.min_class_units,
        anchor=rivals.anchor.key if rivals.anchor else None,
        outside=outside_digests(workspace, params),
    )
    standing = None if again else find_verdict(workspace, uri, version, key)
    if standing is not None and standing.may_pass and not _settled(ledger, version, key):
        log.info("the verdict of an earlier run was undecided for a reason that may have passed: %s", standing.reason)
    elif standing is not None:
        log.info("the verdict of an earlier run stands: %s; `retune judge --again` reaches it anew", standing.outcome)
        standing = _renumbered(standing, rivals)
        standing.write(workspace.reports)
        registry.attach_verdict(uri, version.run_id, version.name, version.number, standing)
        return JudgeResult(standing, fresh=False)
    verdict = _reach(workspace, uri, version, rivals, params, test, key)
    for gate in verdict.gates:
        log.info("gate %s (%s): %s, %s", gate.gate, gate.role, gate.shown, gate.reason.removeprefix("not asked: "))
    verdict.write(workspace.reports)
    registry.attach_verdict(uri, version.run_id, version.name, version.number, verdict)
    return JudgeResult(verdict, fresh=True)


def _settled(ledger: Ledger, version: registry.Version, key: str) -> bool:
    """Say whether a person has answered this verdict already: promoted the version with it, or said no."""
    entries = ledger.entries(version.name)
    promoted = any((entry.key, entry.verdict_key) == (version.key, key) for entry in entries)
    return promoted or ledger.rejection(version.name, None, key) is not None


def find_verdict(workspace: Workspace, uri: str, version: registry.Version, key: str) -> Verdict | None:
    """Return the verdict with this key: the version's own, whose hash was checked, else the one that lies in the workspace."""
    with_version = registry.read_verdict(uri, version) if version.verdict_key == key else None
    return next((verdict for verdict in (with_version, read_verdict(workspace)) if verdict is not None and verdict.key == key), None)


def read_verdict(workspace: Workspace) -> Verdict | None:
    """Return the verdict that lies in the workspace."""
    try:
        return Verdict.read(workspace.reports)
    except NotFound:
        return None


def _reach(
    workspace: Workspace, uri: str, version: registry.Version, rivals: ReferenceModels, params: Params, test: str, key: str
) -> Verdict:
    """Gather the evidence, let the gates prove on it that they can say no, and judge."""
    known = {one.key: one for one in registry.versions(uri, version.name) if one.complete}
    wear = count_prior_use(workspace, version, known.values(), test, params)
    with ModelSessions(workspace, uri, params.made_task, params.validation.label_map) as asked:
        evidence = gather(workspace, uri, asked, version, known, rivals, params, test, wear)
    tested = selftest(evidence, params.gates)
    verdict = fold(evidence, params.gates, key=key, candidate_digest=version.key, test_digest=test, tested=tested)
    return Verdict.model_validate_json(verdict.model_dump_json())  # as it will be read back: a NaN is none in JSON


def count_prior_use(
    workspace: Workspace, version: registry.Version, known: Collection[registry.Version], test: str, params: Params
) -> PriorUse:
    """Count a look at the test set, by the rows that it shares with earlier ones; those of earlier releases are read from DVC's cache."""
    ledger = Ledger(workspace.ledger)
    others = {}
    for digest in ledger.tests_without_rows(version.name):
        made = next((one for one in known if one.tags.get("retune.test_digest") == digest), None)
        if made is not None and digest != test:
            try:
                others[digest] = row_keys(cached_rows(workspace, made, TEST, "test.parquet"))
            except NotFound as error:
                log.warning(
                    "which rows version %d was judged on cannot be told, so it counts as if they were today's: %s", made.number, error
                )
    return ledger.record_test_use(version.name, test, version.key, row_keys(test_rows(workspace)), others, params.gates.test_budget.shared)


def _renumbered(verdict: Verdict, rivals: ReferenceModels) -> Verdict:
    """Return the verdict with today's numbers: the same model may have another one in another registry."""
    numbers = {name: str(entry.version) if entry else None for name, entry in (("champion", rivals.champion), ("anchor", rivals.anchor))}
    return verdict.model_copy(update=numbers)
