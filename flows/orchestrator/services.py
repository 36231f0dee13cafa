"""What `retune up` has started: read from var/services/state.json, and asked whether it answers."""

import json
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from components.core.process import is_gone
from flows.orchestrator.prefect_api import auth

STATE = Path("services/state.json")  # below var/
SECONDS = 5.0  # that a service may take to answer


@dataclass(frozen=True)
class State:
    """Who keeps the services running, where they answer, and the numbers of the workers' processes."""

    owner: str
    prefect: str
    mlflow: str
    workers: tuple[int, ...]
    guarded: bool = False  # an earlier release's servers answer everybody


def read_state(var: Path) -> State | None:
    """Return what is running; None where nothing is, or who kept it running is gone."""
    try:
        raw = json.loads((var / STATE).read_text(encoding="utf-8"))
        state = State(raw["owner"], raw["prefect"], raw["mlflow"], tuple(raw["workers"]), bool(raw.get("guarded")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if is_gone(state.owner) else state


def health(state: State) -> dict[str, str]:
    """Return what each service says of itself: `ok` and where it is, or what is wrong with it."""
    if not state.guarded:
        return {"services": "of an earlier release, which answer every web page: `retune up` replaces them"}
    wanted, there = len(state.workers), sum(map(psutil.pid_exists, state.workers))
    return {
        "Prefect": _answers(f"{state.prefect}/health", state.prefect.removesuffix("/api"), auth(state.prefect)),
        "MLflow": _answers(f"{state.mlflow}/health", state.mlflow, None),
        "workers": f"ok, {there} running" if there == wanted else f"{there} of {wanted} running",
    }


def _answers(url: str, shown: str, who: tuple[str, str] | None) -> str:
    try:
        status = httpx.get(url, timeout=SECONDS, auth=who).status_code
    except httpx.HTTPError as error:
        return f"{shown} does not answer: {type(error).__name__}"
    return f"ok, {shown}" if status == httpx.codes.OK else f"{shown} answers with {status}"
