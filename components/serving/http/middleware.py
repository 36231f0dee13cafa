"""ASGI middleware before MLflow's scoring server: checks routes, types, sizes and number of requests, and unifies the errors."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from .origin_check import fault
from .request_parsing import Limits, RequestRejected, table_of

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

ROUTES = {"/invocations": "POST", "/ping": "GET", "/health": "GET", "/version": "GET"}
CODES = {
    400: "BAD_REQUEST",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "REQUEST_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
MAX_MESSAGE = 1_000  # characters


class ClientDisconnected(Exception):
    """The client disconnected before its request was complete."""


@dataclass(eq=False)
class IncompleteRequest:
    """A body that a client is still sending: its deadline, and the bytes received so far."""

    deadline: asyncio.Timeout
    size: int = 0
    dropped: bool = False


class RequestMiddleware:
    """Pass valid requests to `app`, each as one table, and answer all others with an error."""

    def __init__(
        self, app: App, inputs: Sequence[str], about: Mapping[str, Any], limits: Limits, loopback: bool = True, names: Collection[str] = ()
    ) -> None:
        """Accept `inputs`; `about` is the response of /version, `loopback` and `names` are passed to `origin_check.fault`."""
        self._app, self._inputs, self._about, self._limits = app, tuple(inputs), dict(about), limits
        self._loopback, self._names = loopback, frozenset(names)
        self._active = 0
        self._incomplete: dict[IncompleteRequest, None] = {}  # oldest first

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = HttpReply(send)
        try:
            await self._answer(scope, receive, reply)
        except ClientDisconnected:
            return
        except RequestRejected as error:
            await reply.error(error.status, error.message, error.headers)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            await reply.error(500, "the server failed on this request; see its log")

    async def _answer(self, scope: Message, receive: Receive, reply: "HttpReply") -> None:
        if reason := fault(scope["headers"], self._loopback, self._names):
            raise RequestRejected(403, reason)
        if (method := ROUTES.get(scope["path"])) is None:
            raise RequestRejected(404, f"unknown route {scope['path'][:200]!r}; expected one of {', '.join(ROUTES)}")
        if scope["method"] != method:
            raise RequestRejected(405, f"{scope['path']} expects {method}, found {scope['method'][:20]}", {"allow": method})
        if scope["path"] == "/version":
            await reply.json(200, self._about)
        elif scope["path"] != "/invocations":
            await self._app(scope, receive, reply)
        else:
            await self._invoke(scope, receive, reply)

    async def _invoke(self, scope: Message, receive: Receive, reply: "HttpReply") -> None:
        headers = dict(scope["headers"])
        _check_type(headers)
        body = await self._body(headers, receive)
        if self._active >= self._limits.waiting:
            raise RequestRejected(503, f"{self._active} requests are already waiting; try again", {"retry-after": "1"})
        response: list[Message] = []

        async def keep(message: Message) -> None:
            response.append(message)

        self._active += 1  # only while the app works: slow senders and readers do not count
        try:
            table = await asyncio.to_thread(table_of, body, self._inputs, self._limits)
            await self._app({**scope, "headers": _headers(table)}, _once(table, receive), keep)
        finally:
            self._active -= 1
        for message in response:
            await reply(message)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Read a body up to the limit; after a rejection the protocol reads and discards the rest."""
        limit = self._limits.body_kib * 1024
        too_large = RequestRejected(413, f"the body is larger than {self._limits.body_kib:,} KiB")
        if int(headers.get(b"content-length", b"0")) > limit:
            raise too_large
        body, more, seconds = bytearray(), True, self._limits.body_seconds
        deadline = asyncio.timeout(seconds)
        request = IncompleteRequest(deadline)
        try:
            async with deadline:
                self._incomplete[request] = None
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnected
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        raise too_large
                    request.size = len(body)
                    self._make_room()
        except TimeoutError:
            reason = "was incomplete when its memory was needed for others" if request.dropped else f"did not arrive within {seconds:g} s"
            raise RequestRejected(408, f"the body {reason}; try again", {"connection": "close"}) from None
        finally:
            self._incomplete.pop(request, None)
        return bytes(body)

    def _make_room(self) -> None:
        """Drop the oldest incomplete bodies while all together use more memory than the requests that may wait."""
        limit = self._limits.waiting * self._limits.body_kib * 1024
        while sum(request.size for request in self._incomplete) > limit:
            oldest = next(iter(self._incomplete))
            del self._incomplete[oldest]
            oldest.dropped = True
            oldest.deadline.reschedule(asyncio.get_running_loop().time())


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    header = headers.get(b"content-type", b"").decode("latin-1")
    media_type, *parameters = (part.strip().lower() for part in header.split(";"))
    if media_type != "application/json" or any(part not in ("", "charset=utf-8", 'charset="utf-8"') for part in parameters):
        raise RequestRejected(415, f"expected Content-Type: application/json in UTF-8, found {header[:100] or 'none'}")
    if (encoding := headers.get(b"content-encoding", b"identity").decode("latin-1").lower()) != "identity":
        raise RequestRejected(415, f"expected an uncompressed body, found Content-Encoding: {encoding[:100]}")


def _headers(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]


def _once(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that yields `body` once, and then the messages of `receive` (a disconnect)."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def next_message() -> Message:
        return next(messages, None) or await receive()

    return next_message


class HttpReply:
    """Send responses: those of the app pass unchanged, its errors are converted to our format."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self._status = 0
        self._error = b""

    async def __call__(self, message: Message) -> None:
        """Send a message of the app."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._status = message["status"]
        elif not self._status:
            self._started = True
            await self._send(message)
        else:
            self._error += message.get("body", b"")
            if not message.get("more_body", False):
                code, text = _reason(self._error)
                await self.error(self._status, text, code=code)

    async def error(self, status: int, message: str, headers: Mapping[str, str] | None = None, code: str = "") -> None:
        """Send an error unless a response has started; `code` defaults to that of `status`."""
        if not self._started:
            cut = message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"
            await self.json(status, {"error_code": code or CODES.get(status, "BAD_REQUEST"), "message": cut}, headers)

    async def json(self, status: int, value: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        """Send a JSON object."""
        body = json.dumps(value).encode()
        extra = [(name.encode(), text.encode()) for name, text in (headers or {}).items()]
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": [*_headers(body), *extra]})
        await self._send({"type": "http.response.body", "body": body})


def _reason(body: bytes) -> tuple[str, str]:
    """Return code and message of an MLflow error, without the request at its beginning and the traceback at its end."""
    text = body.decode(errors="replace")
    try:
        error = json.loads(text)
        return str(error["error_code"]), str(error["message"]).rpartition("\nError: ")[2]
    except (ValueError, KeyError, TypeError):
        return "", text
