"""Every variable that the image, compose and Kubernetes set is one that somebody reads."""

import re

import mlflow.environment_variables
import prefect.settings
import pytest
from prefect_kubernetes.settings import KubernetesSettings

from tests.infra.test_compose import SERVICES, secrets_of
from tests.infra.test_image import DOCKERFILE, FINAL, variables
from tests.infra.test_kubernetes import OVERLAYS, containers, of_kind


def named() -> set[str]:
    """The names of all variables."""
    found = set(variables(FINAL))
    for service in [one for one in SERVICES.values() if one["image"].startswith("retune:")]:
        found |= {*service.get("environment", {}), *(target.upper() for target in secrets_of(service))}
    for overlay in OVERLAYS:
        for container in containers(overlay).values():
            found |= {one["name"] for one in container["env"]}
    return found


def test_what_is_named_prefect_is_a_setting_of_prefect() -> None:
    names = {name for name in named() if name.startswith("PREFECT_") and not name.startswith("PREFECT_INTEGRATIONS_")}

    assert len(names) >= 10
    assert {name for name in names if not hasattr(prefect.settings, name)} == set()
    assert not hasattr(prefect.settings, "PREFECT_SERVER_DATABASE_PASSWORT")


def test_what_is_named_mlflow_is_a_variable_of_mlflow() -> None:
    names = {name for name in named() if name.startswith("MLFLOW_")}
    in_a_command = {"MLFLOW_ARTIFACTS"}

    assert len(names) >= 6
    assert names - in_a_command <= set(vars(mlflow.environment_variables))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_kubernetes_worker_names_the_secret_in_jobs_and_watches_its_namespace(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in containers(overlay)[f"worker-{overlay}/worker"]["env"]:
        if one["name"].startswith("PREFECT_INTEGRATIONS_"):
            monkeypatch.setenv(one["name"], one["value"])

    settings = KubernetesSettings()

    assert settings.observer.namespaces == {"retune"}
    assert settings.worker.api_auth_string_secret_name in of_kind(overlay, "Secret")
    assert settings.worker.api_auth_string_secret_key in of_kind(overlay, "Secret")["retune-secrets"]["data"]


def test_dockerfile_variables_are_all_seen() -> None:
    assert set(variables(FINAL)) == set(re.findall(r"^(?:ENV|   ) ?([A-Z_]+)=", DOCKERFILE.split("\nFROM ")[2], re.MULTILINE))
