"""Requests to Prefect's API where its client is not at hand: it need not be imported, and costs a second."""

import os
import time
from typing import Any

import httpx

PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds
AUTH = "PREFECT_API_AUTH_STRING"


def auth() -> tuple[str, str] | None:
    """Return who we are to the server, and the password, where its auth string is set; as Prefect's own client reads it."""
    user, _, password = os.environ.get(AUTH, "").partition(":")
    return (user, password) if user else None


def ask(method: str, url: str, timeout: float = 10.0) -> httpx.Response:
    """Send a request without a body; whatever the answer is, it is returned.

    Raises:
        httpx.HTTPError: the server is out of reach.
    """
    return httpx.request(method, url, timeout=timeout, auth=auth())


def post(url: str, body: Any, timeout: float = 10.0) -> httpx.Response:
    """Send `body` as JSON, and again while the answer is 503: the server's SQLite file was busy, and nothing was written.

    That is how Prefect's own client takes it. `timeout` is in seconds, of one attempt.

    Raises:
        httpx.HTTPError: the server is out of reach.
        httpx.HTTPStatusError: it answers with an error, or still with 503 after 7.5 s.
    """
    for pause in PAUSES:
        answer = httpx.post(url, json=body, timeout=timeout, auth=auth())
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return answer.raise_for_status()
        time.sleep(pause)
    return httpx.post(url, json=body, timeout=timeout, auth=auth()).raise_for_status()
