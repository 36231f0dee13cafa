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
        BadInput: its verdict is not PASS, cannot be read or is about another registry, a person rejected it, or a reason is missing.
        BadModel: its package does not answer as it was evaluated.
        Outdated: the champion is another one than the verdict was about.
    """
    why, version = checked_reason(why, force=force), find(place, name, number)
    verdict = None if force else passed(place, version)
    return told(
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


def told(promotion: Promotion) -> Promotion:
    """Tell of a promotion that changed something, and return it."""
    if promotion.changed:
        events.tell_promotion(promotion.entry)
    return promotion


def checked_reason(why: str | None, *, force: bool = False) -> str | None:
    """Return a person's reason without blanks around it; None where none was given and none is needed.

    Raises:
        BadInput: it is blank, or force is used without one.
    """
    if force and not (why or "").strip():
        raise BadInput("--force needs --why TEXT: the ledger keeps the reason")
    return None if why is None else reason(why)


def reason(why: str) -> str:
    """Return a person's reason without blanks around it.

    Raises:
        BadInput: nothing is left.
    """
    if not why.strip():
        raise BadInput("--why is blank: the ledger keeps the reason, so give one")
    return why.strip()


def opponent(version: Version, verdict: Verdict) -> int | None:
    """Return the number of the champion that a verdict was about; None where there was none.

    Raises:
        BadInput: the version is a copy, and the number means another version where it was judged.
    """
    number = int(verdict.champion) if verdict.champion else None
    if version.origin is not None and version.judged_against != number:
        raise BadInput(
            f"{version.name} version {version.number} was judged in {version.origin}, against version {verdict.champion} there: "
            f'`retune promote --from {version.origin}` promotes it with that verdict, --force --why "…" without'
        )
    return number


def find(place: Environment, name: str, number: int) -> Version:
    """Return a version.

    Raises:
        NotThere: there is no such model or version; the message names those that there are.
    """
    check_known(place, name)
    known = registry.versions(place.mlflow, name)
    version = next((version for version in known if version.number == number), None)
    if version is None:
        raise NotThere(f"{name} has no version {number}; there are: {', '.join(str(one.number) for one in known) or 'none'}")
    return version


def check_known(place: Environment, name: str) -> None:
    """Refuse the name of a model that neither the registry nor the ledger has.

    Raises:
        NotThere: there is no such model; the message names the one that was probably meant.
    """
    if name not in (there := models(place)):
        raise NotThere(f"no model {name!r} is registered in {place.name}{nearest(name, there) or '; `retune run` registers one'}")


def models(place: Environment) -> list[str]:
    """Return the names of all models that the registry or the ledger has."""
    return sorted({*registry.models(place.mlflow), *Ledger(place.ledger).models()})


def passed(place: Environment, version: Version) -> Verdict:
    """Return the verdict of a version that passed; a tag alone, which anyone can set, is no verdict.

    Raises:
        BadInput: it did not pass, the verdict cannot be read, or a person said no to it.
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
    if (said := Ledger(place.ledger).rejection(version.name, verdict.evidence)) is not None:
        raise BadInput(said.refusal())
    return verdict


def promote_from(
    source: Environment, target: Environment, name: str, number: int, *, who: str, why: str | None = None, force: bool = False
) -> Promotion:
    """Copy a version with its evidence from one environment to another, and make it the champion there.

    Its verdict is about the source's champion. Where the target has another one, the ledger there says so.

    Raises:
        NotThere: no such version.
        BadInput: it did not pass in the source, a person rejected it, or a reason is missing.
        BadModel: its package is not what was registered, or does not answer as it was evaluated.
        Outdated: someone changed the target's champion meanwhile.
    """
    if source == target:
        raise BadInput(f"--from and --to are both {source.name}")
    why = checked_reason(why, force=force)
    version, head = find(source, name, number), Ledger(target.ledger).head(name)
    verdict = None if force else passed(source, version)
    said = why or (verdict.reason if verdict else "")
    copied = registry.copy_version(source, target, name, number)
    if verdict is not None and copied.origin is not None and copied.evidence != verdict.evidence:
        raise BadInput(f"{name} version {number} of {source.name} was judged again while it was copied: look at the new verdict")
    return told(
        registry.promote(
            target.mlflow,
            target.ledger,
            name,
            copied.number,
            expected=head.version if head else None,
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
    return told(registry.rollback(place.mlflow, place.ledger, name, to, who, why))


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
    promotion = told(
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
        BadInput: it was answered before, its time has passed, or the reason is blank.
    """
    request = Ledger(place.ledger).answer(run, "rejected", who, reason(why))
    settle(place, request.model)
    events.tell_rejection(request)
    return request


def settle(place: Environment, name: str) -> list[str]:
    """Tell in the registry which requests were rejected or expired, or wait again; return a sentence for what was not told yet.

    A version whose time for an answer has passed is no challenger any more; the champion is left alone.
    """
    newest = {request.run: request for request in Ledger(place.ledger).requests(name)}
    known = {version.number: version for version in registry.versions(place.mlflow, name)} if newest else {}
    said = []
    for request in newest.values():
        version, answer = known.get(request.version), answered(request)
        if version is None or registry.CHAMPION in version.aliases:
            continue
        if version.evidence != request.evidence or version.answer == answer:
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
    """Mend the aliases of one model, or of all, from the ledger; return what was mended, a list of sentences a model.

    Raises:
        NotThere: there is no model of that name.
    """
    if name is not None:
        check_known(place, name)
    chosen = [name] if name is not None else models(place)
    return {each: bring(place, each) for each in chosen}


def bring(place: Environment, name: str) -> list[str]:
    """Bring the registry to what the ledger says of a model; return a sentence for whatever disagreed."""
    return [*registry.reconcile(place.mlflow, place.ledger, name), *settle(place, name)]
