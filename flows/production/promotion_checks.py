"""Pre-promotion checks: resolve the version, verify its verdict and the champion it was compared with, and require a reason.

Reads the registry and the ledger of an environment; changes nothing.
"""

from components.artifacts.verdict import Outcome, Verdict
from components.core.errors import BadInput, NotFound
from components.core.section import nearest
from components.ledger import Ledger, Request
from components.mlflow_store import registry
from components.mlflow_store.connection import connect, translated_errors
from components.mlflow_store.registry import Environment, Version
from components.mlflow_store.registry.environments import judged_here, reference_number
from components.mlflow_store.registry.versions import find as find_version


def find(environment: Environment, name: str, number: int) -> Version:
    """Return a version; raise NotFound, with the existing ones, if the model or the version does not exist."""
    check_known(environment, name)
    with translated_errors(environment.mlflow):
        return find_version(connect(environment.mlflow), name, number)


def check_known(environment: Environment, name: str) -> None:
    """Raise NotFound, with the closest name, if neither the registry nor the ledger has the model."""
    if name not in (registered := models(environment)):
        raise NotFound(
            f"no model {name!r} is registered in {environment.name}{nearest(name, registered) or '; `retune run` registers one'}"
        )


def models(environment: Environment) -> list[str]:
    """Return the names of all models in the registry or the ledger."""
    return sorted({*registry.models(environment.mlflow), *Ledger(environment.ledger).models()})


def passed(environment: Environment, version: Version) -> Verdict:
    """Return the verdict of a version; raise BadInput unless it passed, by its readable verdict, and no person rejected it."""
    display_name = f"{version.name} version {version.number}"
    by_force = '--force --why "…" promotes it anyway'
    if version.verdict is None:
        raise BadInput(f"{display_name} is not judged: run `retune run`; {by_force}")
    if version.verdict is not Outcome.PASS:
        raise BadInput(
            f"the verdict on {display_name} is {version.verdict}: `retune why {version.name} {version.number}` shows it; {by_force}"
        )
    verdict = registry.read_verdict(environment.mlflow, version)
    if verdict is None or verdict.outcome is not Outcome.PASS:
        raise BadInput(f"{display_name} is tagged PASS, but its evidence cannot be read: judge it again; {by_force}")
    if (rejection := Ledger(environment.ledger).rejection(version.name, verdict.evidence, verdict.key)) is not None:
        raise BadInput(rejection.refusal())
    return verdict


def check_copied(source: Environment, target: Environment, version: Version, verdict: Verdict) -> None:
    """Check a copied version that the target built or judged too: the target's verdict must be PASS as well.

    Raises:
        BadInput: the target's verdict is not PASS or unreadable, a person rejected it, or the source judged it again during the copy.
    """
    if version.evidence == verdict.evidence or (version.origin is None and version.verdict is None):
        return
    display_name = f"{version.name} version {version.number}"
    if version.origin is not None and not judged_here(version):
        raise BadInput(f"{display_name} of {target.name} was judged again in {source.name} during the copy: check the new verdict")
    try:
        passed(target, version)
    except BadInput as error:
        raise BadInput(f"{display_name} of {target.name} passed in {source.name} but was judged in {target.name} too: {error}") from None


def judged_champion(version: Version, verdict: Verdict) -> int | None:
    """Return the champion that the verdict compared with, or None; raise BadInput if that number is of another registry."""
    number = int(verdict.champion) if verdict.champion else None
    if version.origin is not None and reference_number(version) != number:
        raise BadInput(
            f"{version.name} version {version.number} was judged in {version.origin} against its version {verdict.champion}: "
            f'`retune promote --from {version.origin}` promotes it with that verdict, --force --why "…" without it'
        )
    return number


def check_evidence(environment: Environment, version: Version, request: Request) -> None:
    """Raise BadInput if the stored verdict is unreadable, or not the one that the request is about."""
    verdict = registry.read_verdict(environment.mlflow, version)
    evidence = verdict.evidence if verdict else None
    if evidence != request.evidence:
        actual = f"is now {evidence[:12]}" if evidence else "cannot be read"
        raise BadInput(
            f"the request is about evidence {request.evidence[:12]}, that of {version.name} version {version.number} {actual}: judge again"
        )


def checked_reason(why: str | None, *, force: bool = False) -> str | None:
    """Return the stripped reason or None; raise BadInput if it is blank, or missing with `force`."""
    if force and not (why or "").strip():
        raise BadInput("--force needs --why TEXT: the ledger records the reason")
    return None if why is None else reason(why)


def reason(why: str) -> str:
    """Return the stripped reason; raise BadInput if it is blank."""
    if not why.strip():
        raise BadInput("--why is blank: give a reason, which the ledger records")
    return why.strip()
