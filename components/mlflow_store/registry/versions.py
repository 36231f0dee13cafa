"""Versions of a registered model: read, search and delete.

Reads MLflow's registry; deletes only versions without an alias.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from components.artifacts.verdict import Outcome
from components.core.errors import NotFound, RetuneError
from components.mlflow_store.connection import all_pages, connect, if_exists, translated_errors

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
KEY, COMPLETE, PROMOTED = "retune.key", "retune.complete", "retune.promoted"
VERSION, OWNER = "retune.version", "retune.owner"
"""Tags of runs and packages: the resulting version, and the process that sent the package."""
VERDICT, VERDICT_KEY, VERDICT_RUN = "retune.verdict", "retune.verdict_key", "retune.verdict_run"
JUDGED_AGAINST = "retune.judged_against"
EVIDENCE, ANSWER = "retune.evidence", "retune.verdict_answer"
BASE_SOURCE = "retune.base_source"
WEIGHTS, ADAPTER, PACKAGE = "retune.weights", "retune.adapter", "retune.package"
"""Digests of the (merged) model folder, of the stored adapter if any, and of all files of the package."""
ORIGIN, ORIGIN_VERSION = "retune.origin", "retune.origin_version"
LEDGER = "retune.ledger"
"""The ledger's head: the newest on the registered model, on a version the head at the time it became champion."""
STORE_TAGS = {COMPLETE, PROMOTED, LEDGER, ANSWER, VERDICT, VERDICT_KEY, VERDICT_RUN, JUDGED_AGAINST, EVIDENCE}
"""Tags about a version in its own store, which a copy does not keep."""


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


def from_mlflow(record: ModelVersion, aliases: Mapping[str, int]) -> Version:
    """Convert MLflow's record; its searches do not always fill the aliases, so they are passed in."""
    number = int(record.version)
    own_aliases = tuple(sorted(alias for alias, target in aliases.items() if target == number))
    tags = dict(record.tags)
    complete = tags.get(COMPLETE) == "true"
    return Version(record.name, number, record.run_id or "", tags.get(KEY, ""), complete, own_aliases, tags, record.description or "")


def aliases_of(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the version number of each alias; empty if the model does not exist."""
    model = if_exists(client.get_registered_model, name)
    return {alias: int(number) for alias, number in model.aliases.items()} if model else {}


def search(client: MlflowClient, name: str) -> list[Version]:
    """Return every version of `name`, oldest first."""
    aliases = aliases_of(client, name)
    return sorted((from_mlflow(record, aliases) for record in records(client, name)), key=lambda version: version.number)


def records(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return MLflow's record of every version of `name`."""
    quoted = name.replace("'", "\\'")
    return all_pages(client.search_model_versions, f"name='{quoted}'")


def versions(uri: str, name: str) -> list[Version]:
    """Return every version of the model, oldest first; empty if nothing was registered."""
    with translated_errors(uri):
        return search(connect(uri), name)


def lookup(client: MlflowClient, name: str, number: int) -> Version | None:
    """Return one version, or None if it does not exist."""
    record = if_exists(client.get_model_version, name, str(number))
    return from_mlflow(record, aliases_of(client, name)) if record else None


def find(client: MlflowClient, name: str, number: int) -> Version:
    """Return one version; raise NotFound, with a list of those that exist, if it does not."""
    version = lookup(client, name, number)
    if version is None:
        existing = ", ".join(str(known.number) for known in search(client, name)) or "none"
        raise NotFound(f"{name} has no version {number}; there are: {existing}")
    return version


def champion(uri: str, name: str) -> Version | None:
    """Return the champion, or None before the first promotion."""
    return next((version for version in versions(uri, name) if CHAMPION in version.aliases), None)


def status(uri: str, name: str) -> dict[str, Any]:
    """Return the status of a model for `retune status`: its champion (`version`, None before the first promotion) with its metrics."""
    known = versions(uri, name)
    current = next((version for version in known if CHAMPION in version.aliases), None)
    tags = current.tags if current else {}
    return {
        "model": name,
        "version": current.number if current else None,
        "alias": CHAMPION,
        "metrics": json.loads(tags.get("retune.metrics", "{}")),
        "verdict": tags.get(VERDICT),
        "verdict_key": tags.get(VERDICT_KEY),
        "run_key": tags.get(KEY),
        "run_id": current.run_id if current else None,
        "git_commit": tags.get("retune.git_commit"),
        "data_digest": tags.get("retune.data_digest"),
        "previous": next((version.number for version in known if PREVIOUS in version.aliases), None),
        "newest": known[-1].number if known else None,
    }


def delete(client: MlflowClient, version: Version) -> None:
    """Delete a version without an alias; MLflow would silently delete the alias as well.

    Raises:
        RetuneError: it has an alias besides `challenger`.
    """
    if aliases := sorted({*version.aliases} - {CHALLENGER}):
        raise RetuneError(f"{version.uri} is not deleted: it is {', '.join(aliases)}; move the alias first")
    client.delete_model_version(version.name, str(version.number))
