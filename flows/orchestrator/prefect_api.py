"""Send requests to Prefect's API without its client, whose import takes a second."""

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
CLIENT = str(uuid.uuid4())  # id of this process for servers with CSRF protection

_credentials: dict[str, str] = {}  # of managed servers, by API URL
_tokens: dict[str, dict[str, str]] = {}  # headers for servers with CSRF protection, by API URL


def use_credential(api: str, credential: str) -> None:
    """Use `credential`, USER:PASSWORD, for the managed server at `api`, overriding the environment."""
    _credentials[api] = credential


def auth(url: str) -> tuple[str, str] | None:
    """Return user and password for the server of `url`; for servers that Retune does not manage, from PREFECT_API_AUTH_STRING."""
    user, _, password = (_credentials.get(_api(url)) or os.environ.get(AUTH, "")).partition(":")
    return (user, password) if user else None


def client_settings(api: str) -> dict[str, str]:
    """Return the environment variables for Prefect's own client of the API at `api`."""
    credential = {AUTH: _credentials[api]} if api in _credentials else {}
    return {"PREFECT_API_URL": api, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"} | credential


def post(url: str, body: Any, timeout: float = 10.0, method: str = "POST") -> httpx.Response:
    """Send `body` as JSON, and retry while the status is 503: the server's SQLite file was busy, and nothing was written.

    Prefect's own client does the same. `timeout` is in seconds per attempt.

    Raises:
        httpx.HTTPError: the server is unreachable.
        httpx.HTTPStatusError: it answers with an error, or with 503 for more than 7.5 s.
    """
    for pause in PAUSES:
        answer = request(method, url, body, timeout)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return answer.raise_for_status()
        time.sleep(pause)
    return request(method, url, body, timeout).raise_for_status()


def request(method: str, url: str, body: Any = None, timeout: float = 10.0) -> httpx.Response:
    """Send a request and return the response, whatever its status; if the server requires a (newer) CSRF token, get it and send again.

    Raises:
        httpx.HTTPError: the server is unreachable.
    """
    api = _api(url)
    with httpx.Client(auth=auth(url), timeout=timeout, verify=_certificates()) as client:
        answer = client.request(method, url, json=body, headers=_tokens.get(api))
        if answer.status_code != httpx.codes.FORBIDDEN or "CSRF" not in answer.text:
            return answer
        token = client.get(f"{api}/csrf-token", params={"client": CLIENT})
        if not token.is_success:
            return answer
        _tokens[api] = {"Prefect-Csrf-Client": CLIENT, "Prefect-Csrf-Token": str(token.json()["token"])}
        return client.request(method, url, json=body, headers=_tokens[api])


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return the TLS context of httpx, cached since loading it is slower than a request."""
    return httpx.create_ssl_context()


def _api(url: str) -> str:
    """Return the URL of the API that `url` belongs to."""
    match = re.match(r"https?://[^/]+(?:/[^/]+)*?/api(?=/|$)", url)
    return match.group() if match else url
