"""What a person may do to production: promote, roll back, approve, reject, mend. The command line and Prefect's page call the same.

Reads and writes the registry and the ledger of an environment: the project's own (`local`), or one that RETUNE_ENVIRONMENTS names.
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
from components.mlflow_store.registry import Environment, Promotion
from components.mlflow_store.registry.environments import judge_in_target, reference_here
from flows.production import events
from flows.production.promotion_checks import (
    check_copied,
    check_evidence,
    check_known,
    checked_reason,
    find,
    models,
    opponent,
    passed,
    reason,
)
from flows.project.stores import LOCAL, local
from flows.project.workspace import Workspace, find_project
from flows.settings import load_into_environment, read_settings

log = logging.getLogger(__name__)


def environment(name: str = LOCAL, start: Path | None = None) -> Environment:
    """Return an environment as the project above `start` (the working folder) knows it.

    Raises:
        NotThere: no project here.
        BadParams: no environment has that name.
    """
    project = find_project((start or Path.cwd()).resolve())
    settings = load_into_environment(project)
    if name == LOCAL:
        return local(Workspace(project, project, project / "params.yaml"))
    known = settings.environments
    if name not in known:
        raise BadParams(f"RETUNE_ENVIRONMENTS names no environment {name!r}{nearest(name, [LOCAL, *known])}")
    return Environment(name, known[name].mlflow, known[name].ledger)


def person(start: Path | None = None) -> str:
    """Return who acts, for the ledger: RETUNE_USER, else the account and the machine."""
    named = read_settings(find_project((start or Path.cwd()).resolve())).user
    return named or f"{account()}@{socket.gethostname()}"


def account() -> str:
    """Return the name of the account; its number where it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


def promote(place: Environment, name: str, number: int, *, who: str, why: str | None = None, force: bool = False) -> Promotion:
    """Make a version the champion: one that passed, over the champion that its verdict was about; by force any, over anyone.

    Raises:
        NotThere: no such version.
        BadInput: its verdict is not PASS, cannot be read or is about another registry, a person rejected it, or a reason is missing.
        BadModel: its package does not answer as it was evaluated.
        Outdated: the champion is another one than the verdict was about.
    """
    why, version = checked_reason(why, force=force), find(place, name, number)
    verdict = None if force else passed(place, version)
    return publish_event(
        registry.promote(
            place.mlflow,
            place.ledger,
            name,
            number,
            expected=opponent(version, verdict) if verdict else "any",
            who=who,
            why=why or (verdict.reason if verdict else ""),
            forced=force,
            evidence=verdict.evidence if verdict else None,
        )
    )


def publish_event(promotion: Promotion) -> Promotion:
    """Tell of a promotion that changed something, and return it."""
    if promotion.changed:
        events.publish_promotion(promotion.entry)
    return promotion


def promote_from(
    source: Environment, target: Environment, name: str, number: int, *, who: str, why: str | None = None, force: bool = False
) -> Promotion:
    """Copy a version with its evidence from one environment to another, and make it the champion there.

    Its verdict is about the source's champion. Where the target has another one, the ledger there says so. Where the target judged the
    version itself, that verdict stands, and must be PASS, too.

    Raises:
        NotThere: no such version.
        BadInput: it did not pass in the source, or in the target where that judged it, too; a person rejected it, or a reason is missing.
        BadModel: its package is not what was registered, or does not answer as it was evaluated.
        Outdated: someone changed the target's champion meanwhile, or since the target judged the version.
    """
    if source == target:
        raise BadInput(f"--from and --to are both {source.name}")
    why = checked_reason(why, force=force)
    version, head = find(source, name, number), Ledger(target.ledger).head(name)
    verdict = None if force else passed(source, version)
    said = why or (verdict.reason if verdict else "")
    copied, expected = registry.copy_version(source, target, name, number), head.version if head else None
    if verdict is not None:
        check_copied(source, target, copied, verdict)
        expected = reference_here(copied) if judge_in_target(copied) else expected
    return publish_event(
        registry.promote(
            target.mlflow,
            target.ledger,
            name,
            copied.number,
            expected=expected,
            who=who,
            why=f"{said} (version {number} of {source.name}{registry.judged_elsewhere(source, version, head)})",
            forced=force,
            origin=source.name,
            evidence=copied.evidence,
        )
    )


