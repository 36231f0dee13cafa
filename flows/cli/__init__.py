"""`retune`: what a person types. Each command reads params.yaml (or `--params FILE`), says what it did, and exits non-zero on failure.

Exit codes: 0 done; 1 failed; 2 the input cannot be used; 3 the verdict is FAIL, 4 INCONCLUSIVE (only `judge`); 75 try again later;
130 ended on request.
"""

import atexit
import gc
import logging
import os
import signal
import sys
from types import FrameType

from components.core.errors import Cancelled
from components.core.exits import DEBUG, RESUME, run_command
from components.core.process import quiet_environment
from flows.cli.options import app

from flows.cli import pipeline, tasks, serve, promotion, inspect, audit, schedule, migrate  # noqa: F401  # isort: skip  # each adds its commands, shown in this order


def _terminated(number: int, _frame: FrameType | None) -> None:
    for again in (signal.SIGTERM, signal.SIGHUP):  # the last words are said in full
        signal.signal(again, signal.SIG_IGN)
    raise Cancelled(f"ended by {signal.Signals(number).name}; run again to go on where it stopped")


def install_signal_handlers() -> None:
    """Let what ends this process politely run its last words: a terminal that is closed too, unless it is to be survived (`nohup`)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminated)


def main() -> None:
    """Entry point: one message and an exit code for every error."""
    # Importing makes a million objects that live to the end: looking through them for cycles, above all at the very end, costs seconds.
    gc.set_threshold(100_000, 20, 20)
    atexit.register(gc.freeze)
    quiet_environment()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("alembic", "botocore", "mlflow", "httpx", "httpx2", "httpcore", "filelock", "great_expectations"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # MLflow's client tries again by itself
    install_signal_handlers()
    sys.exit(run_command(_command))


def _take_debug(arguments: list[str]) -> None:
    """Take `--debug` out of the arguments: it may stand behind the command too."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--debug" in options:
        arguments[:] = [*(one for one in options if one != "--debug"), *arguments[len(options) :]]
        os.environ[DEBUG] = "1"


def _command() -> None:
    _take_debug(sys.argv)
    try:
        app(standalone_mode=True)
    except SystemExit as ending:
        if ending.code == Cancelled.exit_code:  # typer has caught Ctrl-C
            print(f"error: interrupted; {RESUME}", file=sys.stderr)
        raise
