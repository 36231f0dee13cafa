"""Prefect's decorators, or plain calls with `--inline`, which needs no server.

Prefect is imported when the first flow starts, so that `retune status` and inline runs stay fast.
Tasks are not cached (DVC does that) and results are not pickled. A task is retried only after `Unavailable`.
"""

import functools
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar, cast

import httpx

from components.core.errors import Cancelled, Unavailable
from flows.dvc_adapter.repro import RUNNING
from flows.orchestrator import orphaned_runs
from flows.orchestrator.prefect_api import auth, client_settings, post, request

P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)

RETRY_SECONDS = (5, 30)
WATCH_SECONDS = 2.0


class Mode:
    """Whether this process runs under Prefect, and in which flow run; `configure` sets it once, before the run starts."""

    inline = True
    flow_run: str | None = None
    deadline = 120.0  # seconds that the server may be unreachable


def task(function: Callable[P, R], run_name: str | None = None) -> Callable[P, R]:
    """Make a function a Prefect task; inline runs call it directly.

    `run_name` is the name of its runs, which may contain arguments in braces; by default that of the function.
    """

    @functools.cache
    def prefect_task() -> Any:
        from prefect import task as make
        from prefect.cache_policies import NO_CACHE

        return make(
            task_run_name=run_name or function.__name__,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=len(RETRY_SECONDS),
            retry_delay_seconds=list(RETRY_SECONDS),
            retry_condition_fn=_is_retryable,
        )(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if RUNNING.cancelled.is_set():
            raise Cancelled("the run was cancelled")
        return function(*args, **kwargs) if Mode.inline else cast(R, prefect_task()(*args, **kwargs))

    return call


def flow(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a Prefect flow; inline runs call it directly."""

    @functools.cache
    def prefect_flow() -> Any:
        from prefect import flow as make

        return make(persist_result=False, validate_parameters=False)(joined()(function))

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if Mode.inline:
            return function(*args, **kwargs)
        from prefect import tags
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        # No heartbeat, which is for runs of workers: its thread delays the end of every flow by up to a second.
        # Tag the run from the start, since it may be killed at any time.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), tags(orphaned_runs.tag()):
            return cast(R, prefect_flow()(*args, **kwargs))

    return call


def _is_retryable(_task: Any, _run: Any, state: Any) -> bool:
    try:
        state.result()
    except Exception as error:
        return isinstance(error, Unavailable)
    return False


def current_flow_run() -> str | None:
    """Return the id of this process's Prefect flow run; None if inline."""
    return Mode.flow_run


def log_to_prefect(markdown: str, key: str) -> None:
    """Show a text on the run's page in Prefect; does nothing in an inline run."""
    if Mode.inline:
        return
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(markdown, key=re.sub(r"[^a-z0-9-]+", "-", key.lower()).strip("-"))


def configure(api_url: str, home: str, deadline: float) -> None:
    """Point Prefect at a server, which may be unreachable for `deadline` seconds; call it before Prefect is imported."""
    Mode.inline = False
    Mode.deadline = deadline
    os.environ.update(
        client_settings(api_url),
        PREFECT_HOME=home,
        PREFECT_LOGGING_EXTRA_LOGGERS="components,flows",
        PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL="WARNING",  # without "Finished in state Completed()" after each step
        PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL="WARNING",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_CLI_PROMPT="false",
    )


@contextmanager
def joined() -> Iterator[None]:
    """Run the block as part of this process's flow run: its tasks belong to it, and a thread watches it.

    A plain-process flow notices neither its cancellation (`prefect flow-run cancel` only writes a state) nor a dead server (the client
    waits forever).
    """
    from prefect import tags
    from prefect.runtime import flow_run

    Mode.inline, Mode.flow_run = False, str(flow_run.id)
    mark = orphaned_runs.tag()
    if mark not in flow_run.tags:  # started by a worker
        _add_tag(mark, flow_run.tags)
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(Mode.flow_run, done, Mode.deadline), name="watch-flow-run", daemon=True)
    thread.start()
    try:
        with tags(mark):
            yield
    finally:
        done.set()
        thread.join(10)


def label_run(*tags: str, name: str | None = None) -> None:
    """Add tags to this process's flow run and rename it, in Prefect; a fault is only logged. Does nothing in an inline run."""
    if Mode.inline:
        return
    url = f"{os.environ['PREFECT_API_URL']}/flow_runs/{Mode.flow_run}"
    try:
        known = request("GET", url).raise_for_status().json()["tags"]
        labels = {"tags": [*known, *(tag for tag in tags if tag not in known)]} | ({"name": name} if name else {})
        post(url, labels, method="PATCH")
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        log.warning("could not label this run in Prefect: %s", error)


def _add_tag(mark: str, tags: list[str]) -> None:
    kept = [tag for tag in tags if not tag.startswith(orphaned_runs.MARK)]
    try:
        post(f"{os.environ['PREFECT_API_URL']}/flow_runs/{Mode.flow_run}", {"tags": [*kept, mark]}, method="PATCH")
    except httpx.HTTPError as error:
        log.warning("could not record this run's process in Prefect: %s", error)


def _watch(run_id: str, done: threading.Event, deadline: float) -> None:
    answered, api = time.monotonic(), os.environ["PREFECT_API_URL"]
    with httpx.Client(base_url=api, timeout=5.0, auth=auth(api)) as client:
        while not done.wait(WATCH_SECONDS):
            try:
                state = client.get(f"/flow_runs/{run_id}").raise_for_status().json()["state"]["type"]
                answered = time.monotonic()
            except (httpx.HTTPError, KeyError, TypeError):
                if time.monotonic() - answered >= deadline:
                    log.error("the Prefect server has been unreachable for %.0f s: stopping; run again to resume", deadline)
                    RUNNING.cancel()
                    os._exit(Unavailable.exit_code)
                continue
            if state in ("CANCELLING", "CANCELLED"):
                log.warning("the run was cancelled: ending its processes")
                RUNNING.cancel()
                return


def mark_cancelled() -> None:
    """Set the state Cancelled from outside the flow; inside a task it would become Failed."""
    body = {"state": {"type": "CANCELLED", "name": "Cancelled", "message": "ended on request"}, "force": True}
    if Mode.flow_run is not None:
        with suppress(httpx.HTTPError):
            post(f"{os.environ['PREFECT_API_URL']}/flow_runs/{Mode.flow_run}/set_state", body)
