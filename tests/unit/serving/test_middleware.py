"""What the scoring server lets through, without a version: tables out of bodies, and the door before an application."""

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
    found = json.loads(table_of(data, inputs, LIMITS))["dataframe_split"]
    assert found["columns"] == list(inputs)
    rows: list[list[str]] = found["data"]
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
def test_every_form_gives_the_same_table(body: object) -> None:
    assert table(body) == [["a"], ["b"]]


def test_several_inputs_are_told_in_their_own_order_and_one_row_needs_no_list() -> None:
    assert table({"inputs": {"text_pair": "b", "text": "a"}}, PAIR) == [["a", "b"]]
    assert table({"inputs": {"text": []}}) == []


NESTED = b'{"inputs": {"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b"\xff\xfe{}", 400, "not JSON in UTF-8"),
        (b'{"inputs": {"text": NaN}}', 400, "NaN is no number of JSON"),
        (b'{"inputs": {"text": [' + b"9" * 5_000 + b"]}}", 400, "not JSON"),
        (NESTED, 400, "nested too deeply"),
        ([], 400, "found a list"),
        ({}, 400, "found none"),
        ({"inputs": {"text": "a"}, "instances": []}, 400, "just one of"),
        ({"inputs": {"text": "a"}, "params": {}}, 400, "'params'"),
        ({"inputs": "a"}, 400, "expected a list of rows"),
        ({"inputs": {"text": ["a"], "other": []}}, 400, "one length"),
        ({"inputs": {"other": ["a"]}}, 400, "expected a table with the column 'text', found 'other'"),
        ({"inputs": {"text": ["a", None, 7]}}, 400, "another type in row 1, 2"),
        ({"inputs": {"text": [["a"]]}}, 400, "in row 0"),
        ({"inputs": {"text": ["a", "\ud800"]}}, 400, "surrogate pair (\\ud800–\\udfff), which is no text, in row 1"),
        ({"inputs": {"text": ["a", "b" * 21]}}, 413, "more than 20 characters in row 1"),
        ({"inputs": {"text": ["a"] * 4}}, 413, "4 rows in one request, at most 3"),
        ({"dataframe_records": {"text": ["a"]}}, 400, "found a dict"),
        ({"dataframe_records": ["a"]}, 400, "not so in row 0"),
        ({"dataframe_records": [{"text": "a"}] * 4}, 413, "4 rows"),
        ({"dataframe_records": [{"text": "a"}, {}]}, 400, "missing or of another type in row 1"),
        ({"dataframe_split": [["a"]]}, 400, "dataframe_split: expected"),
        ({"dataframe_split": {"columns": ["text"]}}, 400, "dataframe_split: expected"),
        ({"dataframe_split": {"columns": [7], "data": []}}, 400, "dataframe_split: expected"),
        ({"dataframe_split": {"columns": ["text", "text"], "data": []}}, 400, "named twice"),
        ({"dataframe_split": {"columns": ["text"], "data": [["a"], ["a", "b"], "c"]}}, 400, "not so in row 1, 2"),
        ({"dataframe_split": {"columns": ["text"], "data": [["a"]] * 4}}, 413, "4 rows"),
    ],
)
def test_what_is_no_table_of_texts_within_the_limits_is_refused(body: object, status: int, said: str) -> None:
    with pytest.raises(RequestRejected) as refused:
        table(body)

    assert refused.value.status == status
    assert said in refused.value.message


def test_a_column_of_a_pair_that_is_missing_is_named() -> None:
    with pytest.raises(RequestRejected, match="expected a table with the columns 'text', 'text_pair', found 'text'"):
        table({"inputs": {"text": ["a"]}}, PAIR)


