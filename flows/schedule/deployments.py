"""Register with Prefect what its workers run: `prefect.yaml`, with one `retrain` for each model of the project.

Writes var/prefect/deployments.yaml, and lets `prefect deploy` read it.
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

from components.core.documents import read_yaml
from components.core.errors import BadParams, NotFound, RetuneError, Unavailable
from components.core.output_dir import make_private
from flows.orchestrator.prefect_api import ask, client_settings
from flows.project.models import ModelFolder, find_models
from flows.project.params import RetrainParams, read_params

log = logging.getLogger(__name__)

FILE = "prefect.yaml"
RETRAIN = "retrain"
STRATEGIES = {"skip": "CANCEL_NEW", "queue": "ENQUEUE"}
TYPE = "process"  # of the work pool in prefect.yaml


def deploy(project: Path, api: str, pool: str | None) -> list[str]:
    """Register every deployment, and return their names; `pool` is the work pool that they go to in place of the file's.

    What an earlier call of this project registered and is described no more is removed, and so is a schedule that is off now.
    The pool of the file is made where it is not there, of processes; one that is named must exist.

    Raises:
        BadParams: prefect.yaml or a model's settings cannot be used; with every fault.
        NotThere: there is no such pool.
        Unavailable: Prefect does not answer.
        RetuneError: Prefect refused; the message is its own.
    """
    described = describe(read_file(project), [(model, read_params(model.params).retrain) for model in find_models(project)], pool)
    for name in sorted({one["work_pool"]["name"] for one in described["deployments"]}):
        ensure_pool(project, api, name, named=pool is not None)
    file = project / "var/prefect/deployments.yaml"
    make_private(file.parent)
    former = read_yaml(file) if file.is_file() else {"deployments": []}
    partial = file.with_name(f".{file.name}")
    partial.write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8")
    prefect(project, api, ["--no-prompt", "deploy", "--all", "--prefect-file", str(partial)])
    for name in sorted(set(names(former)) - set(names(described))):
        remove(api, name)
    for name in unscheduled(described, former):
        unschedule(api, name)
    partial.replace(file)
    return names(described)


def names(described: Mapping[str, Any]) -> list[str]:
    """Return what Prefect calls each deployment: FLOW/NAME; a flow is called as its function, with dashes."""
    return [f"{Path(one['entrypoint']).name.partition(':')[2].replace('_', '-')}/{one['name']}" for one in described["deployments"]]


def unscheduled(described: Mapping[str, Any], former: Mapping[str, Any]) -> list[str]:
    """Return the deployments that are to have no schedule: models' whose is off, and others that had one in the former file.

    What people schedule on Prefect's pages, of a deployment that never had a schedule here, is theirs. Pure.
    """
    had = set(names({"deployments": [one for one in former["deployments"] if scheduled(one)]}))
    without = names({"deployments": [one for one in described["deployments"] if not scheduled(one)]})
    return [name for name in without if name in had or name.startswith(f"{RETRAIN}/")]


def scheduled(described: Mapping[str, Any]) -> bool:
    """Say whether a deployment has a schedule, in either of the ways that Prefect reads."""
    return bool(described.get("schedules") or described.get("schedule"))


def unschedule(api: str, name: str) -> None:
    """Take away the schedules of a deployment: `prefect deploy` leaves those that it is told nothing of."""
    found = called("GET", f"{api}/deployments/name/{quote(name)}")
    for schedule in found.json()["schedules"] if found else []:
        called("DELETE", f"{api}/deployments/{schedule['deployment_id']}/schedules/{schedule['id']}")
        log.info("%s: its schedule is off", name)


def remove(api: str, name: str) -> None:
    """Remove a deployment with its schedule and the runs that are due; what it ran stays on record."""
    if found := called("GET", f"{api}/deployments/name/{quote(name)}"):
        called("DELETE", f"{api}/deployments/{found.json()['id']}")
        log.info("removed the deployment %s, which is described no more", name)


def called(method: str, url: str) -> httpx.Response | None:
    """Return the answer of Prefect's API; None for what is not there.

    Raises:
        Unavailable: Prefect does not answer.
        RetuneError: it refuses.
    """
    try:
        answer = ask(method, url)
    except httpx.HTTPError as error:
        raise Unavailable(f"Prefect does not answer at {url}: {error}") from error
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    if answer.is_error:
        raise RetuneError(f"Prefect refuses {method} {url} with {answer.status_code}; RETUNE_PREFECT_AUTH says who we are to it")
    return answer


def read_file(project: Path) -> dict[str, Any]:
    """Read the project's prefect.yaml.

    Raises:
        BadParams: it is missing, or is not what Prefect reads.
    """
    path = project / FILE
    found = read_yaml(path)
    described = found.get("deployments") if isinstance(found, dict) else None
    if (
        not isinstance(found, dict)
        or not isinstance(described, list)
        or not any(isinstance(one, dict) and one.get("name") == RETRAIN for one in described)
    ):
        raise BadParams(f"{path}: expected `deployments` with one that is called {RETRAIN}")
    return found


def describe(file: Mapping[str, Any], models: Sequence[tuple[ModelFolder, RetrainParams]], pool: str | None) -> dict[str, Any]:
    """Return what Prefect is to read: `file` with its `retrain` once for each model, on the model's own schedule. Pure."""
    deployments = []
    for one in file["deployments"]:
        of = models if one["name"] == RETRAIN else [(None, None)]
        deployments += [_for_model(one, model, settings) if model and settings else copy.deepcopy(one) for model, settings in of]
    for one in deployments:
        one["work_pool"] = {**one["work_pool"], **({"name": pool} if pool else {})}
    return {**{name: value for name, value in file.items() if name != "definitions"}, "deployments": deployments}


def _for_model(template: Mapping[str, Any], model: ModelFolder, settings: RetrainParams) -> dict[str, Any]:
    schedules = template.get("schedules", [])
    if settings.cron == "off":
        schedules = []
    elif settings.cron:
        schedules = [{"cron": settings.cron, "timezone": settings.timezone, "active": True}]
    return {
        **copy.deepcopy(dict(template)),
        "name": model.name,
        "description": f"{template.get('description', 'Make the model anew')}: {model.name}",
        "parameters": {"model": model.name},
        "schedules": schedules,
        "concurrency_limit": {**template.get("concurrency_limit", {"limit": 1}), "collision_strategy": STRATEGIES[settings.on_overlap]},
    }


def ensure_pool(project: Path, api: str, name: str, named: bool) -> None:
    """Make the work pool of processes that the file names; one that a person names must be there.

    Raises:
        NotThere: it is not.
        Unavailable, RetuneError: as for `called`.
    """
    if called("GET", f"{api}/work_pools/{quote(name)}"):
        return
    if named:
        raise NotFound(f"Prefect at {api} has no work pool {name!r}: `prefect work-pool create {name} --type {TYPE}` makes one")
    try:
        prefect(project, api, ["--no-prompt", "work-pool", "create", name, "--type", TYPE])
    except RetuneError:
        if not called("GET", f"{api}/work_pools/{quote(name)}"):  # a worker that starts makes it too
            raise


def prefect(project: Path, api: str, arguments: Sequence[str]) -> str:
    """Let Prefect's command line do something, and return what it said.

    Raises:
        RetuneError: it failed.
    """
    wanted = client_settings(api) | {"PREFECT_HOME": str(project / "var/prefect"), "PREFECT_CLI_COLORS": "false"}
    environment = os.environ | wanted | {"PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RetuneError(f"`prefect {' '.join(arguments[:3])}` failed: {' '.join(said[-5:])}")
    return done.stdout
