"""Detect HTTP requests from web pages of another origin, or to a foreign host name; Retune's servers reject both.

A web page in the user's browser can reach loopback too. It cannot hide its origin (`Origin`, `Sec-Fetch-Site`), and a name that it
resolves to loopback (DNS rebinding) is visible in `Host`. Like the rest of this package, it imports nothing of Retune.
"""

import ipaddress
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}


def fault(headers: Iterable[tuple[bytes, bytes]], loopback: bool = True, names: Collection[str] = ()) -> str | None:
    """Return why a request is rejected, or None if it is accepted.

    `loopback`: the server listens on loopback only, and is addressed by a loopback name. `names`: further host names of the server, such
    as those behind a proxy; without them, a server that does not listen on loopback accepts every name.
    """
    values: dict[bytes, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(value.decode("latin-1").strip().lower())
    hosts = values.get(b"host", [])
    host = _authority(f"http://{hosts[0]}") if hosts else None
    if len(hosts) > 1 or (hosts and (host is None or not _is_known(host[0], loopback, names))):
        return f"unknown host name {_cut(', '.join(hosts))}: expected the address that the server printed at its start"
    for origin in values.get(b"origin", []):
        page = _authority(origin)
        if page is None or not (page[0] in names or _is_same(page, host, origin == f"https://{hosts[0]}" if hosts else False)):
            return f"pages of {_cut(origin)} may not call this server; only its own pages may"
    site = values.get(b"sec-fetch-site", ["none"])[-1]
    # A link to this server is allowed; a frame is not, because its page could capture the user's clicks.
    link = values.get(b"sec-fetch-mode") == ["navigate"] and values.get(b"sec-fetch-dest", ["document"]) == ["document"]
    if b"origin" not in values and site not in ("none", "same-origin") and not link:
        return "pages of another origin may not call this server; only its own pages may"
    return None


def _is_known(name: str, loopback: bool, names: Collection[str]) -> bool:
    if name in names or _is_loopback(name):
        return True
    return not loopback and (not names or _is_address(name))  # DNS rebinding needs a name


def _is_same(page: tuple[str, int], host: tuple[str, int] | None, behind_tls: bool) -> bool:
    if host is None:
        return False
    return page == host or behind_tls or (page[1] == host[1] and _is_loopback(page[0]) and _is_loopback(host[0]))


def _authority(origin: str) -> tuple[str, int] | None:
    """Return host name and port of an origin, or None if it is invalid, such as `null`."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    odd = parts.path or parts.query or parts.fragment or "@" in parts.netloc or any(mark in origin for mark in "\\?# ")
    if parts.scheme not in PORTS or not parts.hostname or odd:
        return None
    return parts.hostname, port or PORTS[parts.scheme]


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False


def _cut(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "…")