Messages = list[dict[str, Any]]
App = Callable[[Any, Any, Any], Awaitable[None]]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the body that came through."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def ask(
    door: RequestMiddleware, method: str, path: str, headers: Mapping[str, str], *messages: Mapping[str, Any]
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Send one request, its body in `messages`, after which the client waits for ever."""
    waiting, sent = list(messages), Messages()

    async def receive() -> Any:
        return waiting.pop(0) if waiting else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    await door({"type": "http", "method": method, "path": path, "headers": named}, receive, send)
    start, *rest = sent
    assert start["type"] == "http.response.start"
    said = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], said, json.loads(b"".join(message["body"] for message in rest))


def whole(body: bytes) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": False}


def piece(body: bytes) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": True}


def door(app: App = echo, limits: Limits = LIMITS) -> RequestMiddleware:
    return RequestMiddleware(app, ("text",), {"model": "tickets", "version": 1}, limits)


GOOD = json.dumps({"inputs": {"text": "a"}}).encode()


def test_a_body_in_pieces_comes_through_as_one_table() -> None:
    status, _, found = asyncio.run(ask(door(), "POST", "/invocations", JSON, piece(GOOD[:5]), whole(GOOD[5:])))

    assert (status, found) == (200, {"dataframe_split": {"columns": ["text"], "data": [["a"]]}})


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
def test_what_its_head_gives_away_is_refused_before_a_byte_of_the_body(
    method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    found, said, error = asyncio.run(ask(door(), method, path, headers))

    assert (found, error["error_code"]) == (status, code)
    assert error["message"]
    assert set(error) == {"error_code", "message"}
    assert (status == 405) == ("allow" in said)


def test_a_body_that_does_not_tell_its_length_is_read_up_to_the_limit_only() -> None:
    status, _, error = asyncio.run(ask(door(), "POST", "/invocations", JSON, *[piece(b" " * 600)] * 2))

    assert (status, error["message"]) == (413, "the body is larger than 1 KiB")


def test_a_body_that_does_not_come_is_waited_for_so_long_only() -> None:
    short = door(limits=replace(LIMITS, body_seconds=0.05))
    status, said, error = asyncio.run(ask(short, "POST", "/invocations", JSON, piece(b"{")))

    assert (status, error["error_code"], said["connection"]) == (408, "REQUEST_TIMEOUT", "close")


def test_a_client_that_leaves_is_told_nothing() -> None:
    told: list[Any] = []
    asked: list[Any] = []

    async def leaves() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            told.append(message)

        async def inside(scope: Any, receive: Any, send: Any) -> None:
            asked.append(scope)

        await door(inside)(
            {"type": "http", "method": "POST", "path": "/invocations", "headers": [(b"content-type", JSON["content-type"].encode())]},
            receive,
            send,
        )

    asyncio.run(leaves())

    assert (told, asked) == ([], [])


def test_more_requests_than_may_wait_are_turned_away_until_one_is_answered() -> None:
    async def story() -> list[int]:
        go = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await echo(scope, receive, send)

        full = door(slow)
        inside = [asyncio.create_task(ask(full, "POST", "/invocations", JSON, whole(GOOD))) for _ in range(2)]
        await asyncio.sleep(0.2)
        status, said, error = await ask(full, "POST", "/invocations", JSON, whole(GOOD))
        assert (error["error_code"], said["retry-after"]) == ("TEMPORARILY_UNAVAILABLE", "1")
        go.set()
        answered = [(await each)[0] for each in inside]
        return [status, *answered, (await ask(full, "POST", "/invocations", JSON, whole(GOOD)))[0]]

    assert asyncio.run(story()) == [503, 200, 200, 200]


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (400, {"error_code": "BAD", "message": "Failed to predict data 'x'. \nError: no text in row 1"}, "BAD", "no text in row 1"),
        (400, {"error_code": "BAD_REQUEST", "message": "bad", "stack_trace": "secret"}, "BAD_REQUEST", "bad"),
        (504, "Request processing time exceeded limit", "DEADLINE_EXCEEDED", "Request processing time exceeded limit"),
        (400, {"error_code": "BAD_REQUEST", "message": "b" * 2_000}, "BAD_REQUEST", "b" * 1_000 + "…"),
    ],
)
def test_errors_of_who_stands_behind_get_one_shape(status: int, body: object, code: str, message: str) -> None:
    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.body", "body": data[:9], "more_body": True})
        await send({"type": "http.response.body", "body": data[9:]})

    found = asyncio.run(ask(door(refuses), "POST", "/invocations", JSON, whole(GOOD)))

    assert (found[0], found[2]) == (status, {"error_code": code, "message": message})


def test_a_crash_behind_the_door_is_an_error_of_the_server_and_stays_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    async def crashes(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("secret")

    status, _, error = asyncio.run(ask(door(crashes), "GET", "/ping", {}))

    assert (status, error["error_code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in json.dumps(error)
    assert "secret" in caplog.text


class Model:
    """A model that notes how many ask it at once, and fails on request."""

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


def test_a_version_is_asked_by_one_thread_at_a_time() -> None:
    model = Model()
    turn, found = SerializedModel(model), list[object]()
    threads = [threading.Thread(target=lambda number=number: found.append(turn.predict(number))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(str, found)) == [str(number) for number in range(8)]
    assert model.most == 1
    assert turn.metadata == "its own"


def test_a_versions_own_crash_is_an_error_of_the_server_and_what_it_refuses_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    turn = SerializedModel(Model())
    with pytest.raises(MlflowException) as crashed:
        turn.predict(KeyError("secret"))
    with pytest.raises(MlflowException, match="no text in row 1") as refused:
        turn.predict(MlflowException.invalid_parameter_value("no text in row 1"))

    assert (crashed.value.get_http_status_code(), refused.value.get_http_status_code()) == (500, 400)
    assert "secret" not in str(crashed.value)
    assert "secret" in caplog.text
