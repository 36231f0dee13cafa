"""A webhook on loopback that records its requests."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Webhook(BaseHTTPRequestHandler):
    """Record the body of each request."""

    requests: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@contextmanager
def listening() -> Iterator[str]:
    """Start the webhook without recorded requests, and yield its address for Apprise."""
    Webhook.requests = []
    with HTTPServer(("127.0.0.1", 0), Webhook) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"json://127.0.0.1:{server.server_port}/hook"
        server.shutdown()
        thread.join()
