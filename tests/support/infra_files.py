"""The files of `infra/`, parsed: Compose services, the instructions of the Dockerfile, the manifests that kustomize builds."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from flows.settings import Settings
from tests.support.project import BIN, ROOT

SETTINGS = {f"RETUNE_{name.upper()}" for name in Settings.model_fields}
SHARED_SETTINGS = {
    "RETUNE_DATABASE",
    "RETUNE_MLFLOW_URI",
    "RETUNE_MLFLOW_USER",
    "RETUNE_MLFLOW_PASSWORD",
    "RETUNE_PREFECT_API_URL",
    "RETUNE_PREFECT_AUTH",
    "RETUNE_DVC_REMOTE",
    "RETUNE_S3_ENDPOINT",
    "RETUNE_S3_ACCESS_KEY",
    "RETUNE_S3_SECRET_KEY",
}

COMPOSE_FILES = [ROOT / "infra/compose.yaml", ROOT / "infra/compose.gpu.yaml"]
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILES[0].read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service["restart"] == "no"}

IMAGES = ROOT / "infra/images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
BUILD_STAGE, FINAL_STAGE = re.split(r"^FROM .*\n", INSTRUCTIONS, flags=re.MULTILINE)[1:]

KUBERNETES = ROOT / "infra/kubernetes"
KUBERNETES_VERSION = "1.37"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
Manifest = dict[str, Any]


def secrets_of(service: dict[str, Any]) -> dict[str, str]:
    """Return the secrets of a Compose service, by name of the file in /run/secrets."""
    secrets = [entry if isinstance(entry, dict) else {"source": entry, "target": entry} for entry in service.get("secrets", [])]
    return {secret["target"]: secret["source"] for secret in secrets}


def instructions(stage: str, name: str) -> list[str]:
    """Return the arguments of each instruction `name` of a stage of the Dockerfile."""
    return [line.removeprefix(name).strip() for line in stage.splitlines() if line.startswith(f"{name} ")]


def image_variables(stage: str = FINAL_STAGE) -> dict[str, str]:
    """Return the environment variables that a stage of the Dockerfile sets."""
    return dict(pair.split("=", 1) for line in instructions(stage, "ENV") for pair in line.split())


@cache
def manifests(overlay: str) -> list[Manifest]:
    """Return the manifests that `kubectl apply --kustomize` would send, with the example's secrets."""
    with TemporaryDirectory() as folder:
        shutil.copytree(KUBERNETES, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("secrets.env"))
        shutil.copy(KUBERNETES / "base/secrets.example.env", Path(folder) / "base/secrets.env")
        result = subprocess.run([BIN / "kubectl", "kustomize", f"{folder}/overlays/{overlay}"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no deprecation warnings
    return list(yaml.safe_load_all(result.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, Manifest]:
    """Return the manifests of one kind, by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests(overlay) if manifest["kind"] == kind}


def pods(overlay: str) -> dict[str, Manifest]:
    """Return the pod template of every deployment, by name."""
    return {name: deployment["spec"]["template"] for name, deployment in of_kind(overlay, "Deployment").items()}


def containers(overlay: str) -> dict[str, Manifest]:
    """Return every container of every deployment, by pod and name."""
    result = {}
    for name, pod in pods(overlay).items():
        result |= {f"{name}/{spec['name']}": spec for spec in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]}
    return result


def assert_confined(spec: Manifest) -> None:
    """Assert that a pod runs unprivileged, with limits, from a tagged image."""
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001  # the image's
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
    for container in spec.get("initContainers", []) + spec["containers"]:
        security = container["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]) & set(container["resources"]["limits"])
        assert re.fullmatch(r"\S+:\d[\w.]*-(cpu|cuda)", container["image"])
