"""Who may call a server of Retune's: its own pages and programs, by a name that is its own."""

import asyncio
import base64
from typing import Any

import pytest

from components.serving.http.origin_check import fault
from flows.orchestrator.guarded_app import OriginGuard, is_authorized


def of(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


OWN = "127.0.0.1:4200"


@pytest.mark.parametrize(
    "headers",
    [
        of(host=OWN),
        of(host="localhost:4200"),
        of(host="[::1]:4200", origin="http://[::1]:4200"),
        of(host=OWN, origin=f"http://{OWN}"),
        of(host=OWN, origin="http://localhost:4200"),
        of(host=OWN, origin=f"http://{OWN}", sec_fetch_site="same-origin"),
        of(host=OWN, sec_fetch_site="none", sec_fetch_mode="navigate"),
        of(host=OWN, sec_fetch_site="cross-site", sec_fetch_mode="navigate"),  # a link to the page
        of(host=OWN, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document"),
        of(host=OWN, sec_fetch_site="same-origin", sec_fetch_mode="navigate", sec_fetch_dest="iframe"),
        of(),
    ],
)
def test_own_pages_and_programs_are_answered(headers: list[tuple[bytes, bytes]]) -> None:
    assert fault(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        of(host="evil.example"),
        of(host="evil.example:4200", origin="http://evil.example:4200"),
        of(host="127.0.0.1.evil.example:4200"),
        of(host="192.0.2.1:4200"),
        of(host="127.0.0.1:4200@evil.example"),
        of(host="evil.example#127.0.0.1:4200"),
        of(host="127.0.0.1:99999"),
        of(host=""),
        [*of(host=OWN), *of(host="evil.example")],
        of(host=OWN, origin="http://evil.example"),
        of(host=OWN, origin="http://127.0.0.1:8080"),
        of(host=OWN, origin="http://127.0.0.1"),
        of(host=OWN, origin="http://localhost.evil.example:4200"),
        of(host=OWN, origin="null"),
        of(host=OWN, origin=""),
        of(host=OWN, origin="file://"),
        of(host=OWN, origin=f"http://{OWN} http://evil.example"),
        of(host=OWN, sec_fetch_site="cross-site", sec_fetch_mode="no-cors"),
        of(host=OWN, sec_fetch_site="same-site", sec_fetch_mode="no-cors"),
        of(host=OWN, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="iframe"),  # clicks in a frame
        of(host=OWN, sec_fetch_site="same-site", sec_fetch_mode="navigate", sec_fetch_dest="object"),
        of(origin="http://evil.example"),
    ],
)
def test_foreign_pages_and_names_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    assert fault(headers)


@pytest.mark.parametrize(
    ("headers", "names", "refused"),
    [
        (of(host="models.example", origin="http://models.example"), (), False),
        (of(host="models.example", origin="https://models.example"), (), False),  # a proxy speaks TLS before it
        (of(host="models.example", origin="http://evil.example"), (), True),
        (of(host="models.example"), ("models.example",), False),
        (of(host="evil.example"), ("models.example",), True),
        (of(host="10.1.2.3:5001"), ("models.example",), False),  # a probe
        (of(host="10.1.2.3:5001", origin="https://models.example"), ("models.example",), False),
    ],
)
def test_a_server_on_a_network_has_the_names_that_it_was_given(
    headers: list[tuple[bytes, bytes]], names: tuple[str, ...], refused: bool
) -> None:
    assert bool(fault(headers, loopback=False, names=names)) is refused


def test_only_the_whole_credential_is_known() -> None:
    def shown(text: str) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", b"Basic " + base64.b64encode(text.encode()))]

    assert is_authorized(shown("retune:secret"), "retune:secret")
    for wrong in ([], shown("retune:"), shown("retune:secrets"), [(b"authorization", b"Basic !")], shown("retune:secret") * 2):
        assert not is_authorized(wrong, "retune:secret")


@pytest.mark.parametrize(
    ("kind", "path", "answer"), [("http", "/x", 401), ("http", "/health", 200), ("websocket", "/x", "websocket.close")]
)
def test_without_the_credential_only_health_is_answered(kind: str, path: str, answer: object) -> None:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    guard = OriginGuard(app, "retune:secret")
    asyncio.run(guard({"type": kind, "path": path, "headers": of(host=OWN)}, None, send))  # type: ignore[arg-type]

    assert (sent[0].get("status") or sent[0]["type"]) == answer
