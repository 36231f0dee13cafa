"""Requests to Prefect's API where its client is not at hand: it need not be imported, and costs a second."""

import functools
import os
import re
import ssl
import time
import uuid
from typing import Any

import httpx

POOL = "retune"  # the work pool of prefect.yaml
PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds
AUTH = "PREFECT_API_AUTH_STRING"
CLIENT = str(uuid.uuid4())  # who this process is to a server that wants a token of its clients

_credentials: dict[str, str] = {}  # of managed servers, by the address of their API
_tokens: dict[str, dict[str, str]] = {}  # the headers that a server with CSRF protection wants, by the address of its API


def know(api: str, credential: str) -> None:
    """Use `credential`, USER:PASSWORD, for the managed server whose API is at `api`, whatever the environment says of another one."""
    _credentials[api] = credential


def auth(url: str) -> tuple[str, str] | None:
    """Return who we are to the server of `url`, and the password; where it is not a managed one, as Prefect's own client reads it."""
    user, _, password = (_credentials.get(_api(url)) or os.environ.get(AUTH, "")).partition(":")
    return (user, password) if user else None


def client_settings(api: str) -> dict[str, str]:
    """Return the variables by which Prefect's own client reaches the API at `api`."""
    known = {AUTH: _credentials[api]} if api in _credentials else {}
    return {"PREFECT_API_URL": api, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"} | known


def ask(method: str, url: str, timeout: float = 10.0) -> httpx.Response:
    """Send a request without a body; whatever the answer is, it is returned.

    Raises:
        httpx.HTTPError: the server is out of reach.
    """
    return _send(method, url, timeout)


def post(url: str, body: Any, timeout: float = 10.0) -> httpx.Response:
    """Send `body` as JSON, and again while the answer is 503: the server's SQLite file was busy, and nothing was written.

    That is how Prefect's own client takes it. `timeout` is in seconds, of one attempt.

    Raises:
        httpx.HTTPError: the server is out of reach.
        httpx.HTTPStatusError: it answers with an error, or still with 503 after 7.5 s.
    """
    return _until_free("POST", url, body, timeout)


def patch(url: str, body: Any, timeout: float = 10.0) -> httpx.Response:
    """Change something as `post` makes something.

    Raises:
        httpx.HTTPError, httpx.HTTPStatusError: as for `post`.
    """
    return _until_free("PATCH", url, body, timeout)


def _until_free(method: str, url: str, body: Any, timeout: float) -> httpx.Response:
    for pause in PAUSES:
        answer = _send(method, url, timeout, body)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return answer.raise_for_status()
        time.sleep(pause)
    return _send(method, url, timeout, body).raise_for_status()


def _send(method: str, url: str, timeout: float, body: Any = None) -> httpx.Response:
    """Send a request; where the server wants a token of this client, or a newer one, get it and send again."""
    api, who = _api(url), auth(url)
    content = {} if body is None else {"json": body}
    answer = httpx.request(method, url, timeout=timeout, auth=who, headers=_tokens.get(api), verify=_certificates(), **content)
    if answer.status_code != httpx.codes.FORBIDDEN or "CSRF" not in answer.text:
        return answer
    given = httpx.get(f"{api}/csrf-token", params={"client": CLIENT}, timeout=timeout, auth=who, verify=_certificates())
    if not given.is_success:
        return answer
    _tokens[api] = {"Prefect-Csrf-Client": CLIENT, "Prefect-Csrf-Token": str(given.json()["token"])}
    return httpx.request(method, url, timeout=timeout, auth=who, headers=_tokens[api], verify=_certificates(), **content)


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return what httpx checks a server by: loading that for each request would cost more than the request."""
    return httpx.create_ssl_context()


def _api(url: str) -> str:
    """Return the address of the API that `url` is of."""
    found = re.match(r"https?://[^/]+(?:/[^/]+)*?/api(?=/|$)", url)
    return found.group() if found else url
