"""Options and output that the benchmarks share."""

import argparse
import json
from pathlib import Path
from typing import Any


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the options of a benchmark: all have `--json`."""
    options = argparse.ArgumentParser(
        prog=f"python -m bench {name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures into this file")
    return options


def report(figures: Any, file: Path | None) -> None:
    """Print the figures, and write them into `file` if it is given."""
    print(text := json.dumps(figures, indent=2))
    if file:
        file.write_text(text + "\n", encoding="utf-8")
