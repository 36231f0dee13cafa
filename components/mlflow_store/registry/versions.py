"""Versions of a registered model: read, search and delete.

Reads MLflow's registry; deletes only versions without an alias.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.artifacts.verdict import Outcome
from components.core.errors import NotFound, RetuneError
from components.mlflow_store.connection import connect, translated_errors

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
KEY, COMPLETE, PROMOTED = "retune.key", "retune.complete", "retune.promoted"
VERSION, OWNER = "retune.version", "retune.owner"
"""Tags of runs and packages: the resulting version, and the process that sent the package."""
VERDICT, VERDICT_KEY, JUDGED_AGAINST = "retune.verdict", "retune.verdict_key", "retune.judged_against"
EVIDENCE, ANSWER = "retune.evidence", "retune.verdict_answer"
BASE_SOURCE = "retune.base_source"
WEIGHTS, ADAPTER, PACKAGE = "retune.weights", "retune.adapter", "retune.package"
"""Digests of the (merged) model folder, of the stored adapter if any, and of all files of the package."""
ORIGIN, ORIGIN_VERSION = "retune.origin", "retune.origin_version"
LEDGER = "retune.ledger"
"""The ledger's head: the newest on the registered model, on a version the head at the time it became champion."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `created` is true only if this call created it."""

    name: str
    number: int
    run_id: str
    key: str
    complete: bool
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    created: bool = False

    @property
    def uri(self) -> str:
        """The URI by which MLflow loads it."""
        return f"models:/{self.name}/{self.number}"

    @property
    def promoted(self) -> bool:
        """Whether it is or was the champion; the alias counts too, because a person may set it, and the tag follows it."""
        return PROMOTED in self.tags or not {CHAMPION, PREVIOUS}.isdisjoint(self.aliases)

    @property
    def judged_against(self) -> int | None:
        """The champion at the time of the verdict; None if there was none, or no verdict."""
        number = self.tags.get(JUDGED_AGAINST, "")
        return int(number) if number.isdigit() else None

    @property
    def verdict(self) -> Outcome | None:
        """The outcome of its newest verdict; None before it is judged. `read_verdict` returns the whole verdict."""
        outcome = self.tags.get(VERDICT)
        return Outcome(outcome) if outcome in set(Outcome) else None

    @property
    def verdict_key(self) -> str | None:
        """A hash of the verdict's inputs."""
        return self.tags.get(VERDICT_KEY)

    @property
    def evidence(self) -> str | None:
        """The digest of the whole verdict; None if there is none, or it has an early layout."""
        return self.tags.get(EVIDENCE)

    @property
    def origin(self) -> str | None:
        """The environment that it was copied from; None if it was registered here."""
        return self.tags.get(ORIGIN)

    @property
    def answer(self) -> str | None:
        """A person's answer to the verdict, or that it expired."""
        return self.tags.get(ANSWER)


@dataclass(frozen=True)
class VersionStatus:
    """The status of a model: its champion (`version`, None before the first promotion) and the champion's `metrics` (value, low, high)."""

    model: str
    version: int | None
    alias: str
    metrics: Mapping[str, Mapping[str, float]]
    verdict: str | None
    verdict_key: str | None
    run_key: str | None
    run_id: str | None
    git_commit: str | None
    data_digest: str | None
    previous: int | None
    newest: int | None


def from_mlflow(record: ModelVersion, aliases: Mapping[str, int]) -> Version:
    """Convert MLflow's record; its searches do not always fill the aliases, so they are passed in."""
    number = int(record.version)
    own_aliases = tuple(sorted(alias for alias, target in aliases.items() if target == number))
    tags = dict(record.tags)
    complete = tags.get(COMPLETE) == "true"
    return Version(record.name, number, record.run_id or "", tags.get(KEY, ""), complete, own_aliases, tags, record.description or "")


def aliases_of(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the version number of each alias; empty if the model does not exist."""
    try:
        return {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


def search(client: MlflowClient, name: str) -> list[Version]:
    """Return every version of `name`, oldest first."""
    aliases = aliases_of(client, name)
    return sorted((from_mlflow(record, aliases) for record in records(client, name)), key=lambda version: version.number)


def records(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    """Yield MLflow's record of every version of `name`."""
    token, quoted = None, name.replace("'", "\\'")
    while True:
        page = client.search_model_versions(f"name='{quoted}'", max_results=1_000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def package_uris(client: MlflowClient, name: str) -> set[str]:
    """Return the package URI of each version."""
    return {str(record.source) for record in records(client, name)}


def versions(uri: str, name: str) -> list[Version]:
    """Return every version of the model, oldest first; empty if nothing was registered."""
    with translated_errors(uri):
        return search(connect(uri), name)


def lookup(client: MlflowClient, name: str, number: int) -> Version | None:
    """Return one version, or None if it does not exist."""
    try:
        record = client.get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return from_mlflow(record, aliases_of(client, name))


def find(client: MlflowClient, name: str, number: int) -> Version:
    """Return one version.

    Raises:
        NotFound: it does not exist; the message lists those that do.
    """
    version = lookup(client, name, number)
    if version is None:
        existing = ", ".join(str(known.number) for known in search(client, name)) or "none"
        raise NotFound(f"{name} has no version {number}; there are: {existing}")
    return version


def champion(uri: str, name: str) -> Version | None:
    """Return the champion, or None before the first promotion."""
    return next((version for version in versions(uri, name) if CHAMPION in version.aliases), None)


def status(uri: str, name: str) -> VersionStatus:
    """Return the status of a model for `retune status`."""
    known = versions(uri, name)
    current = next((version for version in known if CHAMPION in version.aliases), None)
    previous = next((version.number for version in known if PREVIOUS in version.aliases), None)
    tags = current.tags if current else {}
    return VersionStatus(
        model=name,
        version=current.number if current else None,
        alias=CHAMPION,
        metrics=json.loads(tags.get("retune.metrics", "{}")),
        verdict=tags.get(VERDICT),
        verdict_key=tags.get(VERDICT_KEY),
        run_key=tags.get(KEY),
        run_id=current.run_id if current else None,
        git_commit=tags.get("retune.git_commit"),
        data_digest=tags.get("retune.data_digest"),
        previous=previous,
        newest=known[-1].number if known else None,
    )


def delete(client: MlflowClient, version: Version) -> None:
    """Delete a version without an alias; MLflow would silently delete the alias as well.

    Raises:
        RetuneError: it has an alias besides `challenger`.
    """
    if aliases := sorted({*version.aliases} - {CHALLENGER}):
        raise RetuneError(f"{version.uri} is not deleted: it is {', '.join(aliases)}; move the alias first")
    client.delete_model_version(version.name, str(version.number))
