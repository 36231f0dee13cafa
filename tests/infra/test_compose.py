"""infra/compose.yaml without an engine: its schema, and what must hold of every service."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft202012Validator

from flows.settings import Settings
from infra.passwords import new_secret
from tests.support.commands import fault
from tests.support.project import ROOT

FILES = [ROOT / "infra/compose.yaml", ROOT / "infra/compose.gpu.yaml"]
COMPOSE: dict[str, Any] = yaml.safe_load(FILES[0].read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {name for name, service in SERVICES.items() if service["restart"] == "no"}
SETTINGS = {f"RETUNE_{name.upper()}" for name in Settings.model_fields}
SHARED = {
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
each_service = pytest.mark.parametrize("name", SERVICES)


def secrets_of(service: dict[str, Any]) -> dict[str, str]:
    """The secrets of a service: the name of the file in /run/secrets, and the secret it is."""
    whole = [one if isinstance(one, dict) else {"source": one, "target": one} for one in service.get("secrets", [])]
    return {one["target"]: one["source"] for one in whole}


def texts(value: Any) -> Iterator[str]:
    """Every string in a document, with its key before it where it has one."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from ((f"{key}: {text}" if isinstance(item, str) else text) for text in texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    else:
        yield str(value)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_file_is_what_the_specification_says(path: Path) -> None:
    validator = Draft202012Validator(get_builtin_schema("vendor.compose-spec"))

    assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))] == []


def test_the_schema_finds_a_mistake() -> None:
    validator = Draft202012Validator(get_builtin_schema("vendor.compose-spec"))

    assert list(validator.iter_errors({"services": {"web": {"image": "x", "portz": []}}}))


def test_the_topology_is_two_stores_two_servers_and_two_workers() -> None:
    assert set(SERVICES) - ONCE == {"postgres", "s3", "mlflow", "prefect", "worker-1", "worker-2"}


@each_service
def test_a_service_that_stays_has_a_health_check_and_one_that_ends_has_none(name: str) -> None:
    health = SERVICES[name]["healthcheck"]

    assert (health == {"disable": True}) if name in ONCE else (health["test"][0] == "CMD" and "start_period" in health)


@each_service
def test_nothing_is_published_beyond_loopback(name: str) -> None:
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in SERVICES[name].get("ports", []))
    assert SERVICES[name].get("network_mode") is None


def test_both_servers_are_published_and_no_store_is() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"mlflow", "prefect"}
    assert COMPOSE["networks"]["stores"] == {"internal": True}
    assert all(SERVICES[name]["networks"] == ["stores"] for name in ("postgres", "s3"))


@each_service
def test_a_container_can_neither_write_to_its_root_nor_gain_rights(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].split(":")[0]) > 0
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)


