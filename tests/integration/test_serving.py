"""The registered model as users load it: in a new process, and behind `mlflow models serve`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from components.core.ports import free_port
from components.mlflow_store.registry import register
from components.mlflow_store.tracking import record
from components.model import tasks
from tests.support.finished import LINEAGE, PARAMS, make_finished, new_store

pytestmark = pytest.mark.slow

TEXTS = ["the invoice is wrong", "wifi router offline again", "", "  Screen\u200b broken  "]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    return make_finished(tmp_path_factory.mktemp("finished"), tiny_base, tickets)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> str:
    """A store in which version 1 of `tickets` is the champion."""
    uri = new_store(tmp_path_factory.mktemp("store") / "var")
    run = record(finished, uri, lineage=LINEAGE, params=PARAMS)
    register(finished, uri, run_id=run.run_id, key=run.key, lineage=LINEAGE)
    MlflowClient(uri).set_registered_model_alias("tickets", "champion", "1")
    return uri


@pytest.fixture(scope="module")
def expected(finished: Path) -> tuple[tuple[str, ...], np.ndarray]:
    predictor = tasks.load("text_classification").predictor(finished / "models/trained/model")
    return predictor.labels, predictor.probabilities(TEXTS)


def check(rows: list[dict], expected: tuple[tuple[str, ...], np.ndarray]) -> None:
    labels, probabilities = expected
    assert [row["label"] for row in rows] == [labels[index] for index in probabilities.argmax(axis=1)]
    for row, reference in zip(rows, probabilities, strict=True):
        assert [row["probabilities"][label] for label in labels] == pytest.approx(reference, abs=1e-6)  # float32, another thread count
        assert row["probability"] == pytest.approx(max(reference), abs=1e-6)


@pytest.mark.exhaustive
def test_loaded_model_answers_raw_text_in_a_new_process(uri: str, expected, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code = (
        "import json, sys, mlflow, pandas as pd;"
        "model = mlflow.pyfunc.load_model('models:/tickets@champion');"
        "print(json.dumps(model.predict(pd.DataFrame({'text': json.loads(sys.argv[1])})).to_dict(orient='records')));"
        "import components; print(components.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(TEXTS)],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answers, code_file = done.stdout.strip().splitlines()[-2:]
    check(json.loads(answers), expected)
    assert "mlartifacts" in code_file
    assert "Warning" not in done.stderr.replace("SADeprecationWarning", "")


@contextlib.contextmanager
def served(uri: str, folder: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/tickets@champion", "--env-manager", "local"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (folder / "serve.log").open("w") as output:
        server = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port), "--workers", "1"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/ping", server, folder / "serve.log")
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(300)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def post(address: str, body: object) -> tuple[int, dict]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"{}")


BAD = {
    "an unknown column": {"dataframe_records": [{"description": "x"}]},
    "no text": {"dataframe_records": [{"text": None}]},
    "a number": {"dataframe_records": [{"text": 7}]},
    "one bad row among good ones": {"dataframe_records": [{"text": "x"}, {"text": None}]},
    "another shape": {"texts": ["x"]},
    "no JSON": b"{",
}


@pytest.mark.exhaustive
def test_scoring_server_answers_text_and_rejects_bad_input(uri: str, expected, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with served(uri, tmp_path) as address:
        for body in (
            {"dataframe_records": [{"text": text} for text in TEXTS]},
            {"dataframe_split": {"columns": ["text"], "data": [[t] for t in TEXTS]}},
        ):
            code, answer = post(address, body)
            assert code == 200, answer
            check(answer["predictions"], expected)
        codes = {name: post(address, body) for name, body in BAD.items()}
    assert {name: code for name, (code, _) in codes.items() if not 400 <= code < 500} == {}, codes
    assert "row 1" in json.dumps(codes["one bad row among good ones"])
