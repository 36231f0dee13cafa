"""`python -m infra.pool NAME DEFAULTS`: create the Kubernetes work pool NAME on Prefect's server, or update its job template.

Reads kubernetes/base-job-template.json and DEFAULTS, a JSON file with this pool's image, sizes and namespace. An existing pool keeps
its limit and its pause.
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


def with_defaults(template: Json, defaults: Json, source: str) -> Json:
    """Return the job template with new defaults for its variables; raise BadParams with all unknown variables and invalid values."""
    from jsonschema import Draft202012Validator

    template = copy.deepcopy(template)
    variables: Json = template["variables"]["properties"]
    definitions = template["variables"].get("definitions", {})
    faults = []
    for name, value in defaults.items():
        if name not in variables:
            faults.append(f"{source}: no variable {name!r}; the job template has: {', '.join(variables)}")
            continue
        variables[name]["default"] = value
        schema = variables[name] | {"definitions": definitions}
        faults += [f"{source}: {name}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]
    if faults:
        raise BadParams("\n".join(faults))
    return template


def read_json(path: Path) -> Json:
    """Read a JSON file; raise BadParams if it is missing or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadParams(f"{path}: expected a file with a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise BadParams(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def publish(name: str, template: Json) -> str:
    """Create the pool or update its job template, and return what was done.

    Raises:
        BadParams: the server's URL is not set, or it rejects the request.
        Unavailable: the server does not answer, or with an internal error.
    """
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    url, auth = os.environ.get("PREFECT_API_URL"), os.environ.get("PREFECT_API_AUTH_STRING")
    if not url:
        raise BadParams("PREFECT_API_URL is not set: expected the URL of Prefect's server, http://…/api")
    if auth and ":" not in auth:
        raise BadParams("PREFECT_API_AUTH_STRING: expected USER:PASSWORD, found no colon; replace the example's value")
    try:
        with SyncPrefectClient(url, auth_string=auth) as client:
            try:
                client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
            except ObjectNotFound:
                client.create_work_pool(WorkPoolCreate(name=name, type="kubernetes", base_job_template=template))
                return "created"
            return "updated"
    except ObjectAlreadyExists:  # another worker created it first, with the same template
        return "already created by another worker"
    except httpx.HTTPStatusError as error:
        error_type = Unavailable if error.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else BadParams
        raise error_type(f"Prefect's server at {url} answered {error.response.status_code}; check PREFECT_API_AUTH_STRING") from None
    except (httpx.HTTPError, RuntimeError) as error:
        raise Unavailable(f"Prefect's server at {url} does not answer: {error}") from None


def main() -> int:
    """Create or update the pool."""
    quiet_environment()
    if len(sys.argv) != 3:
        print("usage: python -m infra.pool NAME DEFAULTS", file=sys.stderr)
        return 2
    name, defaults = sys.argv[1], Path(sys.argv[2])
    result = publish(name, with_defaults(read_json(TEMPLATE), read_json(defaults), str(defaults)))
    print(f"work pool {name}: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
