"""What the last run of a model worked on, laid into a checkout: from this machine, or from wherever that run was.

Several machines may take turns with one model, and a worker may have nothing of its own: then the registry knows the hashes, and DVC's
remote has the data.
"""

import logging

import yaml

from components.errors import RetuneError
from components.ledger import Ledger, Retraining
from components.locks import shared_database
from flows import dvc
from flows.audit.model import open_model
from flows.audit.worktree import bring
from flows.effects import read_name
from flows.workspace import Workspace

log = logging.getLogger(__name__)

SKIPPED, FAILED = "skipped", "failed"  # outcomes of runs that made no candidate


def last_made(workspace: Workspace) -> Retraining | None:
    """Return the last scheduled run that made a candidate."""
    known = Ledger(workspace.ledger).retrainings(read_name(workspace), last=100)
    return next((one for one in known if one.outcome not in (SKIPPED, FAILED)), None)


def lay_inputs(workspace: Workspace) -> None:
    """Lay data and base model of the last run into the checkout, so that equal ones stay equal; what cannot be had is made anew."""
    for folder in (workspace.raw, workspace.base):
        path = folder.relative_to(workspace.root).as_posix()
        known = pointed(workspace, path)
        try:
            wanted = of_last_version(workspace, path) if shared_database() else None
            if wanted and wanted != known:
                bring(workspace.root, workspace.project, {path: wanted})
            elif known:
                dvc.dvc(["pull", "--quiet", f"{path}.dvc"], workspace.root, what=f"dvc pull {path}.dvc", level=logging.DEBUG)
        except RetuneError as error:
            log.warning("%s cannot be had, so it is made anew: %s", path, error)


def pointed(workspace: Workspace, path: str) -> str | None:
    """Return the hash of a folder that DVC knows in the checkout."""
    pointer = workspace.root / f"{path}.dvc"
    if not pointer.exists():
        return None
    return str(yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]["md5"])


def of_last_version(workspace: Workspace, path: str) -> str | None:
    """Return the hash that a folder had in the last run, as the registry knows it; None where there was no run.

    Raises:
        NotThere: the registry has its version no more.
    """
    last = last_made(workspace)
    if last is None or last.version is None:
        return None
    model = open_model(read_name(workspace), start=workspace.project)
    return model.hash_of(model.version(last.version), path)
