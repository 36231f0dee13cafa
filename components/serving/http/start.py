"""A version served for good: this process becomes its scoring server, outside the repository.

Reads the registry and the checked package; what is then served is the very folder that was checked.
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
from components.mlflow_store.registry.verify import inspected
from components.mlflow_store.registry.versions import PACKAGE, Version
from components.mlflow_store.registry.worker_client import PYTHON, environment
from components.serving import http

BACKLOG = 128  # connections that wait to be taken in, also while the version is being loaded
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any free one. Who connects before the version is loaded waits for it.

    Raises:
        Unavailable: the port is in use.
        BadParams: this machine has no such address, or does not allow the port.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(f"port {port} of {host} is in use; name another: --port, or 0 for any free one") from None
        raise BadParams(f"cannot listen on port {port} of {host}: {error.strerror or error}") from None


def address_of(listening: socket.socket) -> str:
    """Return where a listening socket is reached over HTTP."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def become_server(
    uri: str, version: Version, alias: str | None, listening: socket.socket, limits: Mapping[str, float], names: Sequence[str] = ()
) -> NoReturn:
    """Check the package of `version` and replace this process by its scoring server; `alias` is what it was named by, if by one.

    `limits` are those of `scoring_server.request_parsing.Limits`, `names` further host names by which clients call it. The server
    ends with 0 when it is told to.

    Raises:
        BadModel: the package is not what was registered; nothing of it was run.
        Unavailable: the registry is busy or out of reach.
    """
    folder = make()
    tempfile.tempdir = str(folder)  # a package that is fetched stays for as long as it is served
    try:
        package = inspected(uri, version)
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
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)  # until the server can heed them
    # What -P and -B say to the server, these say to a process of its own.
    isolated = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.chdir(folder)
    main = Path(str(http.__file__)).with_name("__main__.py")
    os.execve(PYTHON[0], [*PYTHON, str(main), json.dumps(settings)], {**environment(uri, folder), **isolated})
