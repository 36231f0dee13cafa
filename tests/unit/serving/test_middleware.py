"""The scoring server without a version: request parsing, and the middleware before an application."""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from components.serving.http.middleware import RequestMiddleware
from components.serving.http.request_parsing import Limits, RequestRejected, table_of
from components.serving.http.server import SerializedModel

LIMITS = Limits(body_kib=1, rows=3, characters=20, waiting=2)
PAIR = ("text", "text_pair")
JSON = {"content-type": "application/json"}


def table(body: object, inputs: tuple[str, ...] = ("text",)) -> list[list[str]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    result = json.loads(table_of(data, inputs, LIMITS))["dataframe_split"]
    assert result["columns"] == list(inputs)
    rows: list[list[str]] = result["data"]
    return rows


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"index": [7, 8], "columns": ["other", "text"], "data": [[1, "a"], [2, "b"]]}},
        {"dataframe_records": [{"text": "a", "other": None}, {"text": "b"}]},
        {"instances": [{"text": "a"}, {"text": "b"}]},
        {"inputs": {"text": ["a", "b"]}},
        {"inputs": [{"text": "a"}, {"text": "b"}]},
    ],
)
def test_every_format_gives_the_same_table(body: object) -> None:
    assert table(body) == [["a"], ["b"]]


def test_inputs_are_ordered_and_one_row_needs_no_list() -> None:
    assert table({"inputs": {"text_pair": "b", "text": "a"}}, PAIR) == [["a", "b"]]
    assert table({"inputs": {"text": []}}) == []


NESTED = b'{"inputs": {"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b"\xff\xfe{}", 400, "not JSON in UTF-8"),
        (b'{"inputs": {"text": NaN}}', 400, "NaN is not valid in JSON"),
        (b'{"inputs": {"text": [' + b"9" * 5_000 + b"]}}", 400, "not JSON"),
        (NESTED, 400, "nested too deeply"),
        ([], 400, "found a list"),
        ({}, 400, "found none"),
        ({"inputs": {"text": "a"}, "instances": []}, 400, "exactly one of"),
        ({"inputs": {"text": "a"}, "params": {}}, 400, "'params'"),
        ({"inputs": "a"}, 400, "expected a list of rows"),
        ({"inputs": {"text": ["a"], "other": []}}, 400, "equal length"),
        ({"inputs": {"other": ["a"]}}, 400, "expected a table with the column 'text', found 'other'"),
        ({"inputs": {"text": ["a", None, 7]}}, 400, "another type in row 1, 2"),
        ({"inputs": {"text": [["a"]]}}, 400, "in row 0"),
        ({"inputs": {"text": ["a", "\ud800"]}}, 400, "surrogate pair (\\ud800–\\udfff), which is not text, in row 1"),
        ({"inputs": {"text": ["a", "b" * 21]}}, 413, "more than 20 characters in row 1"),
        ({"inputs": {"text": ["a"] * 4}}, 413, "4 rows in one request, expected at most 3"),
        ({"dataframe_records": {"text": ["a"]}}, 400, "found a dict"),
        ({"dataframe_records": ["a"]}, 400, "found other rows: 0"),
        ({"dataframe_records": [{"text": "a"}] * 4}, 413, "4 rows"),
        ({"dataframe_records": [{"text": "a"}, {}]}, 400, "missing or of another type in row 1"),
        ({"dataframe_split": [["a"]]}, 400, "dataframe_split: expected"),
        ({"dataframe_split": {"columns": ["text"]}}, 400, "dataframe_split: expected"),
        ({"dataframe_split": {"columns": [7], "data": []}}, 400, "dataframe_split: expected"),
        ({"dataframe_split": {"columns": ["text", "text"], "data": []}}, 400, "named twice"),
        ({"dataframe_split": {"columns": ["text"], "data": [["a"], ["a", "b"], "c"]}}, 400, "found other rows: 1, 2"),
        ({"dataframe_split": {"columns": ["text"], "data": [["a"]] * 4}}, 413, "4 rows"),
    ],
)
def test_invalid_body_is_rejected(body: object, status: int, message: str) -> None:
    with pytest.raises(RequestRejected) as error:
        table(body)

    assert error.value.status == status
    assert message in error.value.message


