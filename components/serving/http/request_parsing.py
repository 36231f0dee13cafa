"""Parse the body of a request in any of MLflow's formats into one table of texts, within limits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
SHOWN = 10  # maximum number of rows or names in a message


@dataclass(frozen=True)
class Limits:
    """Limits of a request: KiB of its body, rows, characters per text; `waiting` is the number of requests held in memory.

    Each of at most `connections` has `head_seconds` to send a request's head, and `body_seconds` to send its body or read its response.
    """

    body_kib: int
    rows: int
    characters: int
    waiting: int
    connections: int = 256
    head_seconds: float = 10.0
    body_seconds: float = 30.0


class RequestRejected(Exception):
    """The request is answered with this error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


def table_of(body: bytes, inputs: Sequence[str], limits: Limits) -> bytes:
    """Convert a request to MLflow's format `dataframe_split` with the columns `inputs`.

    Raises:
        RequestRejected: the body is not a table of texts, or exceeds a limit.
    """
    form, value = _form(_parsed(body))
    if form == "dataframe_split":
        columns = _of_split(value, limits)
    elif form == "inputs" and isinstance(value, dict):
        columns = _of_columns(value, limits)
    else:
        columns = _of_records(form, value, limits)
    expected = f"the column{'s' * (len(inputs) > 1)} {', '.join(map(repr, inputs))}"
    if not set(inputs) <= set(columns):
        raise RequestRejected(400, f"expected a table with {expected}, found {', '.join(map(repr, list(columns)[:SHOWN])) or 'none'}")
    for name in inputs:
        _check_texts(name, columns[name], limits)
    rows = list(zip(*(columns[name] for name in inputs), strict=True))
    return json.dumps({"dataframe_split": {"columns": list(inputs), "data": rows}}).encode()


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body.decode(), parse_constant=_reject_constant)
    except RecursionError:
        raise RequestRejected(400, "the body is not a table: its JSON is nested too deeply") from None
    except ValueError as error:  # invalid UTF-8 and numbers with thousands of digits too
        raise RequestRejected(400, f"the body is not JSON in UTF-8: {error}") from None
    if not isinstance(payload, dict):
        raise RequestRejected(400, f"expected a JSON object with one of {', '.join(FORMS)}, found a {type(payload).__name__}")
    return payload


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid in JSON")


def _form(payload: dict[str, Any]) -> tuple[str, Any]:
    if len(payload) != 1 or (form := next(iter(payload))) not in FORMS:
        found = ", ".join(map(repr, list(payload)[:SHOWN])) or "none"
        raise RequestRejected(400, f"expected a JSON object with exactly one of {', '.join(FORMS)}, found {found}")
    return form, payload[form]


def _of_split(value: Any, limits: Limits) -> dict[str, list[Any]]:
    columns, rows = (value.get("columns"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(rows, list) or not all(isinstance(name, str) for name in columns):
        raise RequestRejected(400, 'dataframe_split: expected {"columns": [names], "data": [rows]}')
    if len(set(columns)) < len(columns):
        raise RequestRejected(400, "dataframe_split: a column is named twice")
    _check_count(len(rows), limits)
    if bad := [index for index, row in enumerate(rows) if not isinstance(row, list) or len(row) != len(columns)]:
        raise RequestRejected(400, f"dataframe_split: expected a list of {len(columns)} cells in every row, found other rows: {_some(bad)}")
    return {name: [row[index] for row in rows] for index, name in enumerate(columns)}


def _of_records(form: str, value: Any, limits: Limits) -> dict[str, list[Any]]:
    if not isinstance(value, list):
        raise RequestRejected(400, f"{form}: expected a list of rows such as [{{column: text}}], found a {type(value).__name__}")
    _check_count(len(value), limits)
    if bad := [index for index, row in enumerate(value) if not isinstance(row, dict)]:
        raise RequestRejected(400, f"{form}: expected an object {{column: text}} in every row, found other rows: {_some(bad)}")
    return {name: [row.get(name) for row in value] for name in dict.fromkeys(name for row in value for name in row)}


def _of_columns(value: dict[str, Any], limits: Limits) -> dict[str, list[Any]]:
    columns = {name: cells if isinstance(cells, list) else [cells] for name, cells in value.items()}
    if len({len(cells) for cells in columns.values()}) > 1:
        raise RequestRejected(400, "inputs: expected columns of equal length")
    _check_count(max((len(cells) for cells in columns.values()), default=0), limits)
    return columns


def _check_count(rows: int, limits: Limits) -> None:
    if rows > limits.rows:
        raise RequestRejected(413, f"{rows:,} rows in one request, expected at most {limits.rows:,}")


def _check_texts(name: str, cells: Sequence[Any], limits: Limits) -> None:
    if bad := [row for row, cell in enumerate(cells) if not isinstance(cell, str)]:
        raise RequestRejected(400, f"{name!r} must be text in every row; missing or of another type in row {_some(bad)}")
    if long := [row for row, cell in enumerate(cells) if len(cell) > limits.characters]:
        raise RequestRejected(413, f"{name!r} has more than {limits.characters:,} characters in row {_some(long)}")
    if invalid := [row for row, cell in enumerate(cells) if _has_lone_surrogate(cell)]:
        raise RequestRejected(
            400, f"{name!r} contains half of a surrogate pair (\\ud800–\\udfff), which is not text, in row {_some(invalid)}"
        )


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _some(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:SHOWN])) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
