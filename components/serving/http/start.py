"""Start serving a version: this process becomes its scoring server, outside the repository.

Reads the registry and the package; the served folder is the one that was checked.
"""

import errno
import json
import os
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from components.core.errors import BadParams, Unavailable
from components.core.temporary import keep_after_exec, make, remove
from components.mlflow_store.registry.verify import checked_package
from components.mlflow_store.registry.versions import PACKAGE, Version
from components.mlflow_store.registry.worker_client import PYTHON, isolated_environment
from components.serving import http

BACKLOG = 128  # pending connections, also while the version is loading
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any free one. Clients that connect early wait until the version is loaded.

    Raises:
        Unavailable: the port is in use.
        BadParams: the address does not exist on this machine, or the port is not allowed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(f"port {port} of {host} is in use; choose another with --port, or 0 for any free one") from None
        raise BadParams(f"cannot listen on port {port} of {host}: {error.strerror or error}") from None


def address_of(listening: socket.socket) -> str:
    """Return the HTTP address of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def become_server(
    uri: str, version: Version, alias: str | None, listening: socket.socket, limits: Mapping[str, float], names: Sequence[str] = ()
) -> NoReturn:
    """Check the package of `version` and replace this process by its scoring server; `alias` is the alias that was requested, if any.

    `limits` are the fields of `request_parsing.Limits`, `names` further host names of the server. The server exits with 0 on a
    stop signal.

    Raises:
        BadModel: the package differs from the registered one; none of its code was run.
        Unavailable: the registry is busy or unreachable.
    """
    folder = make()
    tempfile.tempdir = str(folder)  # keeps a downloaded package until the server ends
    try:
        package = checked_package(uri, version)
    except BaseException:
        remove(folder)
        raise
    about = {"model": version.name, "version": version.number, "alias": alias, "uri": version.uri, "package": version.tags[PACKAGE]}
    settings = {
        "package": str(package),
        "about": about,
        "address": address_of(listening),
        "limits": dict(limits),
        "names": [name.lower() for name in names],
        "socket": listening.fileno(),
        "folder": str(folder),
    }
    listening.set_inheritable(True)
    keep_after_exec(folder)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # until the server has its handlers
    # -P and -B for child processes of the server.
    isolated = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.chdir(folder)
    main = Path(str(http.__file__)).with_name("__main__.py")
    os.execve(PYTHON[0], [*PYTHON, str(main), json.dumps(settings)], {**isolated_environment(uri, folder), **isolated})