@each_service
def test_every_container_has_limits_and_bounded_logs(name: str) -> None:
    assert set(SERVICES[name]["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert set(SERVICES[name]["logging"]["options"]) == {"max-size", "max-file"}


@each_service
def test_an_image_is_of_one_version(name: str) -> None:
    image = SERVICES[name]["image"]
    tag = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", image).partition(":")[2]

    assert re.match(r"\d+\.\d+", tag), image


@each_service
def test_a_service_waits_for_what_is_there_in_the_way_that_it_ends(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] == ("service_completed_successfully" if other in ONCE else "service_healthy"), other


def test_workers_wait_in_the_end_for_everything() -> None:
    def waits(name: str) -> set[str]:
        return {name}.union(*(waits(other) for other in SERVICES[name].get("depends_on", {})))

    assert set(SERVICES) == waits("worker-1") | waits("worker-2")


def test_volumes_networks_and_secrets_are_those_that_are_used() -> None:
    volumes = {one.split(":")[0] for service in SERVICES.values() for one in service.get("volumes", []) if one[0] != "."}
    files = [ROOT / "infra" / one.split(":")[0] for service in SERVICES.values() for one in service.get("volumes", []) if one[0] == "."]
    used = {source for service in SERVICES.values() for source in secrets_of(service).values()}

    assert volumes == set(COMPOSE["volumes"])
    assert {network for service in SERVICES.values() for network in service["networks"]} == set(COMPOSE["networks"])
    assert used == set(COMPOSE["secrets"])
    assert [file.is_file() for file in files] == [True]


def test_every_secret_is_a_file_that_is_made_up() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"${{SECRETS:-./secrets}}/{name}"}
    assert set(COMPOSE["secrets"]) == set(new_secret())


@each_service
def test_no_secret_stands_in_the_file(name: str) -> None:
    literal = re.compile(r"(?i)(password|secret|auth_string|\bkey)\w*[:=] *(?!/run/secrets/|\$)\S")
    asked = [text for text in texts({key: value for key, value in SERVICES[name].items() if key != "secrets"}) if literal.search(text)]

    assert asked == []
    assert not [text for text in texts(SERVICES[name]) if re.search(r"://[^/\s]+:[^/\s]+@", text)]


def test_the_search_for_literal_secrets_finds_one() -> None:
    literal = re.compile(r"(?i)(password|secret|auth_string|\bkey)\w*[:=] *(?!/run/secrets/|\$)\S")

    assert [text for text in texts({"environment": {"PGPASSWORD": "hunter2"}}) if literal.search(text)]


@pytest.mark.parametrize("name", ["worker-1", "worker-2"])
def test_a_worker_knows_all_of_the_shared_stack_and_nothing_that_is_no_setting(name: str) -> None:
    service = SERVICES[name]
    from_files = {target.upper() for target in secrets_of(service) if target.startswith("retune_")}
    given = {variable for variable in service["environment"] if variable.startswith("RETUNE_")}

    assert given | from_files >= SHARED
    assert given | from_files <= SETTINGS
    assert given & from_files == set()


def test_what_is_named_retune_is_a_setting_everywhere() -> None:
    for service in [one for one in SERVICES.values() if one["image"].startswith("retune:")]:
        named = {*service.get("environment", {}), *(target.upper() for target in secrets_of(service))}
        assert {name for name in named if name.startswith("RETUNE_")} <= SETTINGS


def test_two_workers_share_the_cache_and_nothing_else() -> None:
    one, other = (set(SERVICES[name]["volumes"]) for name in ("worker-1", "worker-2"))

    assert one & other == {"cache:/cache"}


def test_only_the_gateway_of_the_s3_store_listens_to_others() -> None:
    command = SERVICES["s3"]["command"]

    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0", "-s3.config=/run/secrets/s3.json"} <= set(command)
    accounts = {one["name"]: one["actions"] for one in json.loads(new_secret()["s3.json"])["identities"]}
    assert "Write:mlflow" not in accounts["retune"]
    assert "Write:retune" in accounts["retune"]
    assert set(SERVICES["buckets"]["command"][3:]) == {"mlflow", "retune"}


def test_the_cuda_file_changes_workers_that_there_are() -> None:
    gpu = yaml.safe_load(FILES[1].read_text(encoding="utf-8"))["services"]

    assert set(gpu) == {"worker-1", "worker-2"}
    assert all(service["image"].endswith("-cuda") and service["build"]["args"]["VARIANT"] == "cuda" for service in gpu.values())


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if service["image"].startswith("retune:")])
def test_the_command_exists_in_the_image(name: str) -> None:
    assert fault(SERVICES[name]["command"]) is None
    if name not in ONCE:
        assert fault(SERVICES[name]["healthcheck"]["test"][1:]) is None


def test_a_command_that_does_not_exist_is_found() -> None:
    assert fault(["mlflow", "server", "--app-nam=basic-auth"]) == "server does not know ['--app-nam=basic-auth']"
    assert fault(["mlflow", "db", "upgrad", "x"]) == "db has no command ['upgrad']"
    assert fault(["prefect", "worker", "start", "--pol=retune"]) == "prefect worker start does not know ['--pol=retune']"
    assert fault(["prefect", "servant"]) == "prefect has no command ['servant']"
    assert fault(["python", "-m", "infra.bucket"]) == "there is no module infra.bucket"
