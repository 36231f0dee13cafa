"""What is meant and what may be promoted: the version of a name and number, its verdict, whom that is about, and a person's reason.

Reads the registry and the ledger of an environment; changes nothing.
"""

from components.artifacts.verdict import Outcome, Verdict
from components.core.errors import BadInput, NotFound
from components.core.section import nearest
from components.ledger import Ledger, Request
from components.mlflow_store import registry
from components.mlflow_store.registry import Environment, Version
from components.mlflow_store.registry.environments import judged_here, reference_number


def find(place: Environment, name: str, number: int) -> Version:
    """Return a version.

    Raises:
        NotThere: there is no such model or version; the message names those that there are.
    """
    check_known(place, name)
    known = registry.versions(place.mlflow, name)
    version = next((version for version in known if version.number == number), None)
    if version is None:
        raise NotFound(f"{name} has no version {number}; there are: {', '.join(str(one.number) for one in known) or 'none'}")
    return version


def check_known(place: Environment, name: str) -> None:
    """Refuse the name of a model that neither the registry nor the ledger has.

    Raises:
        NotThere: there is no such model; the message names the one that was probably meant.
    """
    if name not in (there := models(place)):
        raise NotFound(f"no model {name!r} is registered in {place.name}{nearest(name, there) or '; `retune run` registers one'}")


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
    if (said := Ledger(place.ledger).rejection(version.name, verdict.evidence, verdict.key)) is not None:
        raise BadInput(said.refusal())
    return verdict


def check_copied(source: Environment, target: Environment, version: Version, verdict: Verdict) -> None:
    """Refuse what passed in the source and did not in the target, where it was made or judged again: the verdict there stands.

    Raises:
        BadInput: the target's own verdict is not PASS or cannot be read, a person said no to it, or the source judged again meanwhile.
    """
    if version.evidence == verdict.evidence or (version.origin is None and version.verdict is None):
        return
    called = f"{version.name} version {version.number}"
    if version.origin is not None and not judged_here(version):
        raise BadInput(f"{called} of {target.name} was judged again in {source.name} while it was copied: look at the new verdict")
    try:
        passed(target, version)
    except BadInput as error:
        raise BadInput(f"{called} of {target.name} passed in {source.name}, and was judged in {target.name}, too: {error}") from None


def opponent(version: Version, verdict: Verdict) -> int | None:
    """Return the number of the champion that a verdict was about; None where there was none.

    Raises:
        BadInput: the version is a copy, and the number means another version where it was judged.
    """
    number = int(verdict.champion) if verdict.champion else None
    if version.origin is not None and reference_number(version) != number:
        raise BadInput(
            f"{version.name} version {version.number} was judged in {version.origin}, against version {verdict.champion} there: "
            f'`retune promote --from {version.origin}` promotes it with that verdict, --force --why "…" without'
        )
    return number


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
