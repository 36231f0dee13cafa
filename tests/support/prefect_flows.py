"""`python -m tests.support.prefect_flows VAR NAME`: flows whose tasks fail, log or wait, under the managed Prefect server.

A separate process, since Prefect reads its settings when it is imported. Prints the events as JSON at the end.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from components.core.errors import BadData, RetuneError, Unavailable
from components.core.process import quiet_environment
from flows.orchestrator import credential, prefect_adapter
from flows.orchestrator.server import prefect_server
from flows.settings import Settings

prefect_adapter.RETRY_SECONDS = (0.2, 0.2)  # type: ignore[assignment]
LINGER = 120.0  # seconds
tried: list[str] = []


@prefect_adapter.task
def busy() -> None:
    """Raise Unavailable at every attempt."""
    tried.append("busy")
    raise Unavailable("the store is busy")


@prefect_adapter.task
def busy_once() -> str:
    """Raise Unavailable at the first attempt."""
    tried.append("busy once")
    if tried.count("busy once") == 1:
        raise Unavailable("the store is busy")
    return "done"


@prefect_adapter.task
def bad() -> None:
    """Fail with an error that no retry fixes."""
    tried.append("bad")
    raise BadData("one class only")


@prefect_adapter.task
def speak() -> None:
    """Log like components and flows, and log the verdict."""
    logging.getLogger("components.example").info("kept %d of %d rows", 7, 9)
    logging.getLogger("flows.example").warning("%s: ran", "train")
    logging.getLogger("elsewhere").info("not forwarded to Prefect")
    prefect_adapter.log_to_prefect("# PASS: tickets version 1", key="verdict-Tickets_of.2026")


@prefect_adapter.task
def wait(go: Path) -> None:
    """Wait until the file `go` exists."""
    print("waiting", flush=True)
    while not go.exists():
        time.sleep(0.2)


@prefect_adapter.task
def unlucky() -> None:
    """Raise Unavailable, with a long delay until the next attempt."""
    print("waiting", flush=True)
    raise Unavailable("the store is busy")


@prefect_adapter.flow
def stopping(point: str) -> dict[str, object]:
    """Wait at a point: before or between tasks, in a task, or before the next attempt of a task."""
    if point == "between":
        speak()
    if point == "task":
        wait(Path("never"))
    if point == "retry":
        unlucky()
    print("waiting", flush=True)
    time.sleep(600)
    speak()
    return {}


@prefect_adapter.flow
def failing() -> dict[str, object]:
    """Run tasks that fail, and one that succeeds at its second attempt."""
    errors = []
    for part in (busy, bad):
        try:
            part()
        except RetuneError as error:
            errors.append(type(error).__name__)
    return {"errors": errors, "once": busy_once(), "tried": tried}


@prefect_adapter.flow
def speaking() -> dict[str, object]:
    """Log, and log the verdict."""
    speak()
    return {}


@prefect_adapter.flow
def waiting(go: str) -> dict[str, object]:
    """Wait for the file `go`, then run another task."""
    wait(Path(go))
    return {"once": busy_once()}


def main(var: Path, name: str) -> None:
    """Run one of the flows."""
    quiet_environment()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if name == "retry":
        prefect_adapter.RETRY_SECONDS = (600, 600)
    with prefect_server(var, Settings(server_linger=LINGER)) as url:
        prefect_adapter.configure(url, str(var / "prefect"), deadline=60)
        by_name: dict[str, Callable[[], dict[str, object]]] = {
            "failing": failing,
            "speaking": speaking,
            "waiting": partial(waiting, str(var / "go")),
            **{point: partial(stopping, point) for point in ("before", "between", "task", "retry")},
        }
        print(
            json.dumps({**by_name[name](), "url": url, "credential": credential.read(var), "flow_run": prefect_adapter.current_flow_run()})
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
