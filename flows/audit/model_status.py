"""Report a model's state: versions, alias against ledger, waiting requests, and the remaining test-set budget."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from components.artifacts.profile import Profile
from components.artifacts.rows import read_rows
from components.artifacts.verdict import Role
from components.core.errors import NotFound
from components.ledger import Ledger
from components.mlflow_store import registry
from components.mlflow_store.connection import sqlite_path
from flows.audit.registered_model import shown
from flows.pipeline.historical_data import TEST, row_keys
from flows.project.params import read_params
from flows.project.stores import store
from flows.project.workspace import Workspace


def read_status(workspace: Workspace) -> dict[str, Any]:
    """Return the champion, all versions, and the `standing` of the workspace's model, ready for JSON.

    In `standing`, `ledger` is the champion in the ledger; `fault` describes a wrong alias or ledger, with the fix.
    """
    params = read_params(workspace.params)
    name, uri = params.name, store(workspace)
    versions, current = registry.versions(uri, name), registry.status(uri, name)
    test, test_keys = None, list[str]()
    with suppress(NotFound):
        test = Profile.read(workspace.root / "data/prepared").test_digest
        test_keys = row_keys(read_rows(workspace.root / TEST / "test.parquet"))
    path = sqlite_path(workspace.ledger)
    missing = path is not None and not path.exists()
    ledger = None if missing else Ledger(workspace.ledger)
    head = ledger.head(name) if ledger else None
    champion = head.version if head else None
    waiting = ledger.open_requests(name) if ledger else []
    numbers, budget = {version.number for version in versions}, params.gates.test_budget
    used = ledger.count_test_uses(name, test, test_keys, budget.shared) if ledger and test else 0
    standing = {
        "ledger": champion,
        "since": shown(head.at) if head else None,
        "fault": fault(name, current["version"], champion, numbers, f"the ledger {path} is missing" if missing else None),
        "waiting": [
            {"run": request.run, "version": request.version, "until": shown(request.expires_at), "reason": request.reason}
            for request in waiting
        ],
        "test_digest": test,
        "looks_used": used if test else None,
        "looks_allowed": None if budget.role is Role.OFF else budget.at_most,
    }
    listed = [
        {"version": v.number, "aliases": list(v.aliases), "verdict": v.tags.get("retune.verdict"), "run_key": v.key} for v in versions
    ]
    return {**current, "versions": listed, "standing": standing}


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