def rollback(place: Environment, name: str, to: int | None, *, who: str, why: str) -> Promotion:
    """Make an earlier champion the champion again: version `to`, or the one before the present one.

    Raises:
        NotThere: there is no such model, or no champion to go back from or to.
        BadInput: version `to` was never champion, or is the champion; or the reason is blank.
        BadModel: its package does not answer as it was evaluated.
    """
    why = reason(why)
    check_known(place, name)
    return publish_event(registry.rollback(place.mlflow, place.ledger, name, to, who, why))


def approve(place: Environment, run: str, *, who: str, why: str) -> Promotion:
    """Promote the version of a run that waits; `run` is the beginning of its id in MLflow.

    Raises:
        NotThere: no run, or several, that begin so.
        BadInput: it was answered before or meanwhile, its time has passed, the verdict is not the one that was asked about, or the reason
            is blank.
        BadModel: its package does not answer as it was evaluated.
        Outdated: the champion is another one than the verdict was about.
    """
    why, ledger = reason(why), Ledger(place.ledger)
    request = ledger.open_request(run)
    version = find(place, request.model, request.version)
    check_evidence(place, version, request)
    promotion = publish_event(
        registry.promote(
            place.mlflow,
            place.ledger,
            request.model,
            request.version,
            expected=request.expected,
            who=who,
            why=why,
            evidence=request.evidence,
            request=request,  # which is answered in the same transaction, if it waits still
        )
    )
    if not promotion.changed:
        ledger.answer(request.run, "approved", who, why)
        registry.confirm(place.mlflow, place.ledger, request.model)
    registry.record_decision(place.mlflow, version, f"approved by {who}: {why}", withdrawn=False)
    return promotion


def reject(place: Environment, run: str, *, who: str, why: str) -> Request:
    """Say no to a run that waits: its version is no challenger any more.

    Raises:
        NotThere: no run, or several, that begin so.
        BadInput: it was answered before, its time has passed, or the reason is blank.
    """
    why, ledger = reason(why), Ledger(place.ledger)
    registry.confirm(place.mlflow, place.ledger, ledger.open_request(run).model)  # before it is written to, and after
    request = ledger.answer(run, "rejected", who, why)
    registry.confirm(place.mlflow, place.ledger, request.model)
    settle(place, request.model)
    events.publish_rejection(request)
    return request


def settle(place: Environment, name: str) -> list[str]:
    """Tell in the registry which requests were answered or expired, or wait again; return a sentence for what was not told yet.

    A version whose time for an answer has passed is no challenger any more; of the champion only its approval is told.
    """
    newest = {request.run: request for request in Ledger(place.ledger).requests(name)}
    known = {version.number: version for version in registry.versions(place.mlflow, name)} if newest else {}
    said = []
    for request in newest.values():
        version, answer = known.get(request.version), finish_request(request)
        approved = request.decision == "approved"
        if version is None or (registry.CHAMPION in version.aliases and not approved):
            continue
        if version.answer == answer or not (version.evidence == request.evidence or request.rejects(version.verdict_key)):
            continue
        if answer is not None:
            registry.record_decision(place.mlflow, version, answer, withdrawn=not approved)
            said.append(f"version {version.number} was {answer}")
        elif request.is_open():
            registry.reopen(place.mlflow, version)
            said.append(f"version {version.number} waits for an answer again")
    return said


def finish_request(request: Request) -> str | None:
    """Return what a person said of a request, or that nobody did in time; None for one that waits or was superseded."""
    if request.decision in ("approved", "rejected"):
        return f"{request.decision} by {request.who}: {request.why}"
    return f"expired at {request.expires_at:%Y-%m-%dT%H:%MZ} without an answer" if request.expired() else None


def reconcile(place: Environment, name: str | None = None) -> dict[str, list[str]]:
    """Mend the aliases of one model, or of all, from the ledger; return what was mended, a list of sentences a model.

    Raises:
        NotThere: there is no model of that name.
    """
    if name is not None:
        check_known(place, name)
    chosen = [name] if name is not None else models(place)
    return {each: bring(place, each) for each in chosen}


def accept(place: Environment, *, who: str, why: str) -> None:
    """Take the ledger as it is for right: a new chain begins over it, which keeps who said so and why.

    Raises:
        BadInput: the reason is blank.
    """
    registry.accept(place.mlflow, place.ledger, who, reason(why))


def bring(place: Environment, name: str) -> list[str]:
    """Bring the registry to what the ledger says of a model; return a sentence for whatever disagreed."""
    return [*registry.reconcile(place.mlflow, place.ledger, name), *settle(place, name)]
