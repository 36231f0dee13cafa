"""Retune's servers accept only their own pages and programs, under their own host names."""

import asyncio
import base64
from typing import Any

import pytest

from components.serving.http.origin_check import fault
from flows.orchestrator.guarded_app import OriginGuard, is_authorized


def headers_of(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


OWN = "127.0.0.1:4200"


@pytest.mark.parametrize(
    "headers",
    [
        headers_of(host=OWN),
        headers_of(host="localhost:4200"),
        headers_of(host="[::1]:4200", origin="http://[::1]:4200"),
        headers_of(host=OWN, origin=f"http://{OWN}"),
        headers_of(host=OWN, origin="http://localhost:4200"),
        headers_of(host=OWN, origin=f"http://{OWN}", sec_fetch_site="same-origin"),
        headers_of(host=OWN, sec_fetch_site="none", sec_fetch_mode="navigate"),
        headers_of(host=OWN, sec_fetch_site="cross-site", sec_fetch_mode="navigate"),  # a link to the page
        headers_of(host=OWN, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document"),
        headers_of(host=OWN, sec_fetch_site="same-origin", sec_fetch_mode="navigate", sec_fetch_dest="iframe"),
        headers_of(),
    ],
)
def test_own_pages_and_programs_are_accepted(headers: list[tuple[bytes, bytes]]) -> None:
    assert fault(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        headers_of(host="evil.example"),
        headers_of(host="evil.example:4200", origin="http://evil.example:4200"),
        headers_of(host="127.0.0.1.evil.example:4200"),
        headers_of(host="192.0.2.1:4200"),
        headers_of(host="127.0.0.1:4200@evil.example"),
        headers_of(host="evil.example#127.0.0.1:4200"),
        headers_of(host="127.0.0.1:99999"),
        headers_of(host=""),
        [*headers_of(host=OWN), *headers_of(host="evil.example")],
        headers_of(host=OWN, origin="http://evil.example"),
        headers_of(host=OWN, origin="http://127.0.0.1:8080"),
        headers_of(host=OWN, origin="http://127.0.0.1"),
        headers_of(host=OWN, origin="http://localhost.evil.example:4200"),
        headers_of(host=OWN, origin="null"),
        headers_of(host=OWN, origin=""),
        headers_of(host=OWN, origin="file://"),
        headers_of(host=OWN, origin=f"http://{OWN} http://evil.example"),
        headers_of(host=OWN, sec_fetch_site="cross-site", sec_fetch_mode="no-cors"),
        headers_of(host=OWN, sec_fetch_site="same-site", sec_fetch_mode="no-cors"),
        headers_of(host=OWN, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="iframe"),  # clicks in a frame
        headers_of(host=OWN, sec_fetch_site="same-site", sec_fetch_mode="navigate", sec_fetch_dest="object"),
        headers_of(origin="http://evil.example"),
    ],
)
def test_foreign_pages_and_names_are_rejected(headers: list[tuple[bytes, bytes]]) -> None:
    assert fault(headers)


@pytest.mark.parametrize(
    ("headers", "names", "rejected"),
    [
        (headers_of(host="models.example", origin="http://models.example"), (), False),
        (headers_of(host="models.example", origin="https://models.example"), (), False),  # behind a proxy with TLS
        (headers_of(host="models.example", origin="http://evil.example"), (), True),
        (headers_of(host="models.example"), ("models.example",), False),
        (headers_of(host="evil.example"), ("models.example",), True),
        (headers_of(host="10.1.2.3:5001"), ("models.example",), False),  # a health probe
        (headers_of(host="10.1.2.3:5001", origin="https://models.example"), ("models.example",), False),
    ],
)
def test_network_server_accepts_its_given_names(headers: list[tuple[bytes, bytes]], names: tuple[str, ...], rejected: bool) -> None:
    assert bool(fault(headers, loopback=False, names=names)) is rejected


def test_only_the_exact_credential_is_accepted() -> None:
    def header(text: str) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", b"Basic " + base64.b64encode(text.encode()))]

    assert is_authorized(header("retune:secret"), "retune:secret")
    for wrong in ([], header("retune:"), header("retune:secrets"), [(b"authorization", b"Basic !")], header("retune:secret") * 2):
        assert not is_authorized(wrong, "retune:secret")


@pytest.mark.parametrize(
    ("scope_type", "path", "expected"), [("http", "/x", 401), ("http", "/health", 200), ("websocket", "/x", "websocket.close")]
)
def test_only_health_is_answered_without_the_credential(scope_type: str, path: str, expected: object) -> None:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    guard = OriginGuard(app, "retune:secret")
    asyncio.run(guard({"type": scope_type, "path": path, "headers": headers_of(host=OWN)}, None, send))  # type: ignore[arg-type]

    assert (sent[0].get("status") or sent[0]["type"]) == expected
