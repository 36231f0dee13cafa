"""`make ui`: both pages on loopback, the approval form, promotion events, and no process after Ctrl-C.

The tests share one `make ui`, which is started again after the test that ends it.
"""

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import pytest

from components.ledger import Ledger
from components.mlflow_store.registry import CHAMPION, Environment
from flows.orchestrator import credential
from flows.orchestrator.prefect_api import client_settings, post, request
from tests.support.finished import make_finished
from tests.support.project import ROOT, environment, leftovers, make_project, prefect_of, retune, started, wait_for
from tests.support.promotion import aliases, judge, judge_and_request
from tests.support.registered import make_registry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    """A project with two versions in its registry."""
    folder = make_project(tmp_path_factory.mktemp("approvals") / "project", tiny_base, tickets)
    make_registry(folder / "var", [make_finished(tmp_path_factory.mktemp("candidate"), tiny_base, tickets, seed=seed) for seed in range(2)])
    return folder


@pytest.fixture(scope="module")
def registry(project: Path) -> Environment:
    return Environment("local", f"sqlite:///{project}/var/mlflow.db", f"sqlite:///{project}/var/ledger.db")


@pytest.fixture(scope="module")
def start_ui(project: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """A function that returns the running `make ui`; if none is running, it starts one and waits until both servers answer."""
    log, children = project / "var/ui.log", list[subprocess.Popen[bytes]]()
    with ExitStack() as stack:

        def start() -> subprocess.Popen[bytes]:
            if not children or children[-1].poll() is not None:
                log.write_text("", encoding="utf-8")
                child = stack.enter_context(running([sys.executable, "-m", "infra.ui"], project, log, end=signal.SIGINT))
                wait_for(lambda: "Ctrl-C ends both" in log.read_text(encoding="utf-8") or child.poll() is not None)
                assert child.poll() is None, log.read_text(encoding="utf-8")
                children.append(child)
            return children[-1]

        yield start
    state = project / "var/prefect/server.json"
    if state.exists():
        supervisor = psutil.Process(json.loads(state.read_text(encoding="utf-8"))["pid"])
        os.kill(supervisor.pid, signal.SIGTERM)
        psutil.wait_procs([supervisor], timeout=300)


@pytest.fixture
def ui(start_ui: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """The running `make ui`."""
    return start_ui()


@pytest.fixture
def api(project: Path, ui: subprocess.Popen[bytes]) -> str:
    """The URL of Prefect's API."""
    return prefect_of(project / "var")


@contextmanager
def running(command: list[str], folder: Path, log: Path, end: signal.Signals, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group, and end the group by a signal, as a terminal does."""
    with log.open("a") as out:
        child = subprocess.Popen(
            command, cwd=folder, env=environment(folder, **settings), stdout=out, stderr=out, text=True, process_group=0
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, end)
        try:
            child.wait(300)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def find_deployment(api: str, path: str) -> dict[str, Any]:
    """Wait until a deployment exists, and return it."""
    url = f"{api}/deployments/name/{path}"
    wait_for(lambda: request("GET", url).status_code == httpx.codes.OK)
    deployment: dict[str, Any] = request("GET", url).raise_for_status().json()
    return deployment


def submit(api: str, deployment: dict[str, Any], **parameters: str) -> str:
    """Submit the form of a deployment like Prefect's page, and return the id of the flow run."""
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return str(post(f"{api}/deployments/{deployment['id']}/create_flow_run", body, timeout=300).json()["id"])


def test_both_pages_are_served_on_loopback(project: Path, ui: subprocess.Popen[bytes]) -> None:
    addresses = servers(project)

    for title in ("MLflow", "Prefect"):
        page = httpx.get(addresses[title], timeout=300, follow_redirects=True, auth=account(project))
        assert (page.status_code, title in page.text) == (200, True)
    processes = own_processes(ui.pid)
    assert any("mlflow" in " ".join(process.cmdline()) for process in processes)
    listening = [socket for process in processes for socket in process.net_connections("inet") if socket.status == psutil.CONN_LISTEN]
    assert {socket.laddr.ip for socket in listening} == {"127.0.0.1"}


def own_processes(pid: int) -> list[psutil.Process]:
    """Return the processes that `make ui` started, except those of the shared Prefect server."""
    shared = {"flows.orchestrator.server", "prefect.server.api.server:create_app"}
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if not shared & set(child.cmdline())]


def account(project: Path) -> tuple[str, str]:
    user, _, password = (credential.read(project / "var") or "").partition(":")
    return user, password


def servers(project: Path) -> dict[str, str]:
    """Return the addresses that `make ui` has printed, by server."""
    log = (project / "var/ui.log").read_text(encoding="utf-8")
    return dict(re.findall(r"^(MLflow|Prefect) +(http://127\.0\.0\.1:\d+)$", log, re.MULTILINE))


WRITES = {"Prefect": "/api/flows/", "MLflow": "/api/2.0/mlflow/experiments/create"}
FOREIGN = {"origin": "http://evil.example"}
OTHER_PORT = {"origin": "http://127.0.0.1:1"}


@pytest.mark.parametrize("server", WRITES)
@pytest.mark.parametrize(
    ("headers", "authenticated", "status"),
    [
        (FOREIGN, True, 403),
        (FOREIGN | {"content-type": "text/plain"}, True, 403),
        (OTHER_PORT, True, 403),
        (OTHER_PORT | {"content-type": "text/plain"}, True, 403),
        ({"origin": "null"}, True, 403),
        ({"sec-fetch-site": "cross-site"}, True, 403),
        ({"host": "evil.example"}, True, 403),
        ({"host": "evil.example:4200", "origin": "http://evil.example:4200"}, True, 403),
        ({}, False, (401, 403)),
        ({"authorization": "Basic cmV0dW5lOndyb25n"}, False, (401, 403)),
        ({"authorization": "Basic !"}, False, (401, 403)),
    ],
)
def test_hostile_write_is_rejected(
    project: Path, ui: subprocess.Popen[bytes], server: str, headers: dict[str, str], authenticated: bool, status: Any
) -> None:
    url = f"{servers(project)[server]}{WRITES[server]}"
    answer = httpx.post(
        url,
        content='{"name": "hostile"}',
        headers={"content-type": "application/json"} | headers,
        auth=account(project) if authenticated else None,
    )
    preflight = httpx.options(url, headers=headers | {"access-control-request-method": "POST"})

    assert answer.status_code in (status if isinstance(status, tuple) else (status,))
    for response in (answer, preflight):
        assert "access-control-allow-origin" not in response.headers
    assert "hostile" not in flows_and_experiments(project)


def flows_and_experiments(project: Path) -> set[str]:
    """Return the names of all Prefect flows and MLflow experiments."""
    addresses = servers(project)
    flows = post(f"{prefect_of(project / 'var')}/flows/filter", {}).json()
    query = {"max_results": 100}
    experiments = (
        httpx.post(f"{addresses['MLflow']}/api/2.0/mlflow/experiments/search", json=query, auth=account(project)).raise_for_status().json()
    )
    return {entry["name"] for entry in flows + experiments["experiments"]}


def test_servers_answer_authenticated_requests(project: Path, ui: subprocess.Popen[bytes]) -> None:
    assert "tickets" in flows_and_experiments(project)
    for address in servers(project).values():
        page = httpx.get(address.replace("127.0.0.1", "localhost"), auth=account(project), follow_redirects=True)
        assert page.status_code == 200


def test_reading_needs_the_credential(project: Path, ui: subprocess.Popen[bytes]) -> None:
    addresses = servers(project)

    assert httpx.get(f"{addresses['Prefect']}/api/admin/settings").status_code == 401
    assert httpx.get(f"{addresses['MLflow']}/").headers["www-authenticate"].startswith("Basic")


def test_only_the_owner_can_read_the_credential(project: Path, ui: subprocess.Popen[bytes]) -> None:
    path, (_, password) = project / "var/prefect/auth", account(project)
    commands = [" ".join(process.cmdline()) for process in psutil.process_iter() if process.status() != psutil.STATUS_ZOMBIE]
    logs = [*project.glob("var/**/*.log")]

    assert (path.stat().st_mode & 0o777, len(password) >= 32) == (0o600, True)
    assert str(path) in (project / "var/ui.log").read_text(encoding="utf-8")
    assert not any(password in text for text in [*commands, *(log.read_text(encoding="utf-8", errors="replace") for log in logs)])


PAGE = """<script>
const results = [];
const tries = [
  [{method: "POST", body: '{"name": "hostile"}', headers: {"content-type": "application/json"}}],
  [{method: "POST", body: '{"name": "hostile"}', headers: {"content-type": "text/plain"}, mode: "no-cors"}],
  [{method: "GET"}],
];
const send = (url, how) => fetch(url, how).then(answer => results.push(answer.type), () => results.push("blocked"));
Promise.all(URLS.flatMap(url => tries.map(([how]) => send(url, how))))
  .then(() => fetch("/done", {method: "POST", body: results.join(" ")}));
</script>"""


def test_browser_blocks_a_page_of_another_port(project: Path, ui: subprocess.Popen[bytes], tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here: `apt-get install chromium` adds this test")
    urls = [f"{address}{WRITES[name]}" for name, address in servers(project).items()]
    with hostile_page(PAGE.replace("URLS", json.dumps(urls))) as (address, done):
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--no-first-run"]
        with started([chromium, *options, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0) as browser:
            try:
                results = done.get(timeout=120)
            finally:
                os.killpg(browser.pid, signal.SIGKILL)

    # A page may send a simple request without seeing the answer, which is opaque to it.
    assert sorted(results.split()) == ["blocked"] * 4 + ["opaque"] * 2
    assert "hostile" not in flows_and_experiments(project)


@contextmanager
def hostile_page(text: str) -> Iterator[tuple[str, "queue.Queue[str]"]]:
    """Serve a page on a separate port; yield its address and a queue of the bodies that it posts."""
    done: queue.Queue[str] = queue.Queue()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def do_POST(self) -> None:
            done.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/", done
        listening.shutdown()
        thread.join()


@pytest.mark.exhaustive
def test_prefect_form_promotes_a_waiting_version(project: Path, registry: Environment, api: str) -> None:
    head = Ledger(registry.ledger).head("tickets")
    approval = judge_and_request(registry, 1, champion=head.version if head else None)
    deployment = find_deployment(api, "decide/decide")
    schema = deployment["parameter_openapi_schema"]
    assert schema["required"] == ["run", "decision", "why"]
    assert schema["properties"]["decision"]["enum"] == ["approve", "reject"]
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        submit(api, deployment, run=approval.run, decision="maybe", why="?")
    run = submit(api, deployment, run=approval.run[:8], decision="approve", why="the errors are harmless")
    wait_for(lambda: state_of(api, run) in ("COMPLETED", "FAILED", "CRASHED"))

    assert state_of(api, run) == "COMPLETED", (project / "var/approvals.log").read_text(encoding="utf-8")
    assert aliases(registry.mlflow)[CHAMPION] == 1
    entry = Ledger(registry.ledger).head("tickets")
    assert entry.who.endswith("(Prefect)")
    assert entry.why == "the errors are harmless"
    wait_for(lambda: "the errors are harmless" in [event["payload"]["why"] for event in events(api, "retune.promoted")])
    event = events(api, "retune.promoted")[0]  # the newest
    assert (event["resource"]["prefect.resource.id"], event["payload"]["version"]) == ("retune.model.tickets", 1)


def state_of(api: str, run: str) -> str:
    return str(request("GET", f"{api}/flow_runs/{run}").raise_for_status().json()["state"]["type"])


def events(api: str, name: str) -> list[dict[str, Any]]:
    matches: list[dict[str, Any]] = post(f"{api}/events/filter", {"filter": {"event": {"name": [name]}}}).json()["events"]
    return matches


def test_documented_flow_reacts_to_a_promotion(project: Path, registry: Environment, api: str) -> None:
    page = (ROOT / "docs/react-to-promotions.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (project / "react.py").write_text(code, encoding="utf-8")
    judge(registry, 2, champion=1 if Ledger(registry.ledger).head("tickets") else None)
    settings = client_settings(api) | {"PREFECT_HOME": str(project / "var/prefect"), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with running([sys.executable, "react.py"], project, project / "var/react.log", end=signal.SIGTERM, **settings):
        find_deployment(api, "reload/reload")
        wait_for(lambda: len(post(f"{api}/automations/filter", {}).json()) == 1)
        promoted = retune(project, "promote", "tickets", "2")
        assert promoted.returncode == 0, promoted.stderr
        wait_for(lambda: (project / "tickets.champion").exists())

    assert (project / "tickets.champion").read_text(encoding="utf-8") == "version 2: it is PASS\n"


def test_ctrl_c_ends_all_processes(project: Path, ui: subprocess.Popen[bytes]) -> None:
    processes = own_processes(ui.pid)
    assert any("infra.approvals" in " ".join(process.cmdline()) for process in processes)
    os.killpg(ui.pid, signal.SIGINT)  # to all processes, as a terminal does

    assert (ui.wait(300), "Traceback" in (project / "var/ui.log").read_text(encoding="utf-8")) == (0, False)
    _, alive = psutil.wait_procs(processes, timeout=300)
    assert not alive
    assert not leftovers(project)
