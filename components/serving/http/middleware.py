"""The door before MLflow's scoring server: routes, types, sizes and numbers of requests, and one shape for every error."""

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
MESSAGE = 1_000  # characters of a message


class ClientDisconnected(Exception):
    """The client left before its request was whole."""


@dataclass(eq=False)
class IncompleteRequest:
    """A body that a client is still sending, how many bytes of it are held, and when it has to be whole."""

    deadline: asyncio.Timeout
    size: int = 0
    dropped: bool = False


class RequestMiddleware:
    """An ASGI middleware that lets proper requests through to `app`, each as one table, and answers every other one itself."""

    def __init__(
        self,
        app: App,
        inputs: Sequence[str],
        about: Mapping[str, Any],
        limits: Limits,
        loopback: bool = True,
        names: Collection[str] = (),
    ) -> None:
        """Of a version that is asked with `inputs`; `about` is what /version tells, `loopback` and `names` are those of `callers.fault`."""
        self._app, self._inputs, self._about, self._limits = app, tuple(inputs), dict(about), limits
        self._loopback, self._names = loopback, frozenset(names)
        self._inside = 0
        self._unfinished: dict[IncompleteRequest, None] = {}  # the oldest first

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
        except RequestRejected as refused:
            await reply.error(refused.status, refused.message, refused.headers)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            await reply.error(500, "the server failed on this request; its log says how")

    async def _answer(self, scope: Message, receive: Receive, reply: "HttpReply") -> None:
        if says := fault(scope["headers"], self._loopback, self._names):
            raise RequestRejected(403, says)
        if (method := ROUTES.get(scope["path"])) is None:
            raise RequestRejected(404, f"there is no {scope['path'][:200]!r}; there are {', '.join(ROUTES)}")
        if scope["method"] != method:
            raise RequestRejected(405, f"{scope['path']} is asked by {method}, not by {scope['method'][:20]}", {"allow": method})
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
        if self._inside >= self._limits.waiting:
            raise RequestRejected(503, f"{self._inside} requests are waiting already; ask again", {"retry-after": "1"})
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        self._inside += 1  # neither who sends slowly nor who reads slowly takes a seat
        try:
            table = await asyncio.to_thread(table_of, body, self._inputs, self._limits)
            await self._app({**scope, "headers": _headers(table)}, _once(table, receive), keep)
        finally:
            self._inside -= 1
        for message in answer:
            await reply(message)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Read a body up to the limit; what comes after a refusal the protocol reads and drops, without keeping it."""
        most = self._limits.body_kib * 1024
        too_large = RequestRejected(413, f"the body is larger than {self._limits.body_kib:,} KiB")
        if int(headers.get(b"content-length", b"0")) > most:
            raise too_large
        body, more, seconds = bytearray(), True, self._limits.body_seconds
        deadline = asyncio.timeout(seconds)
        one = IncompleteRequest(deadline)
        try:
            async with deadline:
                self._unfinished[one] = None
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnected
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise too_large
                    one.size = len(body)
                    self._make_room()
        except TimeoutError:
            why = "was still on its way when its memory was needed for others" if one.dropped else f"did not arrive within {seconds:g} s"
            raise RequestRejected(408, f"the body {why}; ask again", {"connection": "close"}) from None
        finally:
            self._unfinished.pop(one, None)
        return bytes(body)

    def _make_room(self) -> None:
        """Drop the oldest unfinished bodies while all together hold more memory than those of the requests that may wait."""
        most = self._limits.waiting * self._limits.body_kib * 1024
        while sum(one.size for one in self._unfinished) > most:
            oldest = next(iter(self._unfinished))
            del self._unfinished[oldest]
            oldest.dropped = True
            oldest.deadline.reschedule(asyncio.get_running_loop().time())


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    said = headers.get(b"content-type", b"").decode("latin-1")
    kind, *more = (part.strip().lower() for part in said.split(";"))
    if kind != "application/json" or any(part not in ("", "charset=utf-8", 'charset="utf-8"') for part in more):
        raise RequestRejected(415, f"expected Content-Type: application/json, in UTF-8, found {said[:100] or 'none'}")
    if (coding := headers.get(b"content-encoding", b"identity").decode("latin-1").lower()) != "identity":
        raise RequestRejected(415, f"expected a body that is not compressed, found Content-Encoding: {coding[:100]}")


def _headers(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]


def _once(body: bytes, receive: Receive) -> Receive:
    """Return what gives `body`, and afterwards what `receive` gives: that the client has left."""
    given = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def next_message() -> Message:
        return next(given, None) or await receive()

    return next_message


class HttpReply:
    """What is said to a client: answers pass as they are, and the errors of whoever stands behind get the shape of ours."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self._status = 0
        self._error = b""

    async def __call__(self, message: Message) -> None:
        """Pass a message of the application on."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._status = message["status"]
        elif not self._status:
            self._started = True
            await self._send(message)
        else:
            self._error += message.get("body", b"")
            if not message.get("more_body", False):
                code, said = _reason(self._error)
                await self.error(self._status, said, code=code)

    async def error(self, status: int, message: str, headers: Mapping[str, str] | None = None, code: str = "") -> None:
        """Tell an error, unless an answer has begun; `code` is that of `status` where it is not given."""
        if not self._started:
            cut = message if len(message) <= MESSAGE else message[:MESSAGE] + "…"
            await self.json(status, {"error_code": code or CODES.get(status, "BAD_REQUEST"), "message": cut}, headers)

    async def json(self, status: int, value: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        """Answer with a JSON object."""
        body = json.dumps(value).encode()
        more = [(name.encode(), text.encode()) for name, text in (headers or {}).items()]
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": [*_headers(body), *more]})
        await self._send({"type": "http.response.body", "body": body})


def _reason(body: bytes) -> tuple[str, str]:
    """Return code and message of an error of MLflow's; its message repeats the request first, and may end in a traceback."""
    text = body.decode(errors="replace")
    try:
        found = json.loads(text)
        return str(found["error_code"]), str(found["message"]).rpartition("\nError: ")[2]
    except (ValueError, KeyError, TypeError):
        return "", text
