"""The services that `retune up` started: their state in var/services/state.json, and their health."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from components.core.process import is_alive, is_gone
from flows.orchestrator.prefect_api import auth
from flows.orchestrator.processes import http_fault

STATE = Path("services/state.json")  # below var/


@dataclass(frozen=True)
class State:
    """The supervisor of the services, their URLs, and the PIDs of the workers."""

    owner: str
    prefect: str
    mlflow: str
    workers: tuple[int, ...]
    guarded: bool = False  # False for servers of an earlier release, which have no access control


def read_state(var: Path) -> State | None:
    """Read the state; None if nothing was started or the supervisor ended."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        raw = json.loads((var / STATE).read_text(encoding="utf-8"))
        if not is_gone(raw["owner"]):
            return State(raw["owner"], raw["prefect"], raw["mlflow"], tuple(raw["workers"]), bool(raw.get("guarded")))
    return None


def health(state: State) -> dict[str, str]:
    """Return the health of each service: `ok` and its URL, or the fault."""
    if not state.guarded:
        return {"services": "started by an earlier release, without access control: `retune up` replaces them"}
    alive = sum(map(is_alive, state.workers))
    faults = {"Prefect": http_fault(f"{state.prefect}/health", auth(state.prefect)), "MLflow": http_fault(f"{state.mlflow}/health")}
    addresses = {"Prefect": state.prefect.removesuffix("/api"), "MLflow": state.mlflow}
    return {name: f"{addresses[name]} {fault}" if fault else f"ok, {addresses[name]}" for name, fault in faults.items()} | {
        "workers": f"ok, {alive} running" if alive == len(state.workers) else f"{alive} of {len(state.workers)} running"
    }
