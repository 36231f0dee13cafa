"""Promote, roll back, approve, reject and repair: the functions behind the command line and Prefect's form.

They read and write the registry and the ledger of an environment: the project's own (`local`), or one of RETUNE_ENVIRONMENTS.
"""

import getpass
import logging
import os
import socket
from pathlib import Path

from components.core.errors import BadInput, BadParams
from components.core.section import nearest
from components.ledger import Ledger, Request
from components.mlflow_store import registry
from components.mlflow_store.registry import Decision, Environment, Promotion
from components.mlflow_store.registry.environments import judged_here, reference_number
from flows.production import events
from flows.production.page import refresh_page
from flows.production.promotion_checks import (
    check_copied,
    check_evidence,
    check_known,
    checked_reason,
    find,
    judged_champion,
    models,
    passed,
    reason,
)
from flows.project.stores import LOCAL, local
from flows.project.workspace import find_project, open_project
from flows.settings import read_settings

log = logging.getLogger(__name__)


def environment(name: str = LOCAL, start: Path | None = None) -> Environment:
    """Return an environment of the project at or above `start`; raise NotFound without a project, BadParams for an unknown name."""
    project = open_project(start)
    if name == LOCAL:
        return local(project)
    environments = read_settings(project.project).environments
    if (chosen := environments.get(name)) is None:
        raise BadParams(f"RETUNE_ENVIRONMENTS has no environment {name!r}{nearest(name, [LOCAL, *environments])}")
    return Environment(name, chosen.mlflow, chosen.ledger)


def person(start: Path | None = None) -> str:
    """Return the user for the ledger: RETUNE_USER, else ACCOUNT@HOST."""
    if user := read_settings(find_project((start or Path.cwd()).resolve())).user:
        return user
    try:
        account = getpass.getuser()
    except (OSError, KeyError):  # the account has no name, as in some containers
        account = f"uid {os.getuid()}"
    return f"{account}@{socket.gethostname()}"


def promote(env: Environment, name: str, number: int, *, who: str, why: str | None = None, force: bool = False) -> Promotion:
    """Make a version that passed the champion, if the champion is still the one that it was compared with; `force` skips both checks.

    Raises:
        NotFound: the version does not exist.
        BadInput: the verdict is not PASS, is unreadable or is of another registry, a person rejected it, or a reason is missing.
        BadModel: the predictions of the package differ from the evaluated ones.
        StaleVerdict: the champion has changed since the verdict.
    """
    why, version = checked_reason(why, force=force), find(env, name, number)
    verdict = None if force else passed(env, version)
    if verdict is None:
        decision = Decision("any", who, why or "", forced=True)
    else:
        decision = Decision(judged_champion(version, verdict), who, why or verdict.reason, evidence=verdict.evidence)
    return _announced(env, registry.promote(env.mlflow, env.ledger, name, number, decision))


def promote_from(
    source: Environment, target: Environment, name: str, number: int, *, who: str, why: str | None = None, force: bool = False
) -> Promotion:
    """Copy a version with its evidence from one environment to another, and make it the champion there.

    The verdict compares with the source's champion; if the target has another champion, the target's ledger records that. If the target
    judged the version too, that verdict must also be PASS.

    Raises:
        NotFound: the version does not exist.
        BadInput: it did not pass in the source, or in a target that judged it; a person rejected it, or a reason is missing.
        BadModel: the package differs from the registered one, or its predictions from the evaluated ones.
        StaleVerdict: the target's champion changed during the copy, or since the target judged the version.
    """
    if source == target:
        raise BadInput(f"--from and --to are both {source.name}")
    why = checked_reason(why, force=force)
    version, head = find(source, name, number), Ledger(target.ledger).head(name)
    verdict = None if force else passed(source, version)
    text = why or (verdict.reason if verdict else "")
    copied, expected = registry.copy_version(source, target, name, number), head.version if head else None
    if verdict is not None:
        check_copied(source, target, copied, verdict)
        expected = reference_number(copied) if judged_here(copied) else expected
    text += f" (version {number} of {source.name}{registry.judged_elsewhere_note(source, version, head)})"
    decision = Decision(expected, who, text, forced=force, origin=source.name, evidence=copied.evidence)
    return _announced(target, registry.promote(target.mlflow, target.ledger, name, copied.number, decision))