def test_missing_column_of_a_pair_is_named() -> None:
    with pytest.raises(RequestRejected, match="expected a table with the columns 'text', 'text_pair', found 'text'"):
        table({"inputs": {"text": ["a"]}}, PAIR)


Messages = list[dict[str, Any]]
App = Callable[[Any, Any, Any], Awaitable[None]]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the received body."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def send_request(
    middleware: RequestMiddleware, method: str, path: str, headers: Mapping[str, str], *messages: Mapping[str, Any]
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Send one request with its body in `messages`; then the client waits forever."""
    waiting, sent = list(messages), Messages()

    async def receive() -> Any:
        return waiting.pop(0) if waiting else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await middleware({"type": "http", "method": method, "path": path, "headers": encoded}, receive, send)
    start, *rest = sent
    assert start["type"] == "http.response.start"
    response_headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], response_headers, json.loads(b"".join(message["body"] for message in rest))


def last_piece(body: bytes) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": False}


def piece(body: bytes) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": True}


def middleware(app: App = echo, limits: Limits = LIMITS) -> RequestMiddleware:
    return RequestMiddleware(app, ("text",), {"model": "tickets", "version": 1}, limits)


GOOD = json.dumps({"inputs": {"text": "a"}}).encode()


def test_body_in_pieces_is_one_table() -> None:
    status, _, answer = asyncio.run(send_request(middleware(), "POST", "/invocations", JSON, piece(GOOD[:5]), last_piece(GOOD[5:])))

    assert (status, answer) == (200, {"dataframe_split": {"columns": ["text"], "data": [["a"]]}})


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/", {}, 404, "ENDPOINT_NOT_FOUND"),
        ("GET", "/docs", {}, 404, "ENDPOINT_NOT_FOUND"),
        ("POST", "/invocations/", JSON, 404, "ENDPOINT_NOT_FOUND"),
        ("GET", "/invocations", {}, 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/invocations", {}, 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/invocations", {"origin": "http://evil.example"}, 403, "PERMISSION_DENIED"),
        ("POST", "/invocations", JSON | {"origin": "http://evil.example", "host": "127.0.0.1:5001"}, 403, "PERMISSION_DENIED"),
        ("POST", "/invocations", JSON | {"origin": "http://127.0.0.1:8080", "host": "127.0.0.1:5001"}, 403, "PERMISSION_DENIED"),
        ("POST", "/invocations", JSON | {"host": "evil.example:5001"}, 403, "PERMISSION_DENIED"),
        ("GET", "/version", {"host": "evil.example"}, 403, "PERMISSION_DENIED"),
        ("POST", "/invocations", {"content-type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "/ping", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/invocations", {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "/invocations", {"content-type": "text/csv"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "/invocations", {"content-type": "application/json; charset=latin-1"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "/invocations", JSON | {"content-encoding": "gzip"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "/invocations", JSON | {"content-length": "1025"}, 413, "REQUEST_TOO_LARGE"),
    ],
)
def test_invalid_head_is_rejected_before_the_body(method: str, path: str, headers: dict[str, str], status: int, code: str) -> None:
    actual, response_headers, error = asyncio.run(send_request(middleware(), method, path, headers))

    assert (actual, error["error_code"]) == (status, code)
    assert error["message"]
    assert set(error) == {"error_code", "message"}
    assert (status == 405) == ("allow" in response_headers)


def test_body_of_unknown_length_is_read_up_to_the_limit() -> None:
    status, _, error = asyncio.run(send_request(middleware(), "POST", "/invocations", JSON, *[piece(b" " * 600)] * 2))

    assert (status, error["message"]) == (413, "the body is larger than 1 KiB")


def test_incomplete_body_times_out() -> None:
    short = middleware(limits=replace(LIMITS, body_seconds=0.05))
    status, response_headers, error = asyncio.run(send_request(short, "POST", "/invocations", JSON, piece(b"{")))

    assert (status, error["error_code"], response_headers["connection"]) == (408, "REQUEST_TIMEOUT", "close")


def test_disconnected_client_gets_no_response() -> None:
    sent: list[Any] = []
    scopes: list[Any] = []

    async def disconnect() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        async def inside(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)

        await middleware(inside)(
            {"type": "http", "method": "POST", "path": "/invocations", "headers": [(b"content-type", JSON["content-type"].encode())]},
            receive,
            send,
        )

    asyncio.run(disconnect())

    assert (sent, scopes) == ([], [])


def test_too_many_waiting_requests_get_503() -> None:
    async def fill() -> list[int]:
        go = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await echo(scope, receive, send)

        full = middleware(slow)
        inside = [asyncio.create_task(send_request(full, "POST", "/invocations", JSON, last_piece(GOOD))) for _ in range(2)]
        await asyncio.sleep(0.2)
        status, response_headers, error = await send_request(full, "POST", "/invocations", JSON, last_piece(GOOD))
        assert (error["error_code"], response_headers["retry-after"]) == ("TEMPORARILY_UNAVAILABLE", "1")
        go.set()
        answered = [(await task)[0] for task in inside]
        return [status, *answered, (await send_request(full, "POST", "/invocations", JSON, last_piece(GOOD)))[0]]

    assert asyncio.run(fill()) == [503, 200, 200, 200]


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (400, {"error_code": "BAD", "message": "Failed to predict data 'x'. \nError: no text in row 1"}, "BAD", "no text in row 1"),
        (400, {"error_code": "BAD_REQUEST", "message": "bad", "stack_trace": "secret"}, "BAD_REQUEST", "bad"),
        (504, "Request processing time exceeded limit", "DEADLINE_EXCEEDED", "Request processing time exceeded limit"),
        (400, {"error_code": "BAD_REQUEST", "message": "b" * 2_000}, "BAD_REQUEST", "b" * 1_000 + "…"),
    ],
)
def test_errors_of_the_app_get_one_format(status: int, body: object, code: str, message: str) -> None:
    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.body", "body": data[:9], "more_body": True})
        await send({"type": "http.response.body", "body": data[9:]})

    actual, _, error = asyncio.run(send_request(middleware(refuses), "POST", "/invocations", JSON, last_piece(GOOD)))

    assert (actual, error) == (status, {"error_code": code, "message": message})


def test_crash_of_the_app_is_logged_and_gives_500(caplog: pytest.LogCaptureFixture) -> None:
    async def crashes(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("secret")

    status, _, error = asyncio.run(send_request(middleware(crashes), "GET", "/ping", {}))

    assert (status, error["error_code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in json.dumps(error)
    assert "secret" in caplog.text


class Model:
    """A model that counts concurrent calls, and fails on request."""

    metadata = "its own"
    inside = most = 0

    def predict(self, data: object) -> object:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.01)
        self.inside -= 1
        if isinstance(data, Exception):
            raise data
        return data


def test_version_is_used_by_one_thread_at_a_time() -> None:
    model = Model()
    serialized, results = SerializedModel(model), list[object]()
    threads = [threading.Thread(target=lambda number=number: results.append(serialized.predict(number))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(str, results)) == [str(number) for number in range(8)]
    assert model.most == 1
    assert serialized.metadata == "its own"


def test_version_crash_is_500_and_its_rejection_400(caplog: pytest.LogCaptureFixture) -> None:
    serialized = SerializedModel(Model())
    with pytest.raises(MlflowException) as crashed:
        serialized.predict(KeyError("secret"))
    with pytest.raises(MlflowException, match="no text in row 1") as rejected:
        serialized.predict(MlflowException.invalid_parameter_value("no text in row 1"))

    assert (crashed.value.get_http_status_code(), rejected.value.get_http_status_code()) == (500, 400)
    assert "secret" not in str(crashed.value)
    assert "secret" in caplog.text
