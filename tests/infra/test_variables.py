"""Every variable that the image, Compose and Kubernetes set is known to the program that reads it."""

import re

import mlflow.environment_variables
import prefect.settings
import pytest
from prefect_kubernetes.settings import KubernetesSettings

from tests.support.infra_files import DOCKERFILE, OVERLAYS, SERVICES, containers, image_variables, of_kind, secrets_of


def variable_names() -> set[str]:
    """Return the names of all variables."""
    names = set(image_variables())
    for service in [service for service in SERVICES.values() if service["image"].startswith("retune:")]:
        names |= {*service.get("environment", {}), *(target.upper() for target in secrets_of(service))}
    for overlay in OVERLAYS:
        for container in containers(overlay).values():
            names |= {variable["name"] for variable in container["env"]}
    return names


def test_prefect_variables_are_settings_of_prefect() -> None:
    names = {name for name in variable_names() if name.startswith("PREFECT_") and not name.startswith("PREFECT_INTEGRATIONS_")}

    assert len(names) >= 10
    assert {name for name in names if not hasattr(prefect.settings, name)} == set()
    assert not hasattr(prefect.settings, "PREFECT_SERVER_DATABASE_PASSWORT")


def test_mlflow_variables_are_known_to_mlflow() -> None:
    names = {name for name in variable_names() if name.startswith("MLFLOW_")}
    in_a_command = {"MLFLOW_ARTIFACTS"}

    assert len(names) >= 6
    assert names - in_a_command <= set(vars(mlflow.environment_variables))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_worker_uses_secret_and_namespace(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in containers(overlay)[f"worker-{overlay}/worker"]["env"]:
        if variable["name"].startswith("PREFECT_INTEGRATIONS_"):
            monkeypatch.setenv(variable["name"], variable["value"])

    settings = KubernetesSettings()

    assert settings.observer.namespaces == {"retune"}
    assert settings.worker.api_auth_string_secret_name in of_kind(overlay, "Secret")
    assert settings.worker.api_auth_string_secret_key in of_kind(overlay, "Secret")["retune-secrets"]["data"]


def test_all_dockerfile_variables_are_parsed() -> None:
    assert set(image_variables()) == set(re.findall(r"^(?:ENV|   ) ?([A-Z_]+)=", DOCKERFILE.split("\nFROM ")[2], re.MULTILINE))
