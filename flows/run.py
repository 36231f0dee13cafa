"""Start the main story: under Prefect with a managed server, or inline."""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from components.errors import Cancelled, Unavailable
from flows import engine
from flows.effects import Result
from flows.server import prefect_server
from flows.settings import read_settings
from flows.workspace import Workspace, furnish

log = logging.getLogger(__name__)


def run_retrain(workspace: Workspace, inline: bool) -> Result:
    """Tell the story of `retrain` for a workspace, alone in it.

    Raises:
        RetuneError: whatever ended the run.
    """
    with alone(workspace):
        if inline:
            return _retrain(workspace)
        settings = read_settings(workspace.project)
        with prefect_server(workspace.var, settings) as url:
            engine.configure(url, str(workspace.var / "prefect"), settings.server_deadline)
            return _retrain(workspace)


def _retrain(workspace: Workspace) -> Result:
    from flows.retrain import retrain

    try:
        return retrain(str(workspace.params))
    except Cancelled:
        engine.mark_cancelled()
        raise


@contextmanager
def alone(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace, and bring its code and settings up to date: two runs in one folder would mix their outputs.

    The kernel drops the lock however a run ends.

    Raises:
        Unavailable: another run works here.
    """
    path = workspace.root / "var/run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another run is working in {workspace.root} (it holds {path}); wait for it or end it") from None
        furnish(workspace)
        yield
