"""Prefect events for a change of champion and for a rejection, if there is a server.

`retune.promoted`, `retune.rolled-back` and `retune.rejected`, for the resource `retune.model.NAME`. Events are best effort, and a failed
one never fails the promotion; the ledger is authoritative.
"""

import logging
import os
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from components.core.errors import NotFound
from components.ledger import Request
from components.mlflow_store.registry import Promotion
from flows.orchestrator.prefect_api import post
from flows.orchestrator.server import running
from flows.project.workspace import find_project
from flows.settings import read_settings

log = logging.getLogger(__name__)

PROMOTION = ("model", "version", "previous", "outcome", "evidence", "forced", "who", "why", "origin")  # fields of an entry


def publish_promotion(promotion: Promotion) -> Promotion:
    """Publish a new champion (promoted, rolled back or adopted) if the promotion changed something, and return the promotion."""
    if promotion.changed:
        entry = promotion.entry
        payload = {name: getattr(entry, name) for name in PROMOTION}
        emit(f"retune.{entry.action.replace(' ', '-')}", entry.model, payload, entry.at)
    return promotion


def publish_rejection(request: Request) -> None:
    """Publish the rejection of a version."""
    payload = {"model": request.model, "version": request.version, "run": request.run, "who": request.who, "why": request.why}
    emit("retune.rejected", request.model, payload, request.decided_at or datetime.now(UTC))


def address() -> str | None:
    """Return the API URL of the Prefect server of this process or project; None if none is configured or running."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    with suppress(NotFound):
        project = find_project(Path.cwd().resolve())
        return read_settings(project).prefect_api_url or running(project / "var/prefect")
    return None


def emit(event: str, model: str, payload: dict[str, Any], at: datetime) -> None:
    """Send an event to Prefect's server, if there is one."""
    if (url := address()) is None:
        return
    body = {
        "id": str(uuid.uuid4()),
        "occurred": at.isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": f"retune.model.{model}", "prefect.resource.name": model},
        "payload": payload,
    }
    try:
        post(f"{url}/events", [body])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # including an invalid URL
        log.warning("could not send event %s of %s to Prefect at %s: %s", event, model, url, error)
