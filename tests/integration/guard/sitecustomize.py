"""Imported by every Python process with this folder on its path: refuses and records connections outside loopback."""

import ipaddress
import os
import socket
import sys

LOG = os.environ["RETUNE_TEST_CONNECTIONS"]
OWN = {"localhost", "", socket.gethostname(), None}


def is_loopback(host: object) -> bool:
    if host in OWN or isinstance(host, bytes):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback or ipaddress.ip_address(str(host)).is_unspecified
    except ValueError:
        return False


def refuse(address: str) -> None:
    with open(LOG, "a", encoding="utf-8") as file:
        file.write(f"{address}\n")
    raise ConnectionRefusedError(f"not loopback: {address}")


def guarded(original):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(address[0]):
            refuse(f"connect {address}")
        return original(self, address)

    return connect


def looked_up(original):
    def getaddrinfo(host, *args, **kwargs):
        if not is_loopback(host):
            refuse(f"look up {host}")
        return original(host, *args, **kwargs)

    return getaddrinfo


socket.socket.connect = guarded(socket.socket.connect)
socket.socket.connect_ex = guarded(socket.socket.connect_ex)
socket.getaddrinfo = looked_up(socket.getaddrinfo)
with open(LOG + ".processes", "a", encoding="utf-8") as seen:
    seen.write(" ".join(sys.orig_argv) + "\n")
