"""The door before MLflow's scoring server: routes, types, sizes and numbers of requests, and one shape for every error."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .tables import Limits, Refused, table_of

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

ROUTES = {"/invocations": "POST", "/ping": "GET", "/health": "GET", "/version": "GET"}
CODES = {
    400: "BAD_REQUEST",
    404: "ENDPOINT_NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "REQUEST_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
BODY_SECONDS = 30.0  # that a client may take to send a body
MESSAGE = 1_000  # characters of a message


class Left(Exception):
    """The client left before its request was whole."""


class Door:
    """An ASGI middleware that lets proper requests through to `app`, each as one table, and answers every other one itself."""

    def __init__(self, app: App, inputs: Sequence[str], about: Mapping[str, Any], limits: Limits) -> None:
        """Of a version that is asked with `inputs`; `about` is what /version tells."""
        self._app, self._inputs, self._about, self._limits = app, tuple(inputs), dict(about), limits
        self._inside = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = Reply(send)
        try:
            await self._answer(scope, receive, reply)
        except Left:
            return
        except Refused as refused:
            await reply.error(refused.status, refused.message, refused.headers)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            await reply.error(500, "the server failed on this request; its log says how")

    async def _answer(self, scope: Message, receive: Receive, reply: "Reply") -> None:
        if (method := ROUTES.get(scope["path"])) is None:
            raise Refused(404, f"there is no {scope['path'][:200]!r}; there are {', '.join(ROUTES)}")
        if scope["method"] != method:
            raise Refused(405, f"{scope['path']} is asked by {method}, not by {scope['method'][:20]}", {"allow": method})
        if scope["path"] == "/version":
            await reply.json(200, self._about)
        elif scope["path"] != "/invocations":
            await self._app(scope, receive, reply)
        else:
            await self._invoke(scope, receive, reply)

    async def _invoke(self, scope: Message, receive: Receive, reply: "Reply") -> None:
        headers = dict(scope["headers"])
        _check_type(headers)
        if self._inside >= self._limits.waiting:
            raise Refused(503, f"{self._inside} requests are waiting already; ask again", {"retry-after": "1"})
        self._inside += 1
        try:
            body = await self._body(headers, receive)
            table = await asyncio.to_thread(table_of, body, self._inputs, self._limits)
            await self._app({**scope, "headers": _headers(table)}, _once(table, receive), reply)
        finally:
            self._inside -= 1

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Read a body up to the limit; what comes after a refusal the protocol reads and drops, without keeping it."""
        most = self._limits.body_kib * 1024
        too_large = Refused(413, f"the body is larger than {self._limits.body_kib:,} KiB")
        if int(headers.get(b"content-length", b"0")) > most:
            raise too_large
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Left
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {BODY_SECONDS:g} s", {"connection": "close"}) from None
        return bytes(body)


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    said = headers.get(b"content-type", b"").decode("latin-1")
    kind, *more = (part.strip().lower() for part in said.split(";"))
    if kind != "application/json" or any(part not in ("", "charset=utf-8", 'charset="utf-8"') for part in more):
        raise Refused(415, f"expected Content-Type: application/json, in UTF-8, found {said[:100] or 'none'}")
    if (coding := headers.get(b"content-encoding", b"identity").decode("latin-1").lower()) != "identity":
        raise Refused(415, f"expected a body that is not compressed, found Content-Encoding: {coding[:100]}")


def _headers(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]


def _once(body: bytes, receive: Receive) -> Receive:
    """Return what gives `body`, and afterwards what `receive` gives: that the client has left."""
    given = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def next_message() -> Message:
        return next(given, None) or await receive()

    return next_message


class Reply:
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


class Protocol(H11Protocol):
    """HTTP in which what is no HTTP at all is refused as JSON, too."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, and hang up."""
        body = json.dumps({"error_code": CODES[400], "message": msg}).encode()
        try:
            for event in (
                h11.Response(status_code=400, headers=[*_headers(body), (b"connection", b"close")], reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            log.debug("a request broke off while it was answered")
        self.transport.close()
