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

import yaml

from components.errors import BadParams, NotThere, RetuneError
from flows.models import ModelFolder, find_models
from flows.params import RetrainParams, read_params

log = logging.getLogger(__name__)

FILE = "prefect.yaml"
RETRAIN = "retrain"
STRATEGIES = {"skip": "CANCEL_NEW", "queue": "ENQUEUE"}
POOL, TYPE = "retune", "process"  # of prefect.yaml


def deploy(project: Path, api: str, pool: str | None) -> list[str]:
    """Register every deployment, and return their names; `pool` is the work pool that they go to in place of the file's.

    The pool of the file is made where it is not there, of processes; one that is named must exist.

    Raises:
        BadParams: prefect.yaml or a model's settings cannot be used; with every fault.
        NotThere: there is no such pool.
        RetuneError: Prefect refused; the message is its own.
    """
    described = describe(read_file(project), [(model, read_params(model.params).retrain) for model in find_models(project)], pool)
    for name in sorted({one["work_pool"]["name"] for one in described["deployments"]}):
        ensure_pool(project, api, name, named=pool is not None)
    file = project / "var/prefect/deployments.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8")
    prefect(project, api, ["--no-prompt", "deploy", "--all", "--prefect-file", str(file)])
    return [f"{Path(one['entrypoint']).name.partition(':')[2]}/{one['name']}" for one in described["deployments"]]


def read_file(project: Path) -> dict[str, Any]:
    """Read the project's prefect.yaml.

    Raises:
        BadParams: it is missing, or is not what Prefect reads.
    """
    path = project / FILE
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadParams(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadParams(f"{path} is not YAML: {error}") from None
    if not isinstance(found, dict) or not any(one.get("name") == RETRAIN for one in found.get("deployments") or []):
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
        "concurrency_limit": {**template.get("concurrency_limit", {"limit": 1}), "collision_strategy": STRATEGIES[settings.late]},
    }


def ensure_pool(project: Path, api: str, name: str, named: bool) -> None:
    """Make the work pool of processes that the file names; one that a person names must be there.

    Raises:
        NotThere: it is not.
    """
    if _run(project, api, ["work-pool", "inspect", name]).returncode == 0:
        return
    if named:
        raise NotThere(f"Prefect at {api} has no work pool {name!r}: `prefect work-pool create {name} --type {TYPE}` makes one")
    prefect(project, api, ["--no-prompt", "work-pool", "create", name, "--type", TYPE])


def prefect(project: Path, api: str, arguments: Sequence[str]) -> str:
    """Let Prefect's command line do something, and return what it said.

    Raises:
        RetuneError: it failed.
    """
    done = _run(project, api, arguments)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RetuneError(f"`prefect {' '.join(arguments[:3])}` failed: {' '.join(said[-5:])}")
    return done.stdout


def _run(project: Path, api: str, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    wanted = {"PREFECT_API_URL": api, "PREFECT_HOME": str(project / "var/prefect"), "PREFECT_CLI_COLORS": "false"}
    environment = os.environ | wanted | {"PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, errors="replace", check=False)
