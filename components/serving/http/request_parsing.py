"""A request's body as a table of texts, within limits: whatever its form, it is passed on in one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
SHOWN = 10  # rows or names in a message


@dataclass(frozen=True)
class Limits:
    """What a request may be: KiB of its body, rows, characters of a text; `waiting` requests at once, each of which is held in memory.

    Of `connections`, each has `head_seconds` to send a request's head, and `body_seconds` to send its body and to read on in the answer.
    """

    body_kib: int
    rows: int
    characters: int
    waiting: int
    connections: int = 256
    head_seconds: float = 10.0
    body_seconds: float = 30.0


class RequestRejected(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


def table_of(body: bytes, inputs: Sequence[str], limits: Limits) -> bytes:
    """Return a request in any of MLflow's forms as the one form that is passed on: `dataframe_split` with the columns `inputs`.

    Raises:
        Refused: it is no table of texts, or larger than allowed.
    """
    form, value = _form(_parsed(body))
    if form == "dataframe_split":
        columns = _of_split(value, limits)
    elif form == "inputs" and isinstance(value, dict):
        columns = _of_columns(value, limits)
    else:
        columns = _of_records(form, value, limits)
    wanted = f"the column{'s' * (len(inputs) > 1)} {', '.join(map(repr, inputs))}"
    if not set(inputs) <= set(columns):
        raise RequestRejected(400, f"expected a table with {wanted}, found {', '.join(map(repr, list(columns)[:SHOWN])) or 'none'}")
    for name in inputs:
        _check_texts(name, columns[name], limits)
    rows = list(zip(*(columns[name] for name in inputs), strict=True))
    return json.dumps({"dataframe_split": {"columns": list(inputs), "data": rows}}).encode()


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode(), parse_constant=_no_number)
    except RecursionError:
        raise RequestRejected(400, "the body is no table: its JSON is nested too deeply") from None
    except ValueError as error:  # also what is no UTF-8, and a number of thousands of digits
        raise RequestRejected(400, f"the body is not JSON in UTF-8: {error}") from None
    if not isinstance(found, dict):
        raise RequestRejected(400, f"expected a JSON object with one of {', '.join(FORMS)}, found a {type(found).__name__}")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _form(payload: dict[str, Any]) -> tuple[str, Any]:
    if len(payload) != 1 or (form := next(iter(payload))) not in FORMS:
        found = ", ".join(map(repr, list(payload)[:SHOWN])) or "none"
        raise RequestRejected(400, f"expected a JSON object with just one of {', '.join(FORMS)}, found {found}")
    return form, payload[form]


def _of_split(value: Any, limits: Limits) -> dict[str, list[Any]]:
    columns, rows = (value.get("columns"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(rows, list) or not all(isinstance(name, str) for name in columns):
        raise RequestRejected(400, 'dataframe_split: expected {"columns": [names], "data": [rows]}')
    if len(set(columns)) < len(columns):
        raise RequestRejected(400, "dataframe_split: a column is named twice")
    _check_count(len(rows), limits)
    if bad := [place for place, row in enumerate(rows) if not isinstance(row, list) or len(row) != len(columns)]:
        raise RequestRejected(400, f"dataframe_split: expected a list of {len(columns)} cells in every row, not so in row {_some(bad)}")
    return {name: [row[place] for row in rows] for place, name in enumerate(columns)}


def _of_records(form: str, value: Any, limits: Limits) -> dict[str, list[Any]]:
    if not isinstance(value, list):
        raise RequestRejected(400, f"{form}: expected a list of rows, as [{{column: text}}], found a {type(value).__name__}")
    _check_count(len(value), limits)
    if bad := [place for place, row in enumerate(value) if not isinstance(row, dict)]:
        raise RequestRejected(400, f"{form}: expected an object {{column: text}} in every row, not so in row {_some(bad)}")
    return {name: [row.get(name) for row in value] for name in dict.fromkeys(name for row in value for name in row)}


def _of_columns(value: dict[str, Any], limits: Limits) -> dict[str, list[Any]]:
    columns = {name: cells if isinstance(cells, list) else [cells] for name, cells in value.items()}
    if len({len(cells) for cells in columns.values()}) > 1:
        raise RequestRejected(400, "inputs: expected columns of one length")
    _check_count(max((len(cells) for cells in columns.values()), default=0), limits)
    return columns


def _check_count(rows: int, limits: Limits) -> None:
    if rows > limits.rows:
        raise RequestRejected(413, f"{rows:,} rows in one request, at most {limits.rows:,} are answered")


def _check_texts(name: str, cells: Sequence[Any], limits: Limits) -> None:
    if bad := [row for row, cell in enumerate(cells) if not isinstance(cell, str)]:
        raise RequestRejected(400, f"{name!r} must be text in every row; it is missing or of another type in row {_some(bad)}")
    if long := [row for row, cell in enumerate(cells) if len(cell) > limits.characters]:
        raise RequestRejected(413, f"{name!r} has more than {limits.characters:,} characters in row {_some(long)}")
    if torn := [row for row, cell in enumerate(cells) if _is_torn(cell)]:
        raise RequestRejected(400, f"{name!r} holds half of a surrogate pair (\\ud800–\\udfff), which is no text, in row {_some(torn)}")


def _is_torn(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _some(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:SHOWN])) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
