"""Check infra/compose.yaml without a container engine: its schema, and rules for every service."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft202012Validator

from infra.passwords import generate_secrets
from tests.support.commands import fault
from tests.support.infra_files import COMPOSE, COMPOSE_FILES, ONE_SHOT, SERVICES, SETTINGS, SHARED_SETTINGS, secrets_of
from tests.support.project import ROOT

each_service = pytest.mark.parametrize("name", SERVICES)


def texts(value: Any) -> Iterator[str]:
    """Yield every string in a document, prefixed with its key if it has one."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from ((f"{key}: {text}" if isinstance(item, str) else text) for text in texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    else:
        yield str(value)


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_file_matches_the_compose_schema(path: Path) -> None:
    validator = Draft202012Validator(get_builtin_schema("vendor.compose-spec"))

    assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))] == []


def test_schema_detects_a_mistake() -> None:
    validator = Draft202012Validator(get_builtin_schema("vendor.compose-spec"))

    assert list(validator.iter_errors({"services": {"web": {"image": "x", "portz": []}}}))


def test_topology_is_two_stores_two_servers_two_workers() -> None:
    assert set(SERVICES) - ONE_SHOT == {"postgres", "s3", "mlflow", "prefect", "worker-1", "worker-2"}


@each_service
def test_only_permanent_services_have_a_health_check(name: str) -> None:
    health = SERVICES[name]["healthcheck"]

    assert (health == {"disable": True}) if name in ONE_SHOT else (health["test"][0] == "CMD" and "start_period" in health)


@each_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in SERVICES[name].get("ports", []))
    assert SERVICES[name].get("network_mode") is None


def test_only_the_servers_are_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"mlflow", "prefect"}
    assert COMPOSE["networks"]["stores"] == {"internal": True}
    assert all(SERVICES[name]["networks"] == ["stores"] for name in ("postgres", "s3"))


@each_service
def test_container_has_read_only_root_and_no_privileges(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)


@each_service
def test_container_has_limits_and_bounded_logs(name: str) -> None:
    assert set(SERVICES[name]["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert set(SERVICES[name]["logging"]["options"]) == {"max-size", "max-file"}


@each_service
def test_image_has_a_version_tag(name: str) -> None:
    image = SERVICES[name]["image"]
    tag = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", image).partition(":")[2]

    assert re.match(r"\d+\.\d+", tag), image


@each_service
def test_dependencies_have_the_right_condition(name: str) -> None:
    for dependency, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] == ("service_completed_successfully" if dependency in ONE_SHOT else "service_healthy"), dependency


def test_workers_depend_on_all_services() -> None:
    def dependencies(name: str) -> set[str]:
        return {name}.union(*(dependencies(other) for other in SERVICES[name].get("depends_on", {})))

    assert set(SERVICES) == dependencies("worker-1") | dependencies("worker-2")


def test_volumes_networks_and_secrets_are_used() -> None:
    volumes = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", []) if volume[0] != "."}
    files = [
        ROOT / "infra" / volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", []) if volume[0] == "."
    ]
    used = {source for service in SERVICES.values() for source in secrets_of(service).values()}

    assert volumes == set(COMPOSE["volumes"])
    assert {network for service in SERVICES.values() for network in service["networks"]} == set(COMPOSE["networks"])
    assert used == set(COMPOSE["secrets"])
    assert [file.is_file() for file in files] == [True]


def test_every_secret_is_a_generated_file() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"${{SECRETS:-./secrets}}/{name}"}
    assert set(COMPOSE["secrets"]) == set(generate_secrets())


@each_service
def test_file_contains_no_secret(name: str) -> None:
    literal = re.compile(r"(?i)(password|secret|auth_string|\bkey)\w*[:=] *(?!/run/secrets/|\$)\S")
    matches = [text for text in texts({key: value for key, value in SERVICES[name].items() if key != "secrets"}) if literal.search(text)]

    assert matches == []
    assert not [text for text in texts(SERVICES[name]) if re.search(r"://[^/\s]+:[^/\s]+@", text)]


def test_search_for_literal_secrets_finds_one() -> None:
    literal = re.compile(r"(?i)(password|secret|auth_string|\bkey)\w*[:=] *(?!/run/secrets/|\$)\S")

    assert [text for text in texts({"environment": {"PGPASSWORD": "hunter2"}}) if literal.search(text)]


@pytest.mark.parametrize("name", ["worker-1", "worker-2"])
def test_worker_has_all_shared_settings_and_no_unknown_ones(name: str) -> None:
    service = SERVICES[name]
    from_files = {target.upper() for target in secrets_of(service) if target.startswith("retune_")}
    given = {variable for variable in service["environment"] if variable.startswith("RETUNE_")}

    assert given | from_files >= SHARED_SETTINGS
    assert given | from_files <= SETTINGS
    assert given & from_files == set()


def test_retune_variables_are_settings() -> None:
    for service in [service for service in SERVICES.values() if service["image"].startswith("retune:")]:
        named = {*service.get("environment", {}), *(target.upper() for target in secrets_of(service))}
        assert {name for name in named if name.startswith("RETUNE_")} <= SETTINGS


def test_workers_share_only_the_cache() -> None:
    first, second = (set(SERVICES[name]["volumes"]) for name in ("worker-1", "worker-2"))

    assert first & second == {"cache:/cache"}


def test_only_the_s3_gateway_is_reachable() -> None:
    command = SERVICES["s3"]["command"]

    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0", "-s3.config=/run/secrets/s3.json"} <= set(command)
    accounts = {identity["name"]: identity["actions"] for identity in json.loads(generate_secrets()["s3.json"])["identities"]}
    assert "Write:mlflow" not in accounts["retune"]
    assert "Write:retune" in accounts["retune"]
    assert set(SERVICES["buckets"]["command"][3:]) == {"mlflow", "retune"}


def test_cuda_file_changes_existing_workers() -> None:
    gpu = yaml.safe_load(COMPOSE_FILES[1].read_text(encoding="utf-8"))["services"]

    assert set(gpu) == {"worker-1", "worker-2"}
    assert all(service["image"].endswith("-cuda") and service["build"]["args"]["VARIANT"] == "cuda" for service in gpu.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if service["image"].startswith("retune:")])
def test_command_exists_in_the_image(name: str) -> None:
    assert fault(SERVICES[name]["command"]) is None
    if name not in ONE_SHOT:
        assert fault(SERVICES[name]["healthcheck"]["test"][1:]) is None


def test_unknown_command_is_detected() -> None:
    assert fault(["mlflow", "server", "--app-nam=basic-auth"]) == "server does not know ['--app-nam=basic-auth']"
    assert fault(["mlflow", "db", "upgrad", "x"]) == "db has no command ['upgrad']"
    assert fault(["prefect", "worker", "start", "--pol=retune"]) == "prefect worker start does not know ['--pol=retune']"
    assert fault(["prefect", "servant"]) == "prefect has no command ['servant']"
    assert fault(["python", "-m", "infra.bucket"]) == "there is no module infra.bucket"
