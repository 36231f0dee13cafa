"""Process behaviour: no telemetry, no busy waiting, and no process outlives its parent."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

QUIET = {
    "DO_NOT_TRACK": "true",  # MLflow ignores 1
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    # Two torch processes that wait actively slow each other down sevenfold.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    "PGCONNECT_TIMEOUT": "5",  # seconds per address of the host; unlimited by default
}
_DEFAULTS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "PGCONNECT_TIMEOUT")  # unless the user has set them
# Variables that git sets for its hooks; a child process must find its own repository.
REPOSITORY = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_INTERNAL_SUPER_PREFIX"),
    *("GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE"),
    # How git interprets path arguments: ours are literal.
    *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
)
_PR_SET_PDEATHSIG = 1
_PARENT = "--parent="
_DVC_STAGE = "DVC_STAGE"  # set by DVC for the command of a stage

CHILDREN: set[subprocess.Popen[str]] = set()  # process group leaders that a thread waits for


def inherited_environment() -> dict[str, str]:
    """Return the environment for a child process, without git's hook variables."""
    return {name: value for name, value in os.environ.items() if name not in REPOSITORY}


def quiet_environment() -> None:
    """Switch telemetry off, use passive waiting and a database timeout, in this process and its children.

    Values set by the user stay, except for telemetry and git's hook variables. Call it before importing torch, MLflow or Prefect.
    """
    for name in REPOSITORY:
        os.environ.pop(name, None)
    for name, value in QUIET.items():
        if name in _DEFAULTS:
            os.environ.setdefault(name, value)
        else:
            os.environ[name] = value


def tied_command(command: Sequence[str]) -> list[str]:
    """Return a command line that runs `command` and kills it when this process ends, even if this process is killed."""
    # -P: keep the folder of this file off the import path. -B: write no compiled files.
    return [sys.executable, "-P", "-B", __file__, f"{_PARENT}{os.getpid()}", *command]


def die_with_parent(parent: int | None = None) -> None:
    """Let the kernel kill this process when its parent dies; except on Linux, poll the parent every half second.

    Ends this process at once if the parent has already died: the parent is no longer `parent` (its process id, passed on the command
    line), or DVC started this process and another session has adopted it. DVC passes no id and starts stages in its own session;
    a process that leads its session (`setsid`, `script`, `unbuffer`) is not checked.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    current = os.getppid()
    if (_adopted_by(current) if parent is None else current != parent) or os.getppid() != current:
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(current,), daemon=True).start()


def _adopted_by(parent: int) -> bool:
    try:
        return _DVC_STAGE in os.environ and os.getsid(0) not in (os.getsid(parent), os.getpid())
    except ProcessLookupError:  # it has just died
        return True


def end_group(child: subprocess.Popen[str], grace: float = 0.0) -> None:
    """Send SIGINT to a child's process group, wait `grace` seconds, then send SIGKILL.

    A child that was already waited for is skipped, since its process id may be reused.
    """
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        if grace:
            os.killpg(child.pid, signal.SIGINT)
            child.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def end_children() -> None:
    """Kill every process in CHILDREN, from any thread; a waiting thread sees it removed from the set and reports a cancellation."""
    while CHILDREN:
        with contextlib.suppress(KeyError):  # it has just ended
            end_group(CHILDREN.pop())


def is_alive(pid: int) -> bool:
    """Return whether a process with this number runs on this host; a killed one whose parent has not waited for it has ended."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # a process of another account
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:  # it has just ended, or there is no /proc
        return not Path("/proc/self/stat").exists()
    return state not in ("Z", "X")


def owner(pid: int | None = None) -> str:
    """Return a tag (JSON) that identifies this process, or process `pid`, for `is_gone`."""
    import psutil  # slow to import, and `main` must start fast

    process = psutil.Process(pid)
    return json.dumps({"host": socket.gethostname(), "pid": process.pid, "started": round(process.create_time(), 1)})


def is_gone(tag: str) -> bool:
    """Return whether the process of an `owner` tag has ended; a process of another host counts as alive."""
    import psutil

    try:
        description = json.loads(tag)
        if description["host"] != socket.gethostname():
            return False
        process = psutil.Process(int(description["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        started = process.create_time()
    except psutil.NoSuchProcess:
        return True
    except (ValueError, KeyError, TypeError, psutil.AccessDenied):
        return False
    return bool(abs(started - float(description["started"])) > 1)  # the process id was reused


def is_foreign(tag: str) -> bool:
    """Return whether an `owner` tag names a process of another host, whose end cannot be detected here."""
    try:
        return bool(json.loads(tag)["host"] != socket.gethostname())
    except (ValueError, KeyError, TypeError):
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """`python -m components.core.process [--parent=PID] COMMAND…`: exec COMMAND, which ends with its parent PID."""
    named = sys.argv[1].startswith(_PARENT)
    die_with_parent(int(sys.argv[1].removeprefix(_PARENT)) if named else os.getppid())
    command = sys.argv[1 + named :]
    with contextlib.suppress(FileNotFoundError):
        os.execvp(command[0], command)
    sys.exit(f"error: {command[0]}: command not found; PATH is {os.environ.get('PATH', '')}")


if __name__ == "__main__":
    main()
