"""Read JSONL, one object per line, or one JSON array of objects; a missing key is a null."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from components.data.snapshot.cells import as_text
from components.data.snapshot.decoding import check_file_format, codec_with_bom, first_decoding_fault
from components.data.snapshot.features import ColumnType, apply_class_names
from components.data.snapshot.read_errors import Faults
from components.data.snapshot.settings import SnapshotParams

_TYPE_NAMES = {str: "text", bool: "boolean", int: "integer", float: "number", list: "list", dict: "object"}


def read_columns(path: Path, snapshot: SnapshotParams, faults: Faults) -> dict[str, ColumnType]:
    """Parse every object and return all keys in the order of first appearance."""
    check_file_format(path, faults)
    if fault := first_decoding_fault(path, snapshot.encoding):
        faults.refuse(f"row {fault[0]}, {fault[1]}")
    _refuse_one_object(path, snapshot, faults)
    columns: dict[str, set[type]] = {}
    for row in read_objects(path, snapshot, faults):
        for name, value in row.items():
            columns.setdefault(name, set()).add(type(value))
    if not columns and not faults:
        faults.add("the file has no rows; expected one JSON object per line")
    faults.raise_if_any()
    return {
        name: ColumnType(" or ".join(sorted(_TYPE_NAMES[type_] for type_ in types if type_ in _TYPE_NAMES)))
        for name, types in columns.items()
    }


def read_rows(path: Path, snapshot: SnapshotParams, columns: Mapping[str, ColumnType], faults: Faults) -> Iterator[list[str | None]]:
    """Yield the values of each line as text."""
    for number, row in enumerate(read_objects(path, snapshot, faults), start=1):
        try:
            yield [as_text(apply_class_names(row.get(name), column.names)) for name, column in columns.items()]
        except ValueError as error:
            faults.add(f"row {number}: {error}")


def _refuse_one_object(path: Path, snapshot: SnapshotParams, faults: Faults) -> None:
    if _first_line(path, snapshot) == "{":
        faults.refuse(
            "the file is JSON over several lines, expected one object per line or an array of objects; convert it with `jq -c . FILE`"
        )


def _is_array(path: Path, snapshot: SnapshotParams) -> bool:
    first = _first_line(path, snapshot)
    return first.startswith("[") and first[1:].lstrip()[:1] in ("", "{")


def _first_line(path: Path, snapshot: SnapshotParams) -> str:
    with path.open(encoding=codec_with_bom(snapshot.encoding), newline="\n") as file:
        return next((line.strip() for line in file if line.strip()), "")


def read_objects(path: Path, snapshot: SnapshotParams, faults: Faults) -> Iterator[dict[str, Any]]:
    """Yield the object of each line, or of each item of an array; skip empty lines."""
    for where, value in _values(path, snapshot, faults):
        if isinstance(value, dict) and all(map(str.strip, value)):
            yield value
        elif isinstance(value, dict):
            faults.add(f"{where} has a key without a name; expected a name for each value")
        else:
            faults.add(f'{where} is a JSON {type(value).__name__}; expected an object like {{"text": …, "label": …}}')


def _values(path: Path, snapshot: SnapshotParams, faults: Faults) -> Iterator[tuple[str, Any]]:
    """Yield each line, or each item of an array, with its location for messages."""
    array = _is_array(path, snapshot)
    with path.open(encoding=codec_with_bom(snapshot.encoding), newline="\n") as file:
        for number, text in enumerate([file.read()] if array else file, start=1):
            where = "the file" if array else f"line {number}"
            if not text.strip():
                continue
            try:
                value = _DECODER.decode(text.strip())
                if "\\u" in text:
                    json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                faults.add(f"{where} contains half of a surrogate pair (\\ud800–\\udfff), which is not valid text")
            except (ValueError, RecursionError) as error:
                faults.add(f"{where} is not JSON: {error}")
            else:
                yield from ((f"item {index}", item) for index, item in enumerate(value, start=1)) if array else [(where, value)]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return value


def _not_a_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{number} is out of range")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_not_a_number, parse_float=_finite)
