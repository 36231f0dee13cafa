"""`python -m infra.pool NAME DEFAULTS`: make the Kubernetes work pool NAME of Prefect's server, or bring its job template up to date.

Reads kubernetes/base-job-template.json and DEFAULTS, a JSON file with this pool's image, sizes and place. A pool that exists keeps
its limit, and stays paused where a person paused it.
"""

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx

from components.core.errors import BadParams, Unavailable
from components.core.exits import run_command
from components.core.process import quiet_environment

TEMPLATE = Path(__file__).parent / "kubernetes/base-job-template.json"
Json = dict[str, Any]


def with_defaults(template: Json, defaults: Json, where: str) -> Json:
    """Return the job template with other defaults for its variables; each must be what the variable's schema asks for.

    Raises:
        BadParams: a variable that is not there, or a value that does not fit; with every fault.
    """
    from jsonschema import Draft202012Validator

    template = copy.deepcopy(template)
    variables: Json = template["variables"]["properties"]
    definitions = template["variables"].get("definitions", {})
    faults = []
    for name, value in defaults.items():
        if name not in variables:
            faults.append(f"{where}: no variable {name!r}; the job template has: {', '.join(variables)}")
            continue
        variables[name]["default"] = value
        schema = variables[name] | {"definitions": definitions}
        faults += [f"{where}: {name}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]
    if faults:
        raise BadParams("\n".join(faults))
    return template


def read_json(path: Path) -> Json:
    """Read a JSON file.

    Raises:
        BadParams: it is missing, or no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadParams(f"{path}: expected a file with a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise BadParams(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def publish(name: str, template: Json) -> str:
    """Give the pool its job template, and return what was done.

    Raises:
        BadParams: there is no address of a server, or it refuses us.
        Unavailable: the server does not answer, or only with an error of its own.
    """
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    url, auth = os.environ.get("PREFECT_API_URL"), os.environ.get("PREFECT_API_AUTH_STRING")
    if not url:
        raise BadParams("PREFECT_API_URL is not set: expected the address of Prefect's server, http://…/api")
    if auth and ":" not in auth:
        raise BadParams("PREFECT_API_AUTH_STRING: expected USER:PASSWORD, found no colon; is it still the example's?")
    try:
        with SyncPrefectClient(url, auth_string=auth) as client:
            try:
                client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
            except ObjectNotFound:
                client.create_work_pool(WorkPoolCreate(name=name, type="kubernetes", base_job_template=template))
                return "made"
            return "brought up to date"
    except ObjectAlreadyExists:  # another worker was faster, with the same template
        return "was made meanwhile"
    except httpx.HTTPStatusError as error:
        kind = Unavailable if error.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else BadParams
        raise kind(f"Prefect's server at {url} answered {error.response.status_code}; see PREFECT_API_AUTH_STRING") from None
    except (httpx.HTTPError, RuntimeError) as error:
        raise Unavailable(f"Prefect's server at {url} does not answer: {error}") from None


def main() -> int:
    """Make the pool or bring it up to date."""
    quiet_environment()
    if len(sys.argv) != 3:
        print("usage: python -m infra.pool NAME DEFAULTS", file=sys.stderr)
        return 2
    name, defaults = sys.argv[1], Path(sys.argv[2])
    done = publish(name, with_defaults(read_json(TEMPLATE), read_json(defaults), str(defaults)))
    print(f"work pool {name}: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
