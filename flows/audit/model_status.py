"""Report a model's state: alias against ledger, waiting requests, and the remaining test-set budget."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from components.artifacts.profile import Profile
from components.artifacts.rows import read_rows
from components.artifacts.verdict import Role
from components.core.errors import NotFound
from components.ledger import Ledger
from components.mlflow_store.connection import sqlite_path
from flows.audit.registered_model import shown
from flows.pipeline.historical_data import TEST, row_keys
from flows.project.params import read_params
from flows.project.workspace import Workspace


@dataclass(frozen=True)
class ModelStatus:
    """`ledger` is the champion in the ledger; `fault` describes a wrong alias or ledger, with the fix."""

    ledger: int | None
    since: str | None
    fault: str | None
    waiting: tuple[dict[str, Any], ...]
    test_digest: str | None
    looks_used: int | None
    looks_allowed: int | None


def read_status(workspace: Workspace, alias: int | None, registered: Collection[int]) -> ModelStatus:
    """Return the status of the workspace's model.

    `alias` is the champion in the registry, `registered` are all its versions.
    """
    params = read_params(workspace.params)
    name, test = params.name, _test_digest(workspace)
    path = sqlite_path(workspace.ledger)
    missing = path is not None and not path.exists()
    ledger = None if missing else Ledger(workspace.ledger)
    head = ledger.head(name) if ledger else None
    champion = head.version if head else None
    waiting = ledger.open_requests(name) if ledger else []
    return ModelStatus(
        ledger=champion,
        since=shown(head.at) if head else None,
        fault=fault(name, alias, champion, registered, f"the ledger {path} is missing" if missing else None),
        waiting=tuple(
            {"run": request.run, "version": request.version, "until": shown(request.expires_at), "reason": request.reason}
            for request in waiting
        ),
        test_digest=test,
        looks_used=ledger.count_test_uses(name, test, _test_keys(workspace), params.gates.test_budget.shared)
        if ledger and test
        else (0 if test else None),
        looks_allowed=None if params.gates.test_budget.role is Role.OFF else params.gates.test_budget.at_most,
    )


def fault(name: str, alias: int | None, ledger: int | None, registered: Collection[int], missing: str | None = None) -> str | None:
    """Describe how alias and ledger disagree and the fix; None if they agree. Pure."""
    if alias == ledger:
        return None
    if ledger is not None and ledger not in registered:
        return f"version {ledger}, the champion of {name} in the ledger, was deleted from the registry: roll back or promote another"
    recorded = f"the ledger records {f'version {ledger}' if ledger else 'no champion'}"
    target = f"version {alias}" if alias else "no version"
    if missing:
        restart = "`retune reconcile --accept --why TEXT` starts a new one"
        return f"the alias champion of {name} points to {target}, and {missing}: restore a copy; without one, {restart}"
    return f"the alias champion of {name} points to {target}, but {recorded}: fix it with `retune reconcile {name}`"


def _test_digest(workspace: Workspace) -> str | None:
    try:
        return Profile.read(workspace.root / "data/prepared").test_digest
    except NotFound:
        return None


def _test_keys(workspace: Workspace) -> list[str]:
    try:
        return row_keys(read_rows(workspace.root / TEST / "test.parquet"))
    except NotFound:
        return []
