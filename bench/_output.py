"""Options and output that the benchmarks share."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterable, Mapping
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


def append(row: dict[str, Any], file: Path) -> None:
    """Append a row to a file of JSON lines, on disk before this returns, so that a killed benchmark loses only the row in progress."""
    with file.open("ab+") as lines:
        if lines.tell() and (lines.seek(-1, os.SEEK_END), lines.read(1))[1] != b"\n":
            lines.write(b"\n")  # the killed process left half a line
        lines.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the complete rows of a file of JSON lines; none if it does not exist."""
    rows = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def refuse_mixed(rows: Iterable[Mapping[str, Any]], names: Iterable[str], file: Path) -> None:
    """Exit if the rows of `file` differ in one of the fields `names`: their figures cannot be compared."""
    rows = list(rows)
    for name in names:
        if len(values := sorted({str(row.get(name, "unknown")) for row in rows})) > 1:
            raise SystemExit(f"{file}: rows with different {name} cannot be compared: {', '.join(values)}; use a file for each")
