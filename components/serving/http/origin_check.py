"""Which HTTP requests come from a page of another origin, or through a foreign name of this host: no server of Retune's answers them.

A web page in the user's browser reaches loopback too. It cannot hide its origin (`Origin`, `Sec-Fetch-Site`), and a name that it makes
resolve to loopback (DNS rebinding) is in `Host`. Imports nothing of Retune, as the rest of this package.
"""

import ipaddress
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}


def fault(headers: Iterable[tuple[bytes, bytes]], loopback: bool = True, names: Collection[str] = ()) -> str | None:
    """Return why the caller is refused; None where it is not.

    `loopback`: the server listens on loopback only, and is called by a name of loopback. `names`: further host names by which it is
    called, as behind a proxy; another server than one on loopback accepts every name where none is given.
    """
    found: dict[bytes, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value.decode("latin-1").strip().lower())
    hosts = found.get(b"host", [])
    host = _authority(f"http://{hosts[0]}") if hosts else None
    if len(hosts) > 1 or (hosts and (host is None or not _is_known(host[0], loopback, names))):
        return f"this server is not called {_cut(', '.join(hosts))}: expected the address that it printed at its start"
    for origin in found.get(b"origin", []):
        page = _authority(origin)
        if page is None or not (page[0] in names or _is_same(page, host, origin == f"https://{hosts[0]}" if hosts else False)):
            return f"a page of {_cut(origin)} may not call this server: only its own pages may"
    site = found.get(b"sec-fetch-site", ["none"])[-1]
    # A link may lead here; a frame would let its page have the user's clicks.
    link = found.get(b"sec-fetch-mode") == ["navigate"] and found.get(b"sec-fetch-dest", ["document"]) == ["document"]
    if b"origin" not in found and site not in ("none", "same-origin") and not link:
        return "a page of another origin may not call this server: only its own pages may"
    return None


def _is_known(name: str, loopback: bool, names: Collection[str]) -> bool:
    if name in names or _is_loopback(name):
        return True
    return not loopback and (not names or _is_address(name))  # no page can make an address resolve to another one


def _is_same(page: tuple[str, int], host: tuple[str, int] | None, behind_tls: bool) -> bool:
    if host is None:
        return False
    return page == host or behind_tls or (page[1] == host[1] and _is_loopback(page[0]) and _is_loopback(host[0]))


def _authority(origin: str) -> tuple[str, int] | None:
    """Return host name and port of an origin; None for what is none, as `null`."""
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
