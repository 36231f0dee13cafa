"""How things stand with a model beside its versions: whether alias and ledger agree, who is waited for, what is left of the test set."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from components.artifacts.profile import Profile
from components.artifacts.rows import read_rows
from components.artifacts.verdict import Role
from components.core.errors import NotFound
from components.ledger import Ledger
from components.mlflow_store.connection import database_of
from flows.audit.registered_model import shown
from flows.pipeline.historical_data import TEST, row_keys
from flows.project.params import read_params
from flows.project.workspace import Workspace


@dataclass(frozen=True)
class ModelStatus:
    """`ledger` is the champion that the ledger names; `fault` says what is wrong with alias or ledger, and what mends it."""

    ledger: int | None
    since: str | None
    fault: str | None
    waiting: tuple[dict[str, Any], ...]
    test_digest: str | None
    looks_used: int | None
    looks_allowed: int | None


def read_status(workspace: Workspace, alias: int | None, there: Collection[int]) -> ModelStatus:
    """Return how things stand with the workspace's model.

    `alias` is the version that the registry calls champion, `there` are all that it has.
    """
    params = read_params(workspace.params)
    name, test = params.name, _test_digest(workspace)
    path = database_of(workspace.ledger)
    missing = path is not None and not path.exists()
    ledger = None if missing else Ledger(workspace.ledger)
    head = ledger.head(name) if ledger else None
    said = head.version if head else None
    waiting = ledger.open_requests(name) if ledger else []
    return ModelStatus(
        ledger=said,
        since=shown(head.at) if head else None,
        fault=fault(name, alias, said, there, f"the ledger {path} is missing" if missing else None),
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
    """Say how alias and ledger disagree, and what mends it; None where they do not. Pure."""
    if alias == ledger:
        return None
    if ledger is not None and ledger not in registered:
        return (
            f"the champion of {name} is version {ledger} by the ledger, and it was deleted from the registry: roll back or promote another"
        )
    known = f"the ledger says {f'version {ledger}' if ledger else 'nobody'}"
    where = f"version {alias}" if alias else "no version"
    if missing:
        begins = "`retune reconcile --accept --why TEXT` begins a new one"
        return f"the alias champion of {name} is at {where}, and {missing}: restore a copy; without one, {begins}"
    return f"the alias champion of {name} is at {where}, and {known}: `retune reconcile {name}` mends it"


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
