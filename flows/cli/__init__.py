"""`retune`: what a person types. Each command reads params.yaml (or `--params FILE`), says what it did, and exits non-zero on failure.

Exit codes: 0 done; 1 failed; 2 the input cannot be used; 3 the verdict is FAIL, 4 INCONCLUSIVE (only `judge`); 75 try again later;
130 ended on request.
"""

import atexit
import gc
import logging
import signal
import sys
from types import FrameType

from components.errors import Cancelled
from components.exits import GO_ON, ended
from components.process import quiet_environment
from flows.cli.terminal import app

from flows.cli import making, describing, using, promoting, asking, auditing, scheduling, moving  # noqa: F401  # isort: skip  # each adds its commands, shown in this order


def _terminated(number: int, _frame: FrameType | None) -> None:
    for again in (signal.SIGTERM, signal.SIGHUP):  # the last words are said in full
        signal.signal(again, signal.SIG_IGN)
    raise Cancelled(f"ended by {signal.Signals(number).name}; run again to go on where it stopped")


def heed_signals() -> None:
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
    heed_signals()
    sys.exit(ended(_command))


def _command() -> None:
    try:
        app(standalone_mode=True)
    except SystemExit as ending:
        if ending.code == Cancelled.exit_code:  # typer has caught Ctrl-C
            print(f"error: interrupted; {GO_ON}", file=sys.stderr)
        raise
