"""Requests to Prefect's API where its client is not at hand: it need not be imported, and costs a second."""

import time
from typing import Any

import httpx

PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds


def post(url: str, body: Any, timeout: float = 10.0) -> httpx.Response:
    """Send `body` as JSON, and again while the answer is 503: the server's SQLite file was busy, and nothing was written.

    That is how Prefect's own client takes it. `timeout` is in seconds, of one attempt.

    Raises:
        httpx.HTTPError: the server is out of reach.
        httpx.HTTPStatusError: it answers with an error, or still with 503 after 7.5 s.
    """
    for pause in PAUSES:
        answer = httpx.post(url, json=body, timeout=timeout)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            return answer.raise_for_status()
        time.sleep(pause)
    return httpx.post(url, json=body, timeout=timeout).raise_for_status()
