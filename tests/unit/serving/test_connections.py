"""Slow and broken clients of the scoring server neither block other clients nor fill its memory."""

import http.client
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest
import uvicorn

from components.serving.http.connections import limited
from components.serving.http.middleware import App, RequestMiddleware
from components.serving.http.request_parsing import Limits
from tests.support.project import wait_for

LIMITS = Limits(body_kib=64, rows=3, characters=20, waiting=2, connections=150, head_seconds=60, body_seconds=60)
HEAD = b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
GOOD = json.dumps({"inputs": {"text": "a"}}).encode()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the received body."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(app: App = echo, **limits: float) -> Iterator[int]:
    """Run a scoring server without a version in a thread, and yield its port."""
    settings = Limits(**{**vars(LIMITS), **limits})  # type: ignore[arg-type]
    middleware = RequestMiddleware(app, ("text",), {}, settings)
    server = uvicorn.Server(
        uvicorn.Config(middleware, http=limited(settings), ws="none", lifespan="off", log_config=None, access_log=False)
    )
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


def post(port: int, body: bytes = GOOD) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def connect(port: int, text: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(text)
    return connection


def answer(connection: socket.socket) -> tuple[int, str]:
    """Return status and error code of the response, read until the server closes; 0 if there was none."""
    data = b""
    while block := connection.recv(1 << 16):
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body)["error_code"]) if head else (0, "")


SLOW = {
    "a head without an end": HEAD,
    "a body that stops": HEAD + b"Content-Length: 1000\r\n\r\n{",
    "chunks without an end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("count", [34, 100])
def test_slow_clients_do_not_block_others(text: bytes, count: int) -> None:
    with serving() as port, ExitStack() as stack:
        slow = [stack.enter_context(connect(port, text)) for _ in range(count)]
        statuses = [post(port) for _ in range(5)]

        assert statuses == [200] * 5
        assert not select.select(slow, [], [], 0)[0]  # their connections are still open


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SLOW["a head without an end"], (408, "REQUEST_TIMEOUT")),
        (SLOW["a body that stops"], (408, "REQUEST_TIMEOUT")),
        (SLOW["chunks without an end"], (408, "REQUEST_TIMEOUT")),
        (SLOW["nothing"], (0, "")),
    ],
    ids=SLOW,
)
def test_slow_client_is_disconnected(text: bytes, expected: tuple[int, str]) -> None:
    with serving(head_seconds=0.2, body_seconds=0.2) as port, connect(port, text) as slow:
        assert answer(slow) == expected
        assert post(port) == 200


def test_small_pieces_do_not_extend_the_head_deadline() -> None:
    with serving(head_seconds=0.3) as port, connect(port, HEAD) as slow:
        start = time.monotonic()
        while not select.select([slow], [], [], 0.05)[0]:
            slow.sendall(b"X: y\r\n")
            assert time.monotonic() - start < 10
        assert answer(slow) == (408, "REQUEST_TIMEOUT")


def test_second_request_has_a_deadline_too() -> None:
    first = HEAD + f"Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    with serving(head_seconds=0.3) as port, connect(port, first + HEAD) as slow:
        text = b""
        while block := slow.recv(1 << 16):
            text += block

    assert text.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 408" in text


def test_rest_of_a_rejected_body_has_a_deadline() -> None:
    with serving(head_seconds=0.2) as port, connect(port, HEAD + b"Content-Length: 9999999\r\n\r\n{") as slow:
        assert answer(slow) == (413, "REQUEST_TOO_LARGE")


def test_slowest_sender_is_disconnected_at_the_limit() -> None:
    with serving(connections=6) as port, ExitStack() as stack:
        slow = [stack.enter_context(connect(port, SLOW["a body that stops"])) for _ in range(5)]
        assert post(port) == 200  # by now the server has read all of them
        stack.enter_context(connect(port, SLOW["a body that stops"]))

        assert [post(port) for _ in range(3)] == [200] * 3
        assert answer(slow[0]) == (408, "REQUEST_TIMEOUT")


def test_incomplete_bodies_share_a_limit() -> None:
    large = HEAD + b"Content-Length: 65536\r\n\r\n" + b" " * 60_000
    with serving() as port, ExitStack() as stack:  # two of 64 KiB may wait
        slow = [stack.enter_context(connect(port, large)) for _ in range(3)]
        ready = select.select(slow, [], [], 20)[0]

        assert len(ready) == 1
        assert answer(ready[0]) == (408, "REQUEST_TIMEOUT")
        assert post(port) == 200


async def large_answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer with more than the socket buffers hold."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"30000000")]})
    await send({"type": "http.response.body", "body": b" " * 30_000_000})


def test_client_that_does_not_read_is_disconnected() -> None:
    whole = HEAD + f"Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    with serving(large_answer, waiting=1, body_seconds=0.5) as port, connect(port, whole) as slow:
        assert slow.recv(1) == b"H"
        assert post(port) == 200
        client = slow.getsockname()
        wait_for(lambda: not any(peer.raddr == client for peer in psutil.Process().net_connections("tcp")), 10, every=0.05)
        received = 1
        while block := slow.recv(1 << 20):
            received += len(block)

    assert received < 30_000_000


def test_server_survives_broken_requests() -> None:
    whole = HEAD + f"Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    with serving(head_seconds=0.5) as port:
        for text in SLOW.values():
            connect(port, text).close()
        with connect(port, whole + b"more than was declared\r\n\r\n") as longer:
            text = longer.recv(1 << 16)
            while block := longer.recv(1 << 16):
                text += block
        statuses = [post(port) for _ in range(5)]

    assert text.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 400" in text
    assert statuses == [200] * 5
