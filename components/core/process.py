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
from collections.abc import Sequence

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
    "PGCONNECT_TIMEOUT": "5",  # seconds for PostgreSQL to let a client in, of each of its host's addresses; for ever by itself
}
_OURS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "PGCONNECT_TIMEOUT")  # unless the user has set them
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
    "GIT_LITERAL_PATHSPECS",  # how git reads the paths that it is given: ours must mean what they say
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
)
_PR_SET_PDEATHSIG = 1
_PARENT = "--parent="
_DVC_STAGE = "DVC_STAGE"  # which DVC sets for a stage's command

CHILDREN: set[subprocess.Popen[str]] = set()  # leaders of their process groups, which a thread waits for


def inherited_environment() -> dict[str, str]:
    """Return the environment for a child: this process's, without the repository that git's hooks are told of."""
    return {name: value for name, value in os.environ.items() if name not in REPOSITORY}


def quiet_environment() -> None:
    """Switch telemetry off, passive waiting on, and no database waited for for ever, in this process and its children.

    What the user set stays.

    Telemetry is the exception: it is off whatever the shell says. So is the repository of a git hook that called us, which is not the
    project's. Must run before torch, MLflow or Prefect is imported.
    """
    for name in REPOSITORY:
        os.environ.pop(name, None)
    for name, value in QUIET.items():
        if name in _OURS:
            os.environ.setdefault(name, value)
        else:
            os.environ[name] = value


def tied_command(command: Sequence[str]) -> list[str]:
    """Return `command` tied to the life of this process from its very first moment, also where this process is killed meanwhile."""
    # -P: the folder of this file is not on the import path. -B: no compiled files are written.
    return [sys.executable, "-P", "-B", __file__, f"{_PARENT}{os.getpid()}", *command]


def die_with_parent(parent: int | None = None) -> None:
    """Make the kernel end this process when its parent dies; elsewhere than on Linux, watch the parent every half second.

    Ends this process at once where the parent has died before: it is not `parent` any more, which the parent passed along, or DVC has
    started this process and another session has adopted it. DVC passes nothing along, and starts its stages in its own session; one
    that leads a session (`setsid`, `script`, `unbuffer`) was given it, and tells nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    found = os.getppid()
    if (_adopted_by(found) if parent is None else found != parent) or os.getppid() != found:
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(found,), daemon=True).start()


def _adopted_by(parent: int) -> bool:
    try:
        return _DVC_STAGE in os.environ and os.getsid(0) not in (os.getsid(parent), os.getpid())
    except ProcessLookupError:  # it has died this very moment
        return True


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


def is_alive(pid: int) -> bool:
    """Return whether a process with this number exists on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another account
        return True
    return True


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
        process = psutil.Process(int(who["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:  # it has ended, and nobody has asked how
            return True
        started = process.create_time()
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
    """`python -m components.core.process [--parent=PID] COMMAND…`: become COMMAND, tied to the life of the caller, which is PID."""
    named = sys.argv[1].startswith(_PARENT)
    die_with_parent(int(sys.argv[1].removeprefix(_PARENT)) if named else os.getppid())
    command = sys.argv[1 + named :]
    with contextlib.suppress(FileNotFoundError):
        os.execvp(command[0], command)
    sys.exit(f"error: {command[0]}: command not found; PATH is {os.environ.get('PATH', '')}")


if __name__ == "__main__":
    main()
