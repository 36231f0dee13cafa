"""Free TCP ports on loopback."""

import socket
from contextlib import suppress

from components.core.errors import Unavailable

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether no process listens on the loopback port."""
    with suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False


def free_port(preferred: int = 0) -> int:
    """Return the preferred loopback port if it is free, else any free port.

    Raises:
        Unavailable: no port is free.
    """
    if preferred and is_free(preferred):
        return preferred
    with suppress(OSError), socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
    raise Unavailable(f"no free port on {HOST}")
