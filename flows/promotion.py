"""What a person may do to production: promote, roll back, approve, reject, mend. The command line and Prefect's page call the same.

Reads and writes the registry and the ledger of an environment: the project's own (`local`), or one that RETUNE_ENVIRONMENTS names.
"""

import getpass
import logging
import os
import socket
from pathlib import Path

from components import registry
from components.artifacts.verdict import Outcome, Verdict
from components.errors import BadInput, BadParams, NotThere
from components.ledger import Ledger, Request
from components.params import nearest
from components.registry import Environment, Promotion, Version
from components.tracking import prepare_store
from flows import events
from flows.settings import read_settings
from flows.workspace import Workspace, find_project

log = logging.getLogger(__name__)

LOCAL = "local"


def environment(name: str = LOCAL, start: Path | None = None) -> Environment:
    """Return an environment as the project above `start` (the working folder) knows it.

    Raises:
        NotThere: no project here.
        BadParams: no environment has that name.
    """
    project = find_project((start or Path.cwd()).resolve())
    if name == LOCAL:
        workspace = Workspace(project, project, project / "params.yaml")
        return Environment(LOCAL, prepare_store(workspace.var), workspace.ledger)
    known = read_settings(project).environments
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
        BadInput: its verdict is not PASS or cannot be read, or force is used without a reason.
        BadModel: its package does not answer as it was evaluated.
        Outdated: the champion is another one than the verdict was about.
    """
    version = find(place, name, number)
    if force:
        if not why:
            raise BadInput("--force needs --why TEXT: the ledger keeps the reason")
        expected: registry.Expected = "any"
    else:
        verdict = passed(place, version)
        expected, why = version.judged_against, why or verdict.reason
    promotion = registry.promote(place.mlflow, place.ledger, name, number, expected=expected, who=who, why=why, forced=force)
    if promotion.changed:
        events.tell_promotion(promotion.entry)
    return promotion


def find(place: Environment, name: str, number: int) -> Version:
    """Return a version.

    Raises:
        NotThere: there is no such model or version; the message names those that there are.
    """
    known = registry.versions(place.mlflow, name)
    if not known:
        there = registry.models(place.mlflow)
        raise NotThere(f"no model {name!r} is registered in {place.name}{nearest(name, there) or '; `retune run` registers one'}")
    version = next((version for version in known if version.number == number), None)
    if version is None:
        raise NotThere(f"{name} has no version {number}; there are: {', '.join(str(one.number) for one in known)}")
    return version


def passed(place: Environment, version: Version) -> Verdict:
    """Return the verdict of a version that passed; a tag alone, which anyone can set, is no verdict.

    Raises:
        BadInput: it did not pass, or the verdict cannot be read.
    """
    called = f"{version.name} version {version.number}"
    by_force = '--force --why "…" promotes it nevertheless'
    if version.verdict is None:
        raise BadInput(f"nobody judged {called}: `retune run` does; {by_force}")
    if version.verdict is not Outcome.PASS:
        raise BadInput(
            f"the verdict on {called} is {version.verdict}: `retune why {version.name} {version.number}` shows the evidence; {by_force}"
        )
    verdict = registry.read_verdict(place.mlflow, version)
    if verdict is None or verdict.outcome is not Outcome.PASS:
        raise BadInput(f"the verdict on {called} is tagged PASS, and its evidence cannot be read: judge again; {by_force}")
    return verdict


def promote_from(
    source: Environment, target: Environment, name: str, number: int, *, who: str, why: str | None = None, force: bool = False
) -> Promotion:
    """Copy a version with its evidence from one environment to another, and make it the champion there.

    Its verdict is about the source's champion. Where the target has another one, the ledger there says so.

    Raises:
        NotThere: no such version.
        BadInput: it did not pass in the source, or force is used without a reason.
        BadModel: its package is not what was registered, or does not answer as it was evaluated.
        Outdated: someone changed the target's champion meanwhile.
    """
    if source == target:
        raise BadInput(f"--from and --to are both {source.name}")
    version, head = find(source, name, number), Ledger(target.ledger).head(name)
    if force and not why:
        raise BadInput("--force needs --why TEXT: the ledger keeps the reason")
    verdict = None if force else passed(source, version)
    reason = why or (verdict.reason if verdict else "")
    copied = registry.copy_version(source, target, name, number)
    promotion = registry.promote(
        target.mlflow,
        target.ledger,
        name,
        copied.number,
        expected=head.version if head else None,
        who=who,
        why=f"{reason} (version {number} of {source.name}{registry.judged_elsewhere(source, version, head)})",
        forced=force,
        origin=source.name,
    )
    if promotion.changed:
        events.tell_promotion(promotion.entry)
    return promotion


def rollback(place: Environment, name: str, to: int | None, *, who: str, why: str) -> Promotion:
    """Make an earlier champion the champion again: version `to`, or the one before the present one.

    Raises:
        NotThere: there is no champion to go back from or to.
        BadInput: version `to` was never champion, or is the champion.
        BadModel: its package does not answer as it was evaluated.
    """
    promotion = registry.rollback(place.mlflow, place.ledger, name, to, who, why)
    if promotion.changed:
        events.tell_promotion(promotion.entry)
    return promotion


def approve(place: Environment, run: str, *, who: str, why: str) -> Promotion:
    """Promote the version of a run that waits; `run` is the beginning of its id in MLflow.

    Raises:
        NotThere: no run, or several, that begin so.
        BadInput: it was answered before, its time has passed, or the verdict is not the one that was asked about.
        BadModel: its package does not answer as it was evaluated.
        Outdated: the champion is another one than the verdict was about.
    """
    ledger = Ledger(place.ledger)
    request = ledger.open_request(run)
    version = find(place, request.model, request.version)
    check_evidence(place, version, request)
    promotion = registry.promote(
        place.mlflow, place.ledger, request.model, request.version, expected=request.expected, who=who, why=why
    )  # which answers the request in the same transaction
    if promotion.changed:
        events.tell_promotion(promotion.entry)
    else:
        ledger.answer(request.run, "approved", who, why)
    registry.note_answer(place.mlflow, version, f"approved by {who}: {why}", withdrawn=False)
    return promotion


def check_evidence(place: Environment, version: Version, request: Request) -> None:
    """Refuse to approve what was not asked about.

    Raises:
        BadInput: the stored verdict cannot be read, or is another one.
    """
    verdict = registry.read_verdict(place.mlflow, version)
    found = verdict.evidence if verdict else None
    if found != request.evidence:
        now = f"is now {found[:12]}" if found else "cannot be read"
        raise BadInput(
            f"the question was about evidence {request.evidence[:12]}, and the verdict on {version.name} version {version.number} {now}: "
            "judge again"
        )


def reject(place: Environment, run: str, *, who: str, why: str) -> Request:
    """Say no to a run that waits: its version is no challenger any more.

    Raises:
        NotThere: no run, or several, that begin so.
        BadInput: it was answered before, or its time has passed.
    """
    request = Ledger(place.ledger).answer(run, "rejected", who, why)
    settle(place, request.model)
    events.tell_rejection(request)
    return request


def expire(place: Environment, name: str) -> list[str]:
    """Take the alias from versions whose time for an answer has passed; return a sentence each."""
    return [sentence for sentence in settle(place, name) if "expired" in sentence]


def settle(place: Environment, name: str) -> list[str]:
    """Tell in the registry which requests were rejected or expired, or wait again; return a sentence for what was not told yet."""
    newest = {request.run: request for request in Ledger(place.ledger).requests(name)}
    known = {version.number: version for version in registry.versions(place.mlflow, name)} if newest else {}
    said = []
    for request in newest.values():
        version, answer = known.get(request.version), answered(request)
        if version is None or version.evidence != request.evidence or version.answer == answer:
            continue
        if answer is not None:
            registry.note_answer(place.mlflow, version, answer, withdrawn=True)
            said.append(f"version {version.number} was {answer}")
        elif request.waits():
            registry.reopen(place.mlflow, version)
            said.append(f"version {version.number} waits for an answer again")
    return said


def answered(request: Request) -> str | None:
    """Return what became of a request that took its version out of the running; None for any other."""
    if request.decision == "rejected":
        return f"rejected by {request.who}: {request.why}"
    return f"expired at {request.expires_at:%Y-%m-%dT%H:%MZ} without an answer" if request.expired() else None


def reconcile(place: Environment, name: str | None = None) -> dict[str, list[str]]:
    """Mend the aliases of one model, or of all, from the ledger; return what was mended, a list of sentences a model."""
    chosen = [name] if name else sorted({*registry.models(place.mlflow), *Ledger(place.ledger).models()})
    return {each: [*registry.reconcile(place.mlflow, place.ledger, each), *settle(place, each)] for each in chosen}
