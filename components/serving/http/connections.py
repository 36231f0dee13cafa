"""Limit the number and the idle time of connections, and report HTTP errors as JSON."""

import asyncio
import json
import logging
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .middleware import CODES
from .request_parsing import Limits

log = logging.getLogger(__name__)


class Protocol(H11Protocol):
    """HTTP/1.1 protocol that disconnects slow clients and rejects invalid HTTP with a JSON error."""

    limits: Limits  # set by `limited`

    _since = 0.0  # start of the wait for the rest of a request
    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; at the limit, the connection that has been sending for the longest time is closed."""
        others = [peer for peer in self.connections if isinstance(peer, Protocol) and not peer.transport.is_closing()]
        super().connection_made(transport)
        if len(others) >= self.limits.connections:
            slow = [peer for peer in others if peer.is_sending()]
            if not slow:
                self.hang_up(503, f"{len(others)} connections are already open; try again")
                return
            min(slow, key=lambda peer: peer._since).hang_up(408, "the request was incomplete when its connection was needed for others")
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        for timer in (self._head, self._unread):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Cancel the timer when the head of a request is complete."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and self._head:
            self._head.cancel()

    def on_response_complete(self) -> None:
        """Start the timer for the next request, or for the rest of a rejected one."""
        self._await_head()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read its response."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.limits.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel that timer."""
        if self._unread:
            self._unread.cancel()
        super().resume_writing()

    def is_sending(self) -> bool:
        """Return whether the server is waiting for the client: for a request, or for the rest of one."""
        return self.cycle is None or self.cycle.response_complete or (self.cycle.more_body and not self.cycle.response_started)

    def hang_up(self, status: int, message: str) -> None:
        """Send an error and close the connection."""
        body = json.dumps({"error_code": CODES[status], "message": message}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        try:
            for event in (
                h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode()),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            log.debug("the connection closed while an error was sent")
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Reject an invalid request."""
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
    """Return the protocol class for these limits."""
    return type("Limited", (Protocol,), {"limits": limits})
