"""Find Prefect flow runs whose process has died, and set them and their tasks to Crashed; Prefect keeps them as running.

The tag of a flow run identifies its process. A run that a worker has just claimed has no tag; with the managed server, which serves
only this machine, its process is searched for. If it is unknown whether a process lives, its run is left unchanged.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from components.core.hashing import digest_value
from components.core.process import is_alive, is_gone, owner
from flows.orchestrator.prefect_api import POOL, post

log = logging.getLogger(__name__)

MARK = "process:"  # prefix of the tag, followed by HOST/PID/START/SPACE/TICKS
OPEN = ("PENDING", "RUNNING", "CANCELLING")
OPEN_TASKS = (*OPEN, "SCHEDULED", "PAUSED")
PAGE = 200
BEGINS = 300.0  # maximum seconds from a worker's claim to the start of the process
FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # Prefect sets it for the processes of a flow run

Run = Mapping[str, Any]


def tag() -> str:
    """Return the tag for a flow run in this process."""
    process = json.loads(owner())
    return f"{MARK}{process['host']}/{process['pid']}/{process['started']}/{_space()}/{_start_ticks(process['pid'])}"


def close(api: str, managed: bool) -> int:
    """Close the flow runs and tasks whose process has died; return the number of flow runs.

    Runs of other hosts are left unchanged. `managed`: the server belongs to this project on this machine. Errors of the server are logged.
    """
    try:
        runs = find(api, managed)
        for run in runs:
            crash(api, run)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        log.warning("could not close orphaned runs in Prefect: %s", error)
        return 0
    return len(runs)


def find(api: str, managed: bool) -> list[Run]:
    """Return the open flow runs, or those with open tasks, whose process has died; raise httpx.HTTPError."""
    runs = {run["id"]: run for run in pages(api, "flow_runs", {"flow_runs": {"state": {"type": {"any_": OPEN}}}})}
    tasks = pages(api, "task_runs", {"task_runs": {"state": {"type": {"any_": OPEN_TASKS}}}})
    others = sorted({str(task["flow_run_id"]) for task in tasks if task["flow_run_id"]} - runs.keys())
    for start in range(0, len(others), PAGE):
        page = pages(api, "flow_runs", {"flow_runs": {"id": {"any_": others[start : start + PAGE]}}})
        runs |= {run["id"]: run for run in page if run["state_type"] != "SCHEDULED"}
    return [run for run in runs.values() if process_is_gone(run, managed)]


def process_is_gone(run: Run, managed: bool) -> bool:
    """Return whether the process of a flow run has died."""
    if marks := [tag.removeprefix(MARK) for tag in run["tags"] if tag.startswith(MARK)]:
        return all(_has_ended(mark) for mark in marks)  # several if the run was restarted
    if not managed:
        return False
    since = datetime.fromisoformat(run["state"]["timestamp"]).timestamp()
    if run.get("infrastructure_pid"):
        return not _is_alive(str(run["infrastructure_pid"]), since)

    # Leave flows without a deployment and those of other pools, e.g. in containers, unchanged.
    ours = run.get("deployment_id") and run.get("work_pool_name") in (None, POOL)
    return bool(ours) and time.time() - since > BEGINS and not any(_runs_flow(pid, run["id"]) for pid in psutil.pids())


def was_restarted(run: Run, tag: str) -> bool:
    """Return whether a flow run was restarted in another process than the one in `tag`, and that may be alive."""
    former = json.loads(tag)
    start = f"{MARK}{former['host']}/{former['pid']}/"
    restarted = any(other.startswith(MARK) and not other.startswith(start) for other in run.get("tags", []))
    return restarted and not process_is_gone(run, managed=False)


def crash(api: str, run: Run) -> None:
    """Set a flow run and its tasks to Crashed, or to Cancelled if cancellation was requested."""
    previous = run["state"]["type"]
    name = "Cancelled" if previous == "CANCELLING" else "Crashed"
    state = {"type": name.upper(), "name": name, "message": "its process has died; detected by a later start"}
    if previous in OPEN:
        log.info("Prefect's run %s was %s, but its process has died: set to %s", run["id"], previous.lower(), name)
        post(f"{api}/flow_runs/{run['id']}/set_state", {"state": state})
    query = {"flow_runs": {"id": {"any_": [run["id"]]}}, "task_runs": {"state": {"type": {"any_": OPEN_TASKS}}}}
    for task in list(pages(api, "task_runs", query)):
        post(f"{api}/task_runs/{task['id']}/set_state", {"state": state, "force": True})


def pages(api: str, resource: str, query: Mapping[str, Any]) -> Iterator[Run]:
    """Yield all results of a query."""
    offset = 0
    while True:
        page: Sequence[Run] = post(f"{api}/{resource}/filter", {**query, "limit": PAGE, "offset": offset}).json()
        yield from page
        if len(page) < PAGE:
            return
        offset += PAGE


def _has_ended(mark: str) -> bool:
    """Return whether the process of a tag has died; one of another machine or container counts as alive."""
    host, pid, started, *more = mark.split("/")
    space, ticks = more or ("", "")
    if space and (host, space) != (socket.gethostname(), _space()):
        return False
    if not ticks:
        return is_gone(json.dumps({"host": host, "pid": int(pid), "started": float(started)}))
    return _start_ticks(int(pid)) != ticks and not _is_hidden(int(pid))


def _space() -> str:
    """Return an id of this machine and PID namespace, since equal host names may have different PIDs."""
    parts = []
    with suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return digest_value(parts)[:8]


def _start_ticks(pid: int) -> str:
    """Return the start of a process in ticks since boot, which setting the clock does not change; empty if it ended or without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        state, *more = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else f"{boot[:8]}-{more[18]}"


def _is_hidden(pid: int) -> bool:
    """Return whether a process belongs to another account and is hidden in /proc (hidepid)."""
    return is_alive(pid) and not Path(f"/proc/{pid}/stat").exists()


def _is_alive(pid: str, since: float) -> bool:
    """Return whether a process with this PID is alive and started no later than shortly after `since`."""
    try:
        process = psutil.Process(int(pid))
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() < since + BEGINS)
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, ValueError):  # e.g. a container's name
        return True


def _runs_flow(pid: int, flow_run: str) -> bool:
    with suppress(psutil.Error, OSError):  # it ended, or belongs to another account
        return bool(psutil.Process(pid).environ().get(FLOW_RUN) == flow_run)
    return False
