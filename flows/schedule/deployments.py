"""Register the deployments of `prefect.yaml` with Prefect, with one `retrain` per model of the project.

Writes var/prefect/deployments.yaml for `prefect deploy`.
"""

import copy
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import yaml

from components.core.atomic import replacing
from components.core.documents import read_yaml
from components.core.errors import BadParams, NotFound, RetuneError, Unavailable
from components.core.output_dir import make_private
from flows.orchestrator.prefect_api import client_settings, request
from flows.project.models import ModelFolder, find_models
from flows.project.params import RetrainParams, read_params

log = logging.getLogger(__name__)

FILE = "prefect.yaml"
RETRAIN = "retrain"
STRATEGIES = {"skip": "CANCEL_NEW", "queue": "ENQUEUE"}
TYPE = "process"  # of the work pool in prefect.yaml


def deploy(project: Path, api: str, pool: str | None) -> list[str]:
    """Register every deployment and return their names; `pool` replaces the work pool of the file.

    Removes deployments that an earlier call registered and that no longer exist, and schedules that are now off. Creates the file's work
    pool, of type process, if it is missing; `pool` must exist.

    Raises:
        BadParams: prefect.yaml or a model's settings are invalid; with every fault.
        NotFound: the pool does not exist.
        Unavailable: Prefect does not answer.
        RetuneError: Prefect rejected a request; the message is its own.
    """
    described = describe(read_file(project), [(model, read_params(model.params).retrain) for model in find_models(project)], pool)
    for name in sorted({deployment["work_pool"]["name"] for deployment in described["deployments"]}):
        ensure_pool(project, api, name, named=pool is not None)
    file = project / "var/prefect/deployments.yaml"
    make_private(file.parent)
    former = read_yaml(file) if file.is_file() else {"deployments": []}
    with replacing(file) as partial:
        partial.write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8")
        prefect(project, api, ["--no-prompt", "deploy", "--all", "--prefect-file", str(partial)])
        for name in sorted(set(names(former)) - set(names(described))):
            remove(api, name)
        for name in unscheduled(described, former):
            unschedule(api, name)
    return names(described)


def names(described: Mapping[str, Any]) -> list[str]:
    """Return the deployments' names in Prefect: FLOW/NAME; the flow has the name of its function, with dashes."""
    functions = [(Path(entry["entrypoint"]).name.partition(":")[2], entry["name"]) for entry in described["deployments"]]
    return [f"{function.replace('_', '-')}/{name}" for function, name in functions]


def unscheduled(described: Mapping[str, Any], former: Mapping[str, Any]) -> list[str]:
    """Return the deployments whose schedules must be removed: models with `cron: off`, and others that had a schedule before.

    Schedules that users created in Prefect, for a deployment that never had one here, are kept.
    """
    had = set(names({"deployments": [entry for entry in former["deployments"] if scheduled(entry)]}))
    without = names({"deployments": [entry for entry in described["deployments"] if not scheduled(entry)]})
    return [name for name in without if name in had or name.startswith(f"{RETRAIN}/")]


def scheduled(described: Mapping[str, Any]) -> bool:
    """Return whether a deployment has a schedule, in either form that Prefect accepts."""
    return bool(described.get("schedules") or described.get("schedule"))


def unschedule(api: str, name: str) -> None:
    """Delete the schedules of a deployment, which `prefect deploy` would keep."""
    response = call("GET", f"{api}/deployments/name/{quote(name)}")
    for schedule in response.json()["schedules"] if response else []:
        call("DELETE", f"{api}/deployments/{schedule['deployment_id']}/schedules/{schedule['id']}")
        log.info("%s: removed its schedule", name)


def remove(api: str, name: str) -> None:
    """Remove a deployment with its schedule and its scheduled runs; finished runs are kept."""
    if response := call("GET", f"{api}/deployments/name/{quote(name)}"):
        call("DELETE", f"{api}/deployments/{response.json()['id']}")
        log.info("removed the deployment %s, which no longer exists", name)


def call(method: str, url: str) -> httpx.Response | None:
    """Call Prefect's API; return None for 404; raise RetuneError for other errors, Unavailable without an answer."""
    try:
        response = request(method, url)
    except httpx.HTTPError as error:
        raise Unavailable(f"Prefect does not answer at {url}: {error}") from error
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    if response.is_error:
        raise RetuneError(f"Prefect returned {response.status_code} for {method} {url}; check RETUNE_PREFECT_AUTH")
    return response


def read_file(project: Path) -> dict[str, Any]:
    """Read the project's prefect.yaml; raise BadParams if it is missing or invalid."""
    file = read_yaml(project / FILE)
    deployments = file.get("deployments") if isinstance(file, dict) else None
    entries = deployments if isinstance(deployments, list) else []
    if isinstance(file, dict) and any(isinstance(entry, dict) and entry.get("name") == RETRAIN for entry in entries):
        return file
    raise BadParams(f"{project / FILE}: expected `deployments` with one named {RETRAIN}")


def describe(file: Mapping[str, Any], models: Sequence[tuple[ModelFolder, RetrainParams]], pool: str | None) -> dict[str, Any]:
    """Return `file` with its `retrain` once per model, on the model's own schedule."""
    deployments = []
    for entry in file["deployments"]:
        if entry["name"] == RETRAIN:
            deployments += [_for_model(entry, model, settings) for model, settings in models]
        else:
            deployments.append(copy.deepcopy(entry))
    if pool:
        for deployment in deployments:
            deployment["work_pool"] = {**deployment["work_pool"], "name": pool}
    return {**{name: value for name, value in file.items() if name != "definitions"}, "deployments": deployments}


def _for_model(template: Mapping[str, Any], model: ModelFolder, settings: RetrainParams) -> dict[str, Any]:
    schedules = template.get("schedules", [])
    if settings.cron:
        schedules = [] if settings.cron == "off" else [{"cron": settings.cron, "timezone": settings.timezone, "active": True}]
    return {
        **copy.deepcopy(dict(template)),
        "name": model.name,
        "description": f"{template.get('description', 'Retrain the model')}: {model.name}",
        "parameters": {"model": model.name},
        "schedules": schedules,
        "concurrency_limit": {**template.get("concurrency_limit", {"limit": 1}), "collision_strategy": STRATEGIES[settings.on_overlap]},
    }


def ensure_pool(project: Path, api: str, name: str, named: bool) -> None:
    """Create the file's work pool if it is missing; raise NotFound if a pool from the command line (`named`) is."""
    if call("GET", f"{api}/work_pools/{quote(name)}"):
        return
    if named:
        raise NotFound(f"Prefect at {api} has no work pool {name!r}: `prefect work-pool create {name} --type {TYPE}` creates one")
    try:
        prefect(project, api, ["--no-prompt", "work-pool", "create", name, "--type", TYPE])
    except RetuneError:
        if not call("GET", f"{api}/work_pools/{quote(name)}"):  # a starting worker may have created it
            raise


def prefect(project: Path, api: str, arguments: Sequence[str]) -> str:
    """Run Prefect's command line and return its output; raise RetuneError if it fails."""
    settings = client_settings(api) | {"PREFECT_HOME": str(project / "var/prefect"), "PREFECT_CLI_COLORS": "false"}
    environment = os.environ | settings | {"PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        output = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RetuneError(f"`prefect {' '.join(arguments[:3])}` failed: {' '.join(output[-5:])}")
    return done.stdout
