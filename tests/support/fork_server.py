"""`python -m tests.support.fork_server SOCKET`: import the heavy libraries once, then run each Python command in a fork.

A stage spends seconds on imports and less on twenty rows. Nothing of this project is imported before the fork, so that a command runs the
code of the project that it was started in. For commands whose process is the subject of a test, do not use it.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

HEAVY = (
    "torch",
    "transformers",
    "transformers.trainer",
    "transformers.models.bert.modeling_bert",
    "peft",
    "optuna",
    "sklearn.linear_model",
    "sklearn.feature_extraction.text",
    "scipy.stats",
    "pandas",
    "pyarrow.parquet",
    "datasets",
    "great_expectations",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "dvc.cli",
    "dvc.repo",
    "typer",
    "rich.console",
    "jinja2",
)
PR_SET_PDEATHSIG = 1
ROOT = Path(__file__).parents[2]


@functools.cache
def address() -> str:
    """Return the socket of this process's fork server, which is started at the first call and ends with this process."""
    path = Path(tempfile.mkdtemp(prefix="retune-forks-")) / "socket"
    command = [sys.executable, "-m", "tests.support.fork_server", str(path)]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": ""}, stdout=subprocess.PIPE)

    def end() -> None:
        server.kill()
        server.communicate()
        path.unlink(missing_ok=True)
        path.parent.rmdir()

    atexit.register(end)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return str(path)


def variables(path: str) -> dict[str, str]:
    """Return the environment in which Python commands run in the fork server of this process; `path` is their PYTHONPATH."""
    parts = filter(None, (str(ROOT / "tests/support/forks"), path))
    return {"PYTHONPATH": os.pathsep.join(parts), "FORK_SERVER": address()}


def main(path: str) -> None:
    """Serve until the process that started this one is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for name in HEAVY:
        importlib.import_module(name)
    ours = [name for name in sys.modules if name.split(".")[0] in ("components", "flows", "infra")]
    assert not ours, ours
    assert threading.active_count() == 1, threading.enumerate()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    gc.collect()
    gc.freeze()  # so that no fork copies what it never changes
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        running: dict[int, tuple[socket.socket, int]] = {}  # by pid: the connection, and a descriptor that is ready when it has ended
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    started = start(connection, listener)
                    if started:
                        pid, handle = started
                        running[pid] = (connection, handle)
                        for number in (connection.fileno(), handle):
                            selector.register(number, selectors.EVENT_READ, pid)
                    continue
                pid = key.data
                if pid not in running:  # both were ready: its numbers may be another one's by now
                    continue
                connection, handle = running.pop(pid)
                if key.fd != handle:  # the client has exited
                    os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(OSError):
                    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
                for number in (connection.fileno(), handle):
                    selector.unregister(number)
                connection.close()
                os.close(handle)


def start(connection: socket.socket, listener: socket.socket) -> tuple[int, int] | None:
    """Fork for the request that comes in; return the child's pid and a descriptor that is ready when it has ended."""
    length, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    if len(length) < 8:
        connection.close()
        return None
    stream = connection.makefile("rb")
    request = json.loads(stream.read(int.from_bytes(length, "big")))
    stream.close()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        listener.close()
        connection.close()
        become(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    connection.sendall(b"%d\n" % pid)
    return pid, os.pidfd_open(pid)


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Run the requested command in this process, and exit with its code."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Those of the server believe in what it was started with: a file has a position, a pipe has none.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.getppid = lambda: request["parent"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        execute(request["argv"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def execute(argv: list[str]) -> None:
    """Run `-m NAME …`, `-c CODE …`, `SCRIPT …` or `-P SCRIPT …` as Python does, with the import path that it would have."""
    first = {"-m": [os.getcwd()], "-c": [os.getcwd()], "-P": []}.get(argv[0], [os.path.dirname(argv[0])])
    added = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [*first, *added, *(entry for entry in sys.path if entry != str(ROOT))]
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "sitecustomize")]:
        del sys.modules[name]
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    elif argv[0] == "-c":
        sys.argv = ["-c", *argv[2:]]
        exec(compile(argv[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = argv[1:] if argv[0] == "-P" else argv
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
