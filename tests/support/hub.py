"""A Hugging Face hub on loopback with one dataset: it answers the four requests of huggingface_hub's client."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """The dataset acme/tickets: the files of each commit, the commit of each branch, and the paths of the requests so far."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    status: int = 200
    address: str = ""
    requests: list[str] = field(default_factory=list)
    close: Callable[[], None] = lambda: None

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers for a path."""
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        if self.status != 200:
            return self.status, b"", {}
        if parts[:4] == ["api", "datasets", "acme", "tickets"] and parts[4] == "revision":
            commit = self.branches.get(parts[5])
            return self._missing("RevisionNotFound") if commit is None else self._json({"id": "acme/tickets", "sha": commit})
        if parts[:4] == ["api", "datasets", "acme", "tickets"] and parts[4] == "tree":
            return self._json([{"type": "file", "path": n, "size": len(b), "oid": _oid(b)} for n, b in self.commits[parts[5]].items()])
        if parts[:4] == ["datasets", "acme", "tickets", "resolve"]:
            body = self.commits[parts[4]]["/".join(parts[5:])]
            return 200, body, {"ETag": f'"{_oid(body)}"', "X-Repo-Commit": parts[4]}
        return self._missing("RepoNotFound")

    def _json(self, value: object) -> tuple[int, bytes, dict[str, str]]:
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}

    def _missing(self, code: str) -> tuple[int, bytes, dict[str, str]]:
        return 404, b"{}", {"X-Error-Code": code, "X-Error-Message": "there is none"}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.requests.append(self.path)
            status, body, headers = hub.answer(self.path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def close() -> None:
        server.shutdown()
        server.server_close()

    hub.close = close
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        close()
        thread.join()


def _oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()
