"""Hand a Python command over to the fork server of the tests, which has torch and MLflow imported already.

Python imports this module at its start when its folder is on PYTHONPATH: `tests.support.project.environment(forks=True)` puts it there.
This process stays: it passes signals on and ends as the forked one ends. When it is killed, the forked one is killed too.
"""

import os
import sys

ADDRESS = "FORK_SERVER"
MODULES = {"components", "dvc", "flows.cli"}


def command(argv: list[str]) -> list[str] | None:
    """Return what Python is to run, as `-m NAME …`, `-c CODE …`, `SCRIPT …` or `-P SCRIPT …`; None for what starts as usual."""
    if argv[1:3] == ["-P", "-B"] and argv[3].endswith("components/mlflow_store/registry/model_worker.py"):
        return ["-P", *argv[3:]]
    if len(argv) > 2 and ((argv[1] == "-m" and argv[2] in MODULES) or (argv[1] == "-c" and "mlflow" in argv[2])):
        return argv[1:]
    return argv[1:] if len(argv) > 1 and argv[1].endswith("/bin/retune") else None


def forward(address: str, argv: list[str]) -> int:
    """Have `argv` run by the server and return its exit code; die of the signal that it died of."""
    import ctypes
    import json
    import signal
    import socket

    if argv[:2] == ["-m", "components"]:  # a stage ends with the process that started it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    umask = os.umask(0o077)
    os.umask(umask)
    request = {"argv": argv, "cwd": os.getcwd(), "environment": dict(os.environ), "parent": os.getppid(), "umask": umask}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(address)
        content = json.dumps(request).encode()
        socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(content)
        answers = server.makefile("rb")
        pid = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        status = int(answers.readline() or b"9")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -status)
    return status


if ADDRESS in os.environ:
    _argv = command(sys.orig_argv)
    if _argv:
        os._exit(forward(os.environ[ADDRESS], _argv))
