"""`make ui`: both servers on loopback over the project's state, and Ctrl-C ends them."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import psutil
import pytest

from tests.project import environment, leftovers, make_project, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> Iterator[Path]:
    folder = make_project(tmp_path / "project", tiny_base, tickets)
    yield folder
    state = folder / "var/prefect/server.json"
    if state.exists():
        supervisor = psutil.Process(json.loads(state.read_text(encoding="utf-8"))["pid"])
        os.kill(supervisor.pid, signal.SIGTERM)
        psutil.wait_procs([supervisor], timeout=20)


def test_both_pages_are_served_on_loopback_until_ctrl_c(project: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    with said.open("w") as out:
        ui = subprocess.Popen(
            [sys.executable, "-m", "infra.ui"], cwd=project, env=environment(project), stdout=out, stderr=out, process_group=0
        )
    try:
        wait_for(lambda: "Ctrl-C ends both" in said.read_text(encoding="utf-8") or ui.poll() is not None, 120)
        assert ui.poll() is None, said.read_text(encoding="utf-8")
        addresses = dict(re.findall(r"^(MLflow|Prefect) +(http://127\.0\.0\.1:\d+)$", said.read_text(encoding="utf-8"), re.MULTILINE))
        for title in ("MLflow", "Prefect"):
            page = httpx.get(addresses[title], timeout=30, follow_redirects=True)
            assert (page.status_code, title in page.text) == (200, True)
        processes = below(ui.pid)
        assert any("mlflow" in " ".join(process.cmdline()) for process in processes)
        listening = [each for process in processes for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        assert {each.laddr.ip for each in listening} == {"127.0.0.1"}
    finally:
        os.killpg(ui.pid, signal.SIGINT)  # as a terminal does: to all of them
        ended = ui.wait(60)

    assert (ended, "Traceback" in said.read_text(encoding="utf-8")) == (0, False), said.read_text(encoding="utf-8")
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive
    assert not leftovers(project)


def below(pid: int) -> list[psutil.Process]:
    """The processes that `make ui` started for itself; Prefect's belong to other runs too."""
    children = psutil.Process(pid).children(recursive=True)
    return [each for each in children if not {"flows.server", "prefect"} & set(each.cmdline())]
