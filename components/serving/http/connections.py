"""Connections: how many there may be, how long one may take to send a request's head or to read its answer; errors of HTTP as JSON."""

import asyncio
import json
import logging

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .middleware import CODES
from .request_parsing import Limits

log = logging.getLogger(__name__)

REASONS = {400: b"Bad Request", 408: b"Request Timeout", 503: b"Service Unavailable"}


class Protocol(H11Protocol):
    """HTTP in which who is slow is hung up on, and what is no HTTP at all is refused as JSON, too."""

    limits: Limits  # of the server; `limited` sets it

    _since = 0.0  # when it began to wait for what is not whole yet
    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection in; where there are as many as may be, the one that has been sending for the longest makes room."""
        others = [one for one in self.connections if isinstance(one, Protocol) and not one.transport.is_closing()]
        super().connection_made(transport)
        if len(others) >= self.limits.connections:
            slow = [one for one in others if one.is_sending()]
            if not slow:
                self.hang_up(503, f"{len(others)} connections are open already; ask again")
                return
            min(slow, key=lambda one: one._since).hang_up(408, "the request was not whole when its connection was needed for others")
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        for timer in (self._head, self._unread):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Note when the head of a request is whole."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and self._head:
            self._head.cancel()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of one that was refused."""
        self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait only so long until the client reads on."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        if self._unread:
            self._unread.cancel()
        super().resume_writing()

    def is_sending(self) -> bool:
        """Say whether the server waits for the client: for a request, or for the rest of one."""
        return self.cycle is None or self.cycle.response_complete or (self.cycle.more_body and not self.cycle.response_started)

    def hang_up(self, status: int, message: str) -> None:
        """Refuse what was sent so far, and close."""
        body = json.dumps({"error_code": CODES[status], "message": message}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        try:
            for event in (
                h11.Response(status_code=status, headers=headers, reason=REASONS[status]),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            log.debug("a request broke off while it was answered")
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read."""
        self.hang_up(400, msg)

    def _await_head(self) -> None:
        if self._head:
            self._head.cancel()
        self._since = self.loop.time()
        self._head = self.loop.call_later(self.limits.head_seconds, self._no_head)

    def _no_head(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            self.hang_up(408, f"the head of the request did not arrive within {self.limits.head_seconds:g} s")
        else:
            self.transport.close()


def limited(limits: Limits) -> type[Protocol]:
    """Return the protocol of a server with these limits."""
    return type("Limited", (Protocol,), {"limits": limits})
