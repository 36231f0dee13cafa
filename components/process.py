"""How a process of Retune behaves: it tells nobody, does not spin, and does not outlive who started it."""

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

QUIET = {
    "DO_NOT_TRACK": "true",  # the word: MLflow ignores 1
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    # Two torch processes that spin while they wait slow each other down sevenfold.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
}
# What git tells its hooks of the repository that it works on; a child of ours looks for its own.
REPOSITORY = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_QUARANTINE_PATH",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_GRAFT_FILE",
    "GIT_SHALLOW_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
)
_PR_SET_PDEATHSIG = 1

CHILDREN: set[subprocess.Popen[str]] = set()  # leaders of their process groups, which a thread waits for


def inherited() -> dict[str, str]:
    """Return the environment for a child: this process's, without the repository that git's hooks are told of."""
    return {name: value for name, value in os.environ.items() if name not in REPOSITORY}


def quiet_environment() -> None:
    """Switch telemetry off and passive waiting on, for this process and its children; what the user set stays.

    Telemetry is the exception: it is off whatever the shell says. So is the repository of a git hook that called us, which is not the
    project's. Must run before torch, MLflow or Prefect is imported.
    """
    for name in REPOSITORY:
        os.environ.pop(name, None)
    for name, value in QUIET.items():
        if name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            os.environ.setdefault(name, value)
        else:
            os.environ[name] = value


def die_with_parent() -> None:
    """Make the kernel end this process when its parent dies; elsewhere than on Linux, watch the parent every half second."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def end_group(child: subprocess.Popen[str], grace: float = 0.0) -> None:
    """End a child that leads its process group, and all of the group: SIGINT and `grace` seconds to say goodbye, then SIGKILL.

    One that was waited for is left: its number may be another's.
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
    """Kill every process in CHILDREN, from any thread; who waits for one finds it taken out of the set, and says cancelled."""
    while CHILDREN:
        with contextlib.suppress(KeyError):  # it ended by itself meanwhile
            end_group(CHILDREN.pop())


def owner(pid: int | None = None) -> str:
    """Return who this process is, or the one with the number `pid`, so that another one can tell later whether it is gone."""
    import psutil  # here, since this file also becomes other commands, and is then to start at once

    process = psutil.Process(pid)
    return json.dumps({"host": socket.gethostname(), "pid": process.pid, "started": round(process.create_time(), 1)})


def is_gone(tag: str) -> bool:
    """Say whether the process that `owner` described has ended; one of another host counts as alive."""
    import psutil

    try:
        who = json.loads(tag)
        if who["host"] != socket.gethostname():
            return False
        started = psutil.Process(int(who["pid"])).create_time()
    except psutil.NoSuchProcess:
        return True
    except (ValueError, KeyError, TypeError, psutil.AccessDenied):
        return False
    return bool(abs(started - float(who["started"])) > 1)  # the number was given to another process


def is_foreign(tag: str) -> bool:
    """Say whether `owner` described a process of another host: nothing here can tell whether that is gone."""
    try:
        return bool(json.loads(tag)["host"] != socket.gethostname())
    except (ValueError, KeyError, TypeError):
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """`python -m components.process COMMAND…`: become COMMAND, tied to the life of the caller."""
    die_with_parent()
    with contextlib.suppress(FileNotFoundError):
        os.execvp(sys.argv[1], sys.argv[1:])
    sys.exit(f"error: {sys.argv[1]}: command not found; PATH is {os.environ.get('PATH', '')}")


if __name__ == "__main__":
    main()
