"""Flow runs whose process is gone: Prefect counts them, and their tasks, as running until it is told otherwise.

A flow run bears a tag that says which process it is in. A run that a worker has not yet begun has none; with the managed server, which
serves this machine alone, it is looked for among the processes. Where nobody can tell whether a process lives, its run is left alone.
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
from components.core.process import is_gone, owner
from flows.orchestrator.prefect_api import POOL, post

log = logging.getLogger(__name__)

MARK = "process:"  # how the tag begins; then HOST/NUMBER/START/SPACE/TICKS
OPEN = ("PENDING", "RUNNING", "CANCELLING")
OPEN_TASKS = (*OPEN, "SCHEDULED", "PAUSED")
PAGE = 200
BEGINS = 300.0  # seconds from a worker's claim on a run to the run's process, at the most
FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # which Prefect gives to the processes of a flow run

Run = Mapping[str, Any]


def tag() -> str:
    """Return the tag of a flow run that is in this process."""
    who = json.loads(owner())
    return f"{MARK}{who['host']}/{who['pid']}/{who['started']}/{_space()}/{_begun(who['pid'])}"


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
    return [run for run in runs.values() if process_is_gone(run, managed)]


def process_is_gone(run: Run, managed: bool) -> bool:
    """Say whether the process of a flow run is gone."""
    if marks := [one.removeprefix(MARK) for one in run["tags"] if one.startswith(MARK)]:
        return all(_has_ended(one) for one in marks)  # several: it was begun again
    if not managed:
        return False
    since = datetime.fromisoformat(run["state"]["timestamp"]).timestamp()
    if run.get("infrastructure_pid"):
        return not _has_lived(str(run["infrastructure_pid"]), since)

    # A flow of somebody's own, which no deployment began, or one of another pool, as in a container, is not ours to judge.
    ours = run.get("deployment_id") and run.get("work_pool_name") in (None, POOL)
    return bool(ours) and time.time() - since > BEGINS and not any(_works_on(pid, run["id"]) for pid in psutil.pids())


def is_begun_again(run: Run, tag: str) -> bool:
    """Say whether a flow run goes on in another process than the one that `owner` described, which may live."""
    former = json.loads(tag)
    begun = [one for one in run.get("tags", []) if one.startswith(MARK) and not one.startswith(f"{MARK}{former['host']}/{former['pid']}/")]
    return bool(begun) and not process_is_gone(run, managed=False)


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


def _has_ended(mark: str) -> bool:
    """Say whether the process of a tag is gone; one of another machine or container, though of the same name, counts as alive."""
    host, pid, started, *more = mark.split("/")
    space, begun = more or ("", "")
    if space and (host, space) != (socket.gethostname(), _space()):
        return False
    if not begun:
        return is_gone(json.dumps({"host": host, "pid": int(pid), "started": float(started)}))
    return _begun(int(pid)) != begun and not _is_hidden(int(pid))


def _space() -> str:
    """Return what tells apart the machines and containers in which one number means different processes, whatever they are called."""
    found = []
    with suppress(OSError):
        found.append(Path("/etc/machine-id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        found.append(os.readlink("/proc/self/ns/pid"))
    return digest_value(found)[:8]


def _begun(pid: int) -> str:
    """Return when a process began, in ticks of its boot: setting the clock moves the time of day. Empty where it is gone, or no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        state, *more = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else f"{boot[:8]}-{more[18]}"


def _is_hidden(pid: int) -> bool:
    """Say whether a process is another account's that /proc does not show (hidepid)."""
    if Path(f"/proc/{pid}/stat").exists():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _has_lived(pid: str, since: float) -> bool:
    """Say whether a process lives that has its number from the time of a run's state, and not from later."""
    try:
        process = psutil.Process(int(pid))
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() < since + BEGINS)
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, ValueError):  # a container's name is no number
        return True


def _works_on(pid: int, flow_run: str) -> bool:
    try:
        return bool(psutil.Process(pid).environ().get(FLOW_RUN) == flow_run)
    except (psutil.Error, OSError):  # gone, or another account's
        return False
