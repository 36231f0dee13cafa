"""`retune`: the command line. Each command reads params.yaml (or `--params FILE`), prints its result, and exits non-zero on failure.

Exit codes: 0 done; 1 failed; 2 invalid input; 3 verdict FAIL, 4 verdict INCONCLUSIVE (only `judge`); 75 temporary failure, try again;
130 cancelled.
"""

import atexit
import gc
import logging
import os
import signal
import sys

from typer.completion import get_completion_inspect_parameters as register_shells

from components.core.errors import Cancelled
from components.core.exits import RESUME, cancel_on, run_command
from components.core.process import quiet_environment
from flows.cli.options import app

from flows.cli import init, pipeline, auto, tasks, promotion, inspect, leaderboard, audit, serve, schedule, maintain  # noqa: F401  # isort: skip  # this order is that of the help

ANYWHERE = ("--debug", "--quiet", "--verbose")  # options of the application that may follow the command


def main() -> None:
    """Run the command line: one message and an exit code for every error."""
    # Imports create a million objects that live to the end; collecting them, above all at exit, costs seconds.
    gc.set_threshold(100_000, 20, 20)
    atexit.register(gc.freeze)
    quiet_environment()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("alembic", "botocore", "mlflow", "httpx", "httpx2", "httpcore", "filelock", "great_expectations"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # MLflow's client retries by itself
    cancel_on(signal.SIGTERM, signal.SIGHUP)
    sys.exit(run_command(_command))


def _application_options_first(arguments: list[str]) -> list[str]:
    """Return the arguments with `--debug`, `--quiet` and `--verbose` before the command."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = arguments[:end], arguments[end:]
    first = [option for option in options if option in ANYWHERE]
    return [*first, *(option for option in options if option not in ANYWHERE), *rest]


def _command() -> None:
    if "_RETUNE_COMPLETE" in os.environ:
        register_shells()  # `add_completion` would do it too, and add two options to the help
    sys.argv[1:] = _application_options_first(sys.argv[1:])
    try:
        app(standalone_mode=True)
    except SystemExit as ending:
        if ending.code == Cancelled.exit_code:  # typer has caught Ctrl-C
            print(f"error: interrupted; {RESUME}", file=sys.stderr)
        raise
