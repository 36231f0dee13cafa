"""Run a benchmark by name, the name of a file of this folder: `python -m bench NAME [options]`."""

import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from components.core.exits import cancel_on, run_command


def main(argv: Sequence[str]) -> int:
    """Run the named benchmark with the remaining arguments; exit code 2 for an unknown name."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    if not argv or argv[0] not in names:
        print(f"usage: python -m bench {' | '.join(names)} [--help]", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"bench.{argv[0]}").main(argv[1:]) or 0)


if __name__ == "__main__":
    cancel_on(signal.SIGTERM)  # so that the processes of a side end too
    sys.exit(run_command(lambda: main(sys.argv[1:])))
