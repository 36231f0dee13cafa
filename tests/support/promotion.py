"""Versions of `tickets` in a registry, with verdicts, approval requests and aliases, as runs and people leave them."""

from datetime import timedelta
from pathlib import Path

from mlflow import MlflowClient

from components.artifacts.verdict import Outcome, Verdict
from components.ledger import Ledger, Request
from components.mlflow_store.connection import ensure_experiment
from components.mlflow_store.registry import Decision, Environment, Promotion, Version, attach_verdict, swap_champion, versions
from components.mlflow_store.registry.versions import COMPLETE, KEY
from flows.production import promotion
from tests.support.finished import new_store
from tests.support.ledger_entries import NOW, approval_request

NAME = "tickets"


def new_environment(name: str, var: Path) -> Environment:
    """Return an environment with an empty store and ledger in `var`."""
    uri = new_store(var)
    return Environment(name, uri, ledger_of(uri))


def ledger_of(uri: str) -> str:
    """Return the URL of the ledger next to a store."""
    return uri.replace("mlflow.db", "ledger.db")


def create_version(uri: str, key: str, **tags: str) -> int:
    """Create a version without a package, with its own run, and return its number."""
    client = MlflowClient(uri)
    if not versions(uri, NAME):
        client.create_registered_model(NAME)
    run = client.create_run(ensure_experiment(client, uri, NAME)).info.run_id
    return int(client.create_model_version(NAME, "file:///nowhere", run, tags={KEY: key, COMPLETE: "true", **tags}).version)


def create_versions(uri: str, *numbers: int) -> list[Version]:
    """Create versions without packages whose keys have these numbers, and return all versions."""
    for number in numbers:
        create_version(uri, f"k{number}")
    return versions(uri, NAME)


def find(environment: Environment, number: int) -> Version:
    """Return a version."""
    return promotion.find(environment, NAME, number)


def aliases(uri: str) -> dict[str, int]:
    """Return the version number of each alias."""
    return {alias: version.number for version in versions(uri, NAME) for alias in version.aliases}


def judge(environment: Environment, number: int, outcome: Outcome = Outcome.PASS, champion: int | None = None, key: str = "") -> Verdict:
    """Attach a verdict about `champion` to a version, as a run does."""
    version = find(environment, number)
    verdict = Verdict(
        key=key or f"v{number} {outcome}",
        candidate=version.key,
        champion=str(champion) if champion else None,
        test_digest="e" * 64,
        outcome=outcome,
        reason=f"it is {outcome}",
        gates=(),
    )
    attach_verdict(environment.mlflow, version.run_id, NAME, number, verdict)
    return verdict


def request_of(environment: Environment, number: int, verdict: Verdict, days: float = 7) -> Request:
    """Return the request to approve a version on a verdict, which expires in `days`."""
    champion = int(verdict.champion) if verdict.champion else None
    return approval_request(
        find(environment, number).run_id,
        number,
        expected=champion,
        anchor=champion,
        verdict_key=verdict.key,
        outcome=verdict.outcome.value,
        evidence=verdict.evidence,
        reason=verdict.reason,
        asked_at=NOW - timedelta(days=2),
        expires_at=NOW + timedelta(days=days),
    )


def judge_and_request(
    environment: Environment, number: int, outcome: Outcome = Outcome.INCONCLUSIVE, champion: int | None = None, days: float = 7
) -> Request:
    """Judge a version and request its approval, as a run does for an inconclusive verdict."""
    request = request_of(environment, number, judge(environment, number, outcome, champion), days)
    return Ledger(environment.ledger).request_approval(request)


def swap(uri: str, ledger: Ledger, number: int, expected: int | str | None = "any", verdict: Verdict | None = None) -> Promotion:
    """Make a version the champion without loading it."""
    version = versions(uri, NAME)[number - 1]
    return swap_champion(uri, ledger, version, Decision(expected, "ada@host", "it is better"), verdict)  # type: ignore[arg-type]
