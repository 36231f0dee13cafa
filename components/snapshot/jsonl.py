"""JSONL: one object a line; a key that a line does not have is a null."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from components.snapshot.cells import as_text
from components.snapshot.decoding import codec, first_fault, refuse_empty
from components.snapshot.faults import Faults
from components.snapshot.settings import SnapshotParams


def read_columns(path: Path, snapshot: SnapshotParams, faults: Faults) -> list[str]:
    """Return every key of the file in the order of first appearance, after every line was parsed."""
    refuse_empty(path, faults)
    spot = first_fault(path, snapshot.encoding)
    if spot is not None:
        faults.add(f"row {spot.line}, byte {spot.byte}: {spot.what}")
        faults.settle()
    columns: dict[str, None] = {}
    for row in objects(path, snapshot, faults):
        columns.update(dict.fromkeys(row))
    if not columns:
        faults.add("the file has no rows; expected one JSON object a line")
    faults.settle()
    return list(columns)


def read_rows(path: Path, snapshot: SnapshotParams, columns: Sequence[str], faults: Faults) -> Iterator[Sequence[str | None]]:
    """Yield the values of each line as text."""
    for row in objects(path, snapshot, faults):
        yield [as_text(row.get(name)) for name in columns]


def objects(path: Path, snapshot: SnapshotParams, faults: Faults) -> Iterator[dict[str, Any]]:
    """Yield the object of each line; empty lines are none."""
    with path.open(encoding=codec(snapshot.encoding), newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = _DECODER.decode(line.strip())
                if "\\u" in line:
                    json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                faults.add(f"line {number} holds half of a surrogate pair (\\ud800–\\udfff), which is no text")
            except (ValueError, RecursionError) as error:
                faults.add(f"line {number} is not JSON: {error}")
            else:
                if isinstance(value, dict):
                    yield value
                else:
                    faults.add(f'line {number} is a JSON {type(value).__name__}, expected an object, as {{"text": …, "label": …}}')


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _not_a_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{number} is out of range")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_not_a_number, parse_float=_finite)
