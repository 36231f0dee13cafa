"""Versions of a registered model: found by key, by number and by alias.

Reads MLflow's registry; deletes only what has no alias.
"""

import json
from collections.abc import Mapping
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
"""Of a run and of a package: the version that was made of it; of a package, the process that sent it."""
VERDICT, VERDICT_KEY, JUDGED_AGAINST = "retune.verdict", "retune.verdict_key", "retune.judged_against"
EVIDENCE, ANSWER = "retune.evidence", "retune.verdict_answer"
BASE_SOURCE = "retune.base_source"
WEIGHTS, ADAPTER, PACKAGE = "retune.weights", "retune.adapter", "retune.package"
"""Digests: of the model folder, whole or merged; of the adapter where that is what is stored; of all the package's files."""
ORIGIN, ORIGIN_VERSION = "retune.origin", "retune.origin_version"
LEDGER = "retune.ledger"
"""The ledger's head: on the registered model the newest, on a version that when it became champion."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `created` is true only where this very call made it."""

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
        """The name by which MLflow loads it."""
        return f"models:/{self.name}/{self.number}"

    @property
    def promoted(self) -> bool:
        """Whether it is or was the champion; the alias counts too, since a person may set it, and the tag comes after it."""
        return PROMOTED in self.tags or not {CHAMPION, PREVIOUS}.isdisjoint(self.aliases)

    @property
    def judged_against(self) -> int | None:
        """The version that was champion when this one was judged; None where there was none, or nobody judged."""
        number = self.tags.get(JUDGED_AGAINST, "")
        return int(number) if number.isdigit() else None

    @property
    def verdict(self) -> Outcome | None:
        """What the gates said of it last; None while nobody judged. `read_verdict` returns the whole of it."""
        outcome = self.tags.get(VERDICT)
        return Outcome(outcome) if outcome in set(Outcome) else None

    @property
    def verdict_key(self) -> str | None:
        """What the verdict depends on, as a hash."""
        return self.tags.get(VERDICT_KEY)

    @property
    def evidence(self) -> str | None:
        """The digest of the whole verdict; None where there is none, or it is of an earlier layout."""
        return self.tags.get(EVIDENCE)

    @property
    def origin(self) -> str | None:
        """The environment that it was copied from; None where it was made here."""
        return self.tags.get(ORIGIN)

    @property
    def answer(self) -> str | None:
        """What a person said of the verdict, or that nobody did in time."""
        return self.tags.get(ANSWER)


@dataclass(frozen=True)
class VersionStatus:
    """What is in production: `metrics` are value, low and high by name; `version` is None while nothing was promoted."""

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


def from_mlflow(found: ModelVersion, aliases: Mapping[str, int]) -> Version:
    """Return MLflow's record as ours; its searches do not always fill the aliases, so they are passed in."""
    number = int(found.version)
    mine = tuple(sorted(alias for alias, at in aliases.items() if at == number))
    tags = dict(found.tags)
    complete = tags.get(COMPLETE) == "true"
    return Version(found.name, number, found.run_id or "", tags.get(KEY, ""), complete, mine, tags, found.description or "")


def aliases_of(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the version number of each alias; empty where there is no such model."""
    try:
        return {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


def search(client: MlflowClient, name: str) -> list[Version]:
    """Return every version of `name`, oldest first."""
    aliases, found, token = aliases_of(client, name), [], None
    quoted = name.replace("'", "\\'")
    while True:
        page = client.search_model_versions(f"name='{quoted}'", max_results=1_000, page_token=token)
        found += [from_mlflow(one, aliases) for one in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda version: version.number)


def package_uris(client: MlflowClient, name: str) -> set[str]:
    """Return the address of the package of each version."""
    found, token, quoted = set[str](), None, name.replace("'", "\\'")
    while True:
        page = client.search_model_versions(f"name='{quoted}'", max_results=1_000, page_token=token)
        found |= {str(one.source) for one in page}
        token = page.token
        if not token:
            return found


def versions(uri: str, name: str) -> list[Version]:
    """Return every version of the model, oldest first; empty where nothing was registered."""
    with translated_errors(uri):
        return search(connect(uri), name)


def lookup(client: MlflowClient, name: str, number: int) -> Version | None:
    """Return one version, None where it does not exist."""
    try:
        found = client.get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return from_mlflow(found, aliases_of(client, name))


def find(client: MlflowClient, name: str, number: int) -> Version:
    """Return one version.

    Raises:
        NotThere: it does not exist; the message names those that do.
    """
    version = lookup(client, name, number)
    if version is None:
        there = ", ".join(str(known.number) for known in search(client, name)) or "none"
        raise NotFound(f"{name} has no version {number}; there are: {there}")
    return version


def champion(uri: str, name: str) -> Version | None:
    """Return the version in production, None while nothing was promoted."""
    return next((version for version in versions(uri, name) if CHAMPION in version.aliases), None)


def status(uri: str, name: str) -> VersionStatus:
    """Return what `retune status` shows."""
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
    """Delete a version; MLflow would drop its alias with it without a word.

    Raises:
        RetuneError: it has an alias; being the challenger alone keeps nobody.
    """
    if kept := sorted({*version.aliases} - {CHALLENGER}):
        raise RetuneError(f"{version.uri} is not deleted: it is {', '.join(kept)}; move the alias first")
    client.delete_model_version(version.name, str(version.number))
