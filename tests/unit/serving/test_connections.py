"""Slow and broken clients of the scoring server: they neither keep others out nor fill its memory."""

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
    """Answer with the body that came through."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(app: App = echo, **limits: float) -> Iterator[int]:
    """Run a scoring server without a version in a thread, and give its port."""
    chosen = Limits(**{**vars(LIMITS), **limits})  # type: ignore[arg-type]
    door = RequestMiddleware(app, ("text",), {}, chosen)
    server = uvicorn.Server(uvicorn.Config(door, http=limited(chosen), ws="none", lifespan="off", log_config=None, access_log=False))
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


def ask(port: int, body: bytes = GOOD) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def opened(port: int, text: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(text)
    return connection


def answer(connection: socket.socket) -> tuple[int, str]:
    """The status and the error code of the answer, after which the server has closed; 0 where there was none."""
    found = b""
    while block := connection.recv(1 << 16):
        found += block
    head, _, body = found.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.loads(body)["error_code"]) if head else (0, "")


SLOW = {
    "a head without an end": HEAD,
    "a body that stops": HEAD + b"Content-Length: 1000\r\n\r\n{",
    "chunks without an end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW)
@pytest.mark.parametrize("count", [34, 100])
def test_slow_clients_do_no_harm_to_honest_ones(text: bytes, count: int) -> None:
    with serving() as port, ExitStack() as stack:
        slow = [stack.enter_context(opened(port, text)) for _ in range(count)]
        statuses = [ask(port) for _ in range(5)]

        assert statuses == [200] * 5
        assert not select.select(slow, [], [], 0)[0]  # they are still waited for


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
def test_a_slow_client_is_hung_up_on(text: bytes, expected: tuple[int, str]) -> None:
    with serving(head_seconds=0.2, body_seconds=0.2) as port, opened(port, text) as slow:
        assert answer(slow) == expected
        assert ask(port) == 200


def test_a_head_in_small_pieces_does_not_extend_its_deadline() -> None:
    with serving(head_seconds=0.3) as port, opened(port, HEAD) as slow:
        begun = time.monotonic()
        while not select.select([slow], [], [], 0.05)[0]:
            slow.sendall(b"X: y\r\n")
            assert time.monotonic() - begun < 10
        assert answer(slow) == (408, "REQUEST_TIMEOUT")


def test_a_second_request_has_a_deadline_too() -> None:
    first = HEAD + f"Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    with serving(head_seconds=0.3) as port, opened(port, first + HEAD) as slow:
        text = b""
        while block := slow.recv(1 << 16):
            text += block

    assert text.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 408" in text


def test_the_rest_of_a_refused_body_is_read_for_so_long_only() -> None:
    with serving(head_seconds=0.2) as port, opened(port, HEAD + b"Content-Length: 9999999\r\n\r\n{") as slow:
        assert answer(slow) == (413, "REQUEST_TOO_LARGE")


def test_at_the_limit_the_slowest_sender_makes_room() -> None:
    with serving(connections=6) as port, ExitStack() as stack:
        slow = [stack.enter_context(opened(port, SLOW["a body that stops"])) for _ in range(5)]
        assert ask(port) == 200  # by now all of them were read
        stack.enter_context(opened(port, SLOW["a body that stops"]))

        assert [ask(port) for _ in range(3)] == [200] * 3
        assert answer(slow[0]) == (408, "REQUEST_TIMEOUT")


def test_unfinished_bodies_have_a_limit_together() -> None:
    large = HEAD + b"Content-Length: 65536\r\n\r\n" + b" " * 60_000
    with serving() as port, ExitStack() as stack:  # two of 64 KiB may wait
        slow = [stack.enter_context(opened(port, large)) for _ in range(3)]
        ready = select.select(slow, [], [], 20)[0]

        assert len(ready) == 1
        assert answer(ready[0]) == (408, "REQUEST_TIMEOUT")
        assert ask(port) == 200


async def much(scope: Any, receive: Any, send: Any) -> None:
    """Answer with more than the buffers between two processes hold."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"30000000")]})
    await send({"type": "http.response.body", "body": b" " * 30_000_000})


def test_who_does_not_read_the_answer_holds_no_seat_and_is_cut_off() -> None:
    whole = HEAD + f"Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    with serving(much, waiting=1, body_seconds=0.5) as port, opened(port, whole) as slow:
        assert slow.recv(1) == b"H"
        assert ask(port) == 200
        client = slow.getsockname()
        wait_for(lambda: not any(one.raddr == client for one in psutil.Process().net_connections("tcp")), 10, every=0.05)
        found = 1
        while block := slow.recv(1 << 20):
            found += len(block)

    assert found < 30_000_000


def test_broken_requests_leave_the_server_as_it_was() -> None:
    whole = HEAD + f"Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    with serving(head_seconds=0.5) as port:
        for text in SLOW.values():
            opened(port, text).close()
        with opened(port, whole + b"more than was declared\r\n\r\n") as longer:
            text = longer.recv(1 << 16)
            while block := longer.recv(1 << 16):
                text += block
        statuses = [ask(port) for _ in range(5)]

    assert text.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 400" in text
    assert statuses == [200] * 5