def rollback(env: Environment, name: str, to: int | None, *, who: str, why: str) -> Promotion:
    """Make an earlier champion the champion again: version `to`, or the previous champion.

    Raises:
        NotFound: the model, the champion or the previous champion does not exist.
        BadInput: version `to` was never champion, or is the champion; or the reason is blank.
        BadModel: the predictions of the package differ from the evaluated ones.
    """
    why = reason(why)
    check_known(env, name)
    return _announced(env, registry.rollback(env.mlflow, env.ledger, name, to, who, why))


def approve(env: Environment, run: str, *, who: str, why: str) -> Promotion:
    """Promote the version of a waiting run; `run` is the beginning of its id in MLflow.

    Raises:
        NotFound: no run, or more than one, matches.
        BadInput: the request was answered or has expired, the verdict has changed since, or the reason is blank.
        BadModel: the predictions of the package differ from the evaluated ones.
        StaleVerdict: the champion has changed since the verdict.
    """
    why, ledger = reason(why), Ledger(env.ledger)
    request = ledger.open_request(run)
    version = find(env, request.model, request.version)
    check_evidence(env, version, request)
    decision = Decision(request.expected, who, why, evidence=request.evidence, request=request)  # answered in the same transaction
    promotion = _announced(env, registry.promote(env.mlflow, env.ledger, request.model, request.version, decision))
    if not promotion.changed:
        ledger.answer(request.run, "approved", who, why)
        registry.refresh_ledger_head(env.mlflow, env.ledger, request.model)
    registry.record_decision(env.mlflow, version, f"approved by {who}: {why}", withdrawn=False)
    return promotion


def reject(env: Environment, run: str, *, who: str, why: str) -> Request:
    """Reject the version of a waiting run, and remove its alias challenger.

    Raises:
        NotFound: no run, or more than one, matches.
        BadInput: the request was answered or has expired, or the reason is blank.
    """
    why, ledger = reason(why), Ledger(env.ledger)
    registry.refresh_ledger_head(env.mlflow, env.ledger, ledger.open_request(run).model)  # check the ledger before writing to it
    request = ledger.answer(run, "rejected", who, why)
    registry.refresh_ledger_head(env.mlflow, env.ledger, request.model)
    sync_requests(env, request.model)
    events.publish_rejection(request)
    refresh_page(env, request.model)
    return request


def _announced(env: Environment, promotion: Promotion) -> Promotion:
    """Publish a promotion, and write it to the report page."""
    events.publish_promotion(promotion)
    refresh_page(env, promotion.entry.model)
    return promotion


def sync_requests(env: Environment, name: str) -> list[str]:
    """Record in the registry which requests were answered, expired or reopened; return one sentence per change.

    A version with an expired request loses the alias challenger; for the champion only an approval is recorded.
    """
    newest = {request.run: request for request in Ledger(env.ledger).requests(name)}
    versions = {version.number: version for version in registry.versions(env.mlflow, name)} if newest else {}
    changes = []
    for request in newest.values():
        version, answer = versions.get(request.version), answer_of(request)
        approved = request.decision == "approved"
        if version is None or (registry.CHAMPION in version.aliases and not approved):
            continue
        if version.answer == answer or not (version.evidence == request.evidence or request.rejects(version.verdict_key)):
            continue
        if answer is not None:
            registry.record_decision(env.mlflow, version, answer, withdrawn=not approved)
            changes.append(f"version {version.number} was {answer}")
        elif request.is_open():
            registry.reopen(env.mlflow, version)
            changes.append(f"version {version.number} waits for an answer again")
    return changes


def answer_of(request: Request) -> str | None:
    """Return the decision on a request, or that it expired; None if it is open or superseded."""
    if request.decision in ("approved", "rejected"):
        return f"{request.decision} by {request.who}: {request.why}"
    return f"expired at {request.expires_at:%Y-%m-%dT%H:%MZ} without an answer" if request.expired() else None


def reconcile(env: Environment, name: str | None = None) -> dict[str, list[str]]:
    """Repair the aliases of one model, or of all, from the ledger; return the repairs by model. Raise NotFound for an unknown model."""
    if name is not None:
        check_known(env, name)
    chosen = [name] if name is not None else models(env)
    return {model: sync_registry(env, model) for model in chosen}


def accept(env: Environment, *, who: str, why: str) -> None:
    """Accept the ledger as it is: start a new chain over it, with the user and a reason; raise BadInput if that is blank."""
    registry.accept_ledger(env.mlflow, env.ledger, who, reason(why))


def sync_registry(env: Environment, name: str) -> list[str]:
    """Update a model's aliases and requests in the registry from the ledger; return one sentence per repair."""
    return [*registry.reconcile(env.mlflow, env.ledger, name), *sync_requests(env, name)]
