"""Flow runs whose process is gone: Prefect counts them, and their tasks, as running until it is told otherwise.

A flow run bears a tag that says which process it is in. A run that a worker has not yet begun has none; with the managed server, which
serves this machine alone, it is looked for among the processes.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx
import psutil

from components.process import is_gone, owner
from flows.prefect_api import post

log = logging.getLogger(__name__)

MARK = "process:"  # how the tag begins; then HOST/NUMBER/START
OPEN = ("PENDING", "RUNNING", "CANCELLING")
OPEN_TASKS = (*OPEN, "SCHEDULED", "PAUSED")
PAGE = 200
BEGINS = 300.0  # seconds from a worker's claim on a run to the run's process, at the most
FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # which Prefect gives to the processes of a flow run

Run = Mapping[str, Any]


def tag() -> str:
    """Return the tag of a flow run that is in this process."""
    who = json.loads(owner())
    return f"{MARK}{who['host']}/{who['pid']}/{who['started']}"


def close(api: str, managed: bool) -> int:
    """Let Prefect know of the flow runs, and their tasks, whose process is gone; return how many flow runs.

    Runs of other hosts are left alone. `managed`: the server is the one of this project on this machine. A server that does not answer
    is asked the next time.
    """
    try:
        found = find(api, managed)
        for run in found:
            crash(api, run)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        log.warning("Prefect was not told which of its runs are gone: %s", error)
        return 0
    return len(found)


def find(api: str, managed: bool) -> list[Run]:
    """Return the flow runs that are not over for Prefect, or have tasks that are not, and whose process is gone.

    Raises:
        httpx.HTTPError: the server does not answer, or refuses.
    """
    runs = {run["id"]: run for run in pages(api, "flow_runs", {"flow_runs": {"state": {"type": {"any_": OPEN}}}})}
    tasks = pages(api, "task_runs", {"task_runs": {"state": {"type": {"any_": OPEN_TASKS}}}})
    others = sorted({str(task["flow_run_id"]) for task in tasks if task["flow_run_id"]} - runs.keys())
    for start in range(0, len(others), PAGE):
        part = pages(api, "flow_runs", {"flow_runs": {"id": {"any_": others[start : start + PAGE]}}})
        runs |= {run["id"]: run for run in part if run["state_type"] != "SCHEDULED"}
    return [run for run in runs.values() if has_gone(run, managed)]


def has_gone(run: Run, managed: bool) -> bool:
    """Say whether the process of a flow run is gone."""
    if marks := [one.removeprefix(MARK) for one in run["tags"] if one.startswith(MARK)]:
        return all(is_gone(_owner(one)) for one in marks)  # several: it was begun again
    if not managed:
        return False
    since = datetime.fromisoformat(run["state"]["timestamp"]).timestamp()
    if run.get("infrastructure_pid"):
        return not _has_lived(str(run["infrastructure_pid"]), since)
    # A flow of somebody's own, which no deployment began, is not ours to judge.
    return bool(run.get("deployment_id")) and time.time() - since > BEGINS and not any(_works_on(pid, run["id"]) for pid in psutil.pids())


def crash(api: str, run: Run) -> None:
    """Set a flow run, and its tasks, to Crashed; to Cancelled where a person has asked for that."""
    was = run["state"]["type"]
    name = "Cancelled" if was == "CANCELLING" else "Crashed"
    state = {"type": name.upper(), "name": name, "message": "its process is gone, as the next start found"}
    if was in OPEN:
        log.info("Prefect's run %s was left as %s by a process that is gone: it is %s now", run["id"], was.lower(), name)
        post(f"{api}/flow_runs/{run['id']}/set_state", {"state": state})
    query = {"flow_runs": {"id": {"any_": [run["id"]]}}, "task_runs": {"state": {"type": {"any_": OPEN_TASKS}}}}
    for task in list(pages(api, "task_runs", query)):
        post(f"{api}/task_runs/{task['id']}/set_state", {"state": state, "force": True})


def pages(api: str, what: str, query: Mapping[str, Any]) -> Iterator[Run]:
    """Yield all that a query finds."""
    offset = 0
    while True:
        found: Sequence[Run] = post(f"{api}/{what}/filter", {**query, "limit": PAGE, "offset": offset}).json()
        yield from found
        if len(found) < PAGE:
            return
        offset += PAGE


def _owner(mark: str) -> str:
    host, pid, started = mark.rsplit("/", 2)
    return json.dumps({"host": host, "pid": int(pid), "started": float(started)})


def _has_lived(pid: str, since: float) -> bool:
    """Say whether a process lives that has its number from the time of a run's state, and not from later."""
    try:
        process = psutil.Process(int(pid))
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() < since + BEGINS)
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.AccessDenied:
        return True


def _works_on(pid: int, flow_run: str) -> bool:
    try:
        return bool(psutil.Process(pid).environ().get(FLOW_RUN) == flow_run)
    except (psutil.Error, OSError):  # gone, or another account's
        return False
