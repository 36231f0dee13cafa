"""The Kubernetes work pools: their job template as Prefect's worker reads it, and what an overlay sets in it."""

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import kubernetes_validate
import pytest
import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import FlowRun
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration

from components.core.errors import BadParams, Unavailable
from components.core.ports import free_port
from infra.healthcheck import fault
from infra.pool import TEMPLATE, publish, read_json, with_defaults
from infra.ui import running
from tests.infra.test_compose import SETTINGS, SHARED
from tests.infra.test_kubernetes import FOLDER, OVERLAYS, VERSION, assert_confined, of_kind
from tests.support.project import ROOT

NOWHERE = "http://127.0.0.1:9/api"
AUTH = "retune:twelve characters"


def variables(overlay: str) -> Path:
    return FOLDER / "overlays" / overlay / "worker/variables.json"


def job(overlay: str, **values: Any) -> dict[str, Any]:
    """The job that the worker of a pool makes of a run whose deployment sets `values`."""
    template = with_defaults(read_json(TEMPLATE), read_json(variables(overlay)), overlay)
    making = KubernetesWorkerJobConfiguration.from_template_and_values(template, values, client=PrefectClient(NOWHERE))
    configuration = asyncio.run(making)
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="calm-owl", state_type="SCHEDULED"))
    manifest = configuration.job_manifest
    # Prefect asks for both where Kubernetes has no such fields, and Kubernetes leaves them out.
    assert [manifest["spec"]["template"]["spec"].pop(name) for name in ("completions", "parallelism")] == [1, 1]
    return manifest


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prefect_makes_a_job_of_it_that_kubernetes_takes(overlay: str) -> None:
    manifest = job(overlay, env={"RETUNE_USER": "night"})
    pod = manifest["spec"]["template"]["spec"]

    kubernetes_validate.validate(manifest, VERSION, strict=True)
    assert_confined(pod)
    assert (manifest["metadata"]["namespace"], pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("retune", "run", False)
    assert pod["containers"][0]["args"] == ["prefect", "flow-run", "execute"]
    assert {"name": "RETUNE_USER", "value": "night"} in pod["containers"][0]["env"]


def test_what_prefects_own_template_can_be_told_ours_can_too() -> None:
    own, ours = KubernetesWorker.get_default_base_job_template(), read_json(TEMPLATE)

    assert set(own["variables"]["properties"]) <= set(ours["variables"]["properties"])
    assert set(own["job_configuration"]) == set(ours["job_configuration"])
    placeholders = set(re.findall(r"\{\{ (\w+) \}\}", TEMPLATE.read_text(encoding="utf-8")))
    assert placeholders == set(ours["variables"]["properties"])


def test_a_run_knows_all_of_the_shared_stack() -> None:
    (container,) = job("cpu")["spec"]["template"]["spec"]["containers"]
    settings = of_kind("cpu", "ConfigMap")[container["envFrom"][0]["configMapRef"]["name"]]["data"]
    secrets = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one}
    held = of_kind("cpu", "Secret")["retune-secrets"]["data"]

    assert {*settings, *secrets} >= SHARED
    assert all(one["name"] == "retune-secrets" and one["key"] in held for one in secrets.values())
    assert {name for name in (*settings, *secrets) if name.startswith("RETUNE_")} <= SETTINGS


def test_policies_know_the_pod_of_a_run_by_the_label_that_prefect_leaves() -> None:
    labels = job("gpu")["spec"]["template"]["metadata"]["labels"]
    policy = of_kind("gpu", "NetworkPolicy")["run"]["spec"]["podSelector"]["matchLabels"]

    assert policy.items() <= labels.items()


def test_what_a_run_writes_has_a_volume() -> None:
    (container,) = job("cpu")["spec"]["template"]["spec"]["containers"]

    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/project", "/cache", "/tmp", "/dev/shm"}
    assert of_kind("cpu", "PersistentVolumeClaim").keys() == {"cache", "prefect"}


def test_a_gpu_is_asked_for_in_the_pool_of_gpus_only() -> None:
    cpu, gpu = (job(overlay)["spec"]["template"]["spec"] for overlay in ("cpu", "gpu"))

    assert "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]
    assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert gpu["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert gpu["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert job("gpu", gpus=4)["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert cpu["tolerations"] == []


@pytest.mark.parametrize(("overlay", "variant"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_the_image_of_runs_is_of_the_same_version_as_that_of_servers(overlay: str, variant: str) -> None:
    (image,) = yaml.safe_load((FOLDER / "overlays" / overlay / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    pod = job(overlay)["spec"]["template"]["spec"]

    assert {one["image"] for one in pod["containers"] + pod["initContainers"]} == {
        f"{image['name']}:{image['newTag'].removesuffix('-cpu')}-{variant}"
    }
    assert f'version = "{image["newTag"].removesuffix("-cpu")}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_all_faults_of_an_overlay_are_told_at_once() -> None:
    with pytest.raises(BadParams) as raised:
        with_defaults(read_json(TEMPLATE), {"gpu": 1, "gpus": 0, "cpu_limit": 2}, "variables.json")

    first, second, third = str(raised.value).splitlines()
    assert first.startswith("variables.json: no variable 'gpu'; the job template has: name, env")
    assert second.startswith("variables.json: gpus: 0 is not valid")
    assert third == "variables.json: cpu_limit: 2 is not of type 'string'"


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_a_file_that_is_no_object_is_told(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "variables.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")

    with pytest.raises(BadParams, match=r"variables\.json: expected a"):
        read_json(path)


def test_without_a_servers_address_no_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    with pytest.raises(BadParams, match="PREFECT_API_URL is not set"):
        publish("retune-cpu", json.loads(TEMPLATE.read_text(encoding="utf-8")))


def test_an_auth_string_that_was_never_filled_in_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOWHERE)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "REPLACE")

    with pytest.raises(BadParams, match="expected USER:PASSWORD"):
        publish("retune-cpu", {})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Prefect's server behind an auth string."""
    url = f"http://127.0.0.1:{free_port()}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host=127.0.0.1", f"--port={urlsplit(url).port}"]
    settings = {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_API_AUTH_STRING": AUTH, "PREFECT_API_URL": url}
    with running(command, settings, tmp_path / "server.log"):
        end = time.monotonic() + 300
        while fault(f"{url}/health") is not None:
            assert time.monotonic() < end, (tmp_path / "server.log").read_text(encoding="utf-8")
            time.sleep(0.2)
        yield url


@pytest.mark.exhaustive
def test_a_pool_is_made_and_brought_up_to_date_as_people_left_it(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", AUTH)
    template, user = read_json(TEMPLATE), tuple(AUTH.split(":"))
    assert publish("retune-gpu", template) == "made"
    paused = {"is_paused": True, "concurrency_limit": 3}
    httpx.patch(f"{server}/work_pools/retune-gpu", json=paused, auth=user).raise_for_status()

    assert publish("retune-gpu", with_defaults(template, {"gpus": 2}, "")) == "brought up to date"

    pool = httpx.get(f"{server}/work_pools/retune-gpu", auth=user).json()
    assert pool.items() >= {"type": "kubernetes", **paused}.items()
    assert pool["base_job_template"]["variables"]["properties"]["gpus"]["default"] == 2
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "retune:wrong")
    with pytest.raises(BadParams, match="answered 401; see PREFECT_API_AUTH_STRING"):
        publish("retune-gpu", template)


def test_a_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOWHERE)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)

    with pytest.raises(Unavailable, match=f"{NOWHERE} does not answer"):
        publish("retune-gpu", {})
