"""`python -m flows.orchestrator.guarded_app MODULE:APP --port PORT`: serve an ASGI app on loopback; reject foreign origins and hosts.

Prefect's and MLflow's servers are started with it. Prefect's checks its credential itself; for MLflow's, RETUNE_GUARD is
USER:PASSWORD for HTTP basic authentication: a variable, since every user can read a command line.
"""

import argparse
import base64
import binascii
import hmac
import importlib
import os
import sys
import types

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from components.core.exits import run_command
from components.core.ports import HOST
from components.serving.http.origin_check import fault

VARIABLE = "RETUNE_GUARD"
HEALTH = "/health"  # reveals only that the server is up, so clients need not send the credential to an unverified server


class OriginGuard:
    """ASGI middleware that rejects foreign callers and, with a `credential`, unauthenticated requests."""

    def __init__(self, app: ASGIApp, credential: str = "") -> None:
        self._app, self._credential = app, credential

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or reject it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif reason := fault(scope["headers"]):
            await _rejection(scope, 403, reason)(scope, receive, send)
        elif self._credential and scope["path"] != HEALTH and not is_authorized(scope["headers"], self._credential):
            await _rejection(scope, 401, "expected the user name and the password of this server")(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def is_authorized(headers: list[tuple[bytes, bytes]], credential: str) -> bool:
    """Return whether a request has the credential."""
    values = [value for name, value in headers if name.lower() == b"authorization"]
    scheme, _, encoded = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    try:
        return scheme.lower() == b"basic" and hmac.compare_digest(base64.b64decode(encoded.strip(), validate=True), credential.encode())
    except binascii.Error:
        return False


def _rejection(scope: Scope, status: int, reason: str) -> ASGIApp:
    """Return the response to a rejected request; on 401 a browser asks for the password."""
    if scope["type"] == "websocket":
        return WebSocketClose(1008)
    challenge = {"www-authenticate": 'Basic realm="retune", charset="UTF-8"'}
    return PlainTextResponse(f"{reason}\n", status, challenge if status == 401 else None)


def load(path: str) -> ASGIApp:
    """Load the application MODULE:NAME; a function is called to create it."""
    module, _, name = path.partition(":")
    app = getattr(importlib.import_module(module), name)
    return app() if isinstance(app, types.FunctionType) else app  # type: ignore[no-any-return]


def main() -> None:
    """Serve until stopped."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="python -m flows.orchestrator.guarded_app", description="Serve an ASGI application on loopback.")
    parser.add_argument("app", metavar="MODULE:APP")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(
        OriginGuard(load(options.app), os.environ.pop(VARIABLE, "")), host=HOST, port=options.port, log_level="warning", access_log=False
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
