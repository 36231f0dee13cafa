"""The job template of the Kubernetes work pools, rendered by Prefect's worker with the values of an overlay."""

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
from flows.orchestrator.processes import running
from infra.healthcheck import fault
from infra.pool import TEMPLATE, publish, read_json, with_defaults
from tests.support.infra_files import KUBERNETES, KUBERNETES_VERSION, OVERLAYS, SETTINGS, SHARED_SETTINGS, assert_confined, of_kind
from tests.support.project import ROOT

NOWHERE = "http://127.0.0.1:9/api"
AUTH = "retune:twelve characters"


def variables(overlay: str) -> Path:
    return KUBERNETES / "overlays" / overlay / "worker/variables.json"


def job(overlay: str, **values: Any) -> dict[str, Any]:
    """Return the job that a pool's worker creates for a run whose deployment sets `values`."""
    template = with_defaults(read_json(TEMPLATE), read_json(variables(overlay)), overlay)
    coroutine = KubernetesWorkerJobConfiguration.from_template_and_values(template, values, client=PrefectClient(NOWHERE))
    configuration = asyncio.run(coroutine)
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="calm-owl", state_type="SCHEDULED"))
    manifest = configuration.job_manifest
    # Prefect sets both fields, which Kubernetes does not have and ignores.
    assert [manifest["spec"]["template"]["spec"].pop(name) for name in ("completions", "parallelism")] == [1, 1]
    return manifest


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_job_is_valid_for_kubernetes(overlay: str) -> None:
    manifest = job(overlay, env={"RETUNE_USER": "night"})
    pod = manifest["spec"]["template"]["spec"]

    kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    assert_confined(pod)
    assert (manifest["metadata"]["namespace"], pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("retune", "run", False)
    assert pod["containers"][0]["args"] == ["prefect", "flow-run", "execute"]
    assert {"name": "RETUNE_USER", "value": "night"} in pod["containers"][0]["env"]


def test_template_has_all_variables_of_prefects_template() -> None:
    own, ours = KubernetesWorker.get_default_base_job_template(), read_json(TEMPLATE)

    assert set(own["variables"]["properties"]) <= set(ours["variables"]["properties"])
    assert set(own["job_configuration"]) == set(ours["job_configuration"])
    placeholders = set(re.findall(r"\{\{ (\w+) \}\}", TEMPLATE.read_text(encoding="utf-8")))
    assert placeholders == set(ours["variables"]["properties"])


def test_run_has_all_shared_settings() -> None:
    (container,) = job("cpu")["spec"]["template"]["spec"]["containers"]
    settings = of_kind("cpu", "ConfigMap")[container["envFrom"][0]["configMapRef"]["name"]]["data"]
    secrets = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container["env"] if "valueFrom" in entry}
    keys = of_kind("cpu", "Secret")["retune-secrets"]["data"]

    assert {*settings, *secrets} >= SHARED_SETTINGS
    assert all(reference["name"] == "retune-secrets" and reference["key"] in keys for reference in secrets.values())
    assert {name for name in (*settings, *secrets) if name.startswith("RETUNE_")} <= SETTINGS


def test_network_policy_selects_pods_of_runs() -> None:
    labels = job("gpu")["spec"]["template"]["metadata"]["labels"]
    policy = of_kind("gpu", "NetworkPolicy")["run"]["spec"]["podSelector"]["matchLabels"]

    assert policy.items() <= labels.items()


def test_written_paths_of_runs_are_volumes() -> None:
    (container,) = job("cpu")["spec"]["template"]["spec"]["containers"]

    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/project", "/cache", "/tmp", "/dev/shm"}
    assert of_kind("cpu", "PersistentVolumeClaim").keys() == {"cache", "prefect"}


def test_only_the_gpu_pool_requests_gpus() -> None:
    cpu, gpu = (job(overlay)["spec"]["template"]["spec"] for overlay in ("cpu", "gpu"))

    assert "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]
    assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert gpu["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert gpu["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert job("gpu", gpus=4)["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert cpu["tolerations"] == []


@pytest.mark.parametrize(("overlay", "variant"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_runs_and_servers_have_the_same_image_version(overlay: str, variant: str) -> None:
    (image,) = yaml.safe_load((KUBERNETES / "overlays" / overlay / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    pod = job(overlay)["spec"]["template"]["spec"]

    assert {container["image"] for container in pod["containers"] + pod["initContainers"]} == {
        f"{image['name']}:{image['newTag'].removesuffix('-cpu')}-{variant}"
    }
    assert f'version = "{image["newTag"].removesuffix("-cpu")}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_all_faults_of_an_overlay_are_reported() -> None:
    with pytest.raises(BadParams) as raised:
        with_defaults(read_json(TEMPLATE), {"gpu": 1, "gpus": 0, "cpu_limit": 2}, "variables.json")

    first, second, third = str(raised.value).splitlines()
    assert first.startswith("variables.json: no variable 'gpu'; the job template has: name, env")
    assert second.startswith("variables.json: gpus: 0 is not valid")
    assert third == "variables.json: cpu_limit: 2 is not of type 'string'"


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_file_without_json_object_is_rejected(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "variables.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")

    with pytest.raises(BadParams, match=r"variables\.json: expected a"):
        read_json(path)


def test_missing_server_url_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    with pytest.raises(BadParams, match="PREFECT_API_URL is not set"):
        publish("retune-cpu", json.loads(TEMPLATE.read_text(encoding="utf-8")))


def test_placeholder_auth_string_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOWHERE)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "REPLACE")

    with pytest.raises(BadParams, match="expected USER:PASSWORD"):
        publish("retune-cpu", {})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Run Prefect's server with an auth string."""
    url = f"http://127.0.0.1:{free_port(0)}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host=127.0.0.1", f"--port={urlsplit(url).port}"]
    settings = {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_API_AUTH_STRING": AUTH, "PREFECT_API_URL": url}
    with running(command, settings, tmp_path / "server.log"):
        end = time.monotonic() + 300
        while fault(f"{url}/health") is not None:
            assert time.monotonic() < end, (tmp_path / "server.log").read_text(encoding="utf-8")
            time.sleep(0.2)
        yield url


@pytest.mark.exhaustive
def test_pool_is_created_and_updated(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", AUTH)
    template, user = read_json(TEMPLATE), tuple(AUTH.split(":"))
    assert publish("retune-gpu", template) == "created"
    paused = {"is_paused": True, "concurrency_limit": 3}
    httpx.patch(f"{server}/work_pools/retune-gpu", json=paused, auth=user).raise_for_status()

    assert publish("retune-gpu", with_defaults(template, {"gpus": 2}, "")) == "updated"

    pool = httpx.get(f"{server}/work_pools/retune-gpu", auth=user).json()
    assert pool.items() >= {"type": "kubernetes", **paused}.items()
    assert pool["base_job_template"]["variables"]["properties"]["gpus"]["default"] == 2
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "retune:wrong")
    with pytest.raises(BadParams, match="answered 401; check PREFECT_API_AUTH_STRING"):
        publish("retune-gpu", template)


def test_unreachable_server_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOWHERE)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)

    with pytest.raises(Unavailable, match=f"{NOWHERE} does not answer"):
        publish("retune-gpu", {})
