"""`python -m flows.orchestrator.guarded_app MODULE:APP --port PORT`: an ASGI app on loopback that rejects foreign origins and host names.

How Prefect's and MLflow's servers are started. Prefect's asks for its own credential; for one that has none, RETUNE_GUARD is
USER:PASSWORD, asked for by HTTP's basic authentication. It is a variable since everybody may read a command line.
"""

import argparse
import base64
import binascii
import hmac
import importlib
import os
import sys
import types
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from components.core.exits import run_command
from components.core.ports import HOST
from components.serving.http.origin_check import fault

VARIABLE = "RETUNE_GUARD"
HEALTH = "/health"  # says that a server is up, and nothing else: asked without showing the credential to whoever listens there

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class OriginGuard:
    """An ASGI middleware that refuses foreign callers; with a `credential`, also who does not know it."""

    def __init__(self, app: App, credential: str = "") -> None:
        self._app, self._credential = app, credential

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif says := fault(scope["headers"]):
            await refuse(scope, send, 403, says)
        elif self._credential and scope["path"] != HEALTH and not knows(scope["headers"], self._credential):
            await refuse(scope, send, 401, "expected the user name and the password of this server")
        else:
            await self._app(scope, receive, send)


def knows(headers: list[tuple[bytes, bytes]], credential: str) -> bool:
    """Say whether a request shows the credential."""
    shown = [value for name, value in headers if name.lower() == b"authorization"]
    scheme, _, encoded = shown[0].partition(b" ") if len(shown) == 1 else (b"", b"", b"")
    try:
        return scheme.lower() == b"basic" and hmac.compare_digest(base64.b64decode(encoded.strip(), validate=True), credential.encode())
    except binascii.Error:
        return False


async def refuse(scope: Message, send: Send, status: int, says: str) -> None:
    """Answer with an error; a browser asks its user for the password where that is missing."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    body = f"{says}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="retune", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def load(where: str) -> App:
    """Return the application MODULE:NAME; a function of that name makes it."""
    module, _, name = where.partition(":")
    found = getattr(importlib.import_module(module), name)
    return found() if isinstance(found, types.FunctionType) else found  # type: ignore[no-any-return]


def main() -> None:
    """Serve until told to end."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="python -m flows.orchestrator.guarded_app", description="Serve an ASGI application on loopback.")
    parser.add_argument("app", metavar="MODULE:APP")
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    uvicorn.run(
        OriginGuard(load(asked.app), os.environ.pop(VARIABLE, "")), host=HOST, port=asked.port, log_level="warning", access_log=False
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
