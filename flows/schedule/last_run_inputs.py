"""Restore the inputs of a model's last run into a checkout: from DVC's cache, or from its remote.

Several hosts may retrain one model, and a worker may start empty: the registry has the hashes, and DVC's remote the data.
"""

import logging
from contextlib import suppress

from components.artifacts.manifest import BaseManifest, base_folder, base_names
from components.core.errors import NotFound, RetuneError, Unavailable
from components.core.hashing import digest_file, digest_value
from components.ledger import Ledger, Retraining
from components.model.base_resolver import REGISTERED
from flows.audit.registered_model import open_model
from flows.audit.worktree import fetch_inputs
from flows.dvc_adapter import lock, repro
from flows.orchestrator.prefect_adapter import task
from flows.pipeline.actions import repair_input
from flows.pipeline.evidence import outside_files
from flows.project.git import git
from flows.project.params import read_params
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)

SKIPPED, FAILED = "skipped", "failed"  # outcomes of runs without a candidate
CODE = ("components", "dvc.yaml")  # what a model depends on in addition to settings and data


def last_made(workspace: Workspace) -> Retraining | None:
    """Return the last scheduled run that built a candidate."""
    return next(iter(Ledger(workspace.ledger).retrainings(read_params(workspace.params).name, without=(SKIPPED, FAILED))), None)


def basis(workspace: Workspace) -> str:
    """Return a hash of everything but the data that can change a verdict.

    It covers code, settings, base models, and the files that enabled gates need.
    """
    tracked = (*CODE, workspace.params.relative_to(workspace.root).as_posix())
    files = outside_files(workspace, read_params(workspace.params).gates).values()
    bases = [(name, BaseManifest.read(base_folder(workspace.base, name))) for name in base_names(workspace.base)]
    own = f"{REGISTERED}{read_params(workspace.params).name}/"  # the model's own champion as a base is not a change
    others = sorted((name, base.digest) for name, base in bases if not base.source.startswith(own))
    code = [git(workspace.root, "rev-parse", f"{workspace.commit}:./{path}") for path in tracked]
    return digest_value([code, others, [digest_file(file) if file.is_file() else "missing" for file in files]])


@task
def fetch_new_data(workspace: Workspace) -> None:
    """Restore data and base model of the last registered version, so that unchanged inputs are detected; rebuild what is unavailable.

    Inputs that a failed run added to DVC still count as new.

    Raises:
        Unavailable: the registry or the ledger is unreachable.
    """
    for folder in (workspace.raw, workspace.base):
        path = folder.relative_to(workspace.root).as_posix()
        current = lock.tracked_md5(workspace.root, path)
        digest = hash_of_last_version(workspace, path, current) or current
        try:
            if digest and digest != current:
                fetch_inputs(workspace.root, workspace.project, {path: digest})
            elif current:
                repro.pull(f"{path}.dvc", workspace.root)
            repair_input(workspace, folder)
        except Unavailable:
            raise
        except RetuneError as error:
            log.warning("could not restore %s, it will be rebuilt: %s", path, error)


def hash_of_last_version(workspace: Workspace, path: str, current: str | None) -> str | None:
    """Return the hash that a folder had in the last scheduled run, from the registry; None if unknown.

    Returns `current` if a later version with a verdict was built from it, e.g. by a manual run; one without was interrupted.
    """
    last = last_made(workspace)
    if last is None or last.version is None:
        return None
    hashes = []
    with suppress(NotFound):  # all versions were deleted
        model = open_model(read_params(workspace.params).name, start=workspace.project)
        for version in model.versions:
            with suppress(NotFound, KeyError):  # registered by other means, or built without the folder
                if version.number == last.version or (version.number > last.version and version.verdict):
                    hashes.append(model.hashes(version)[path])
    return current if current in hashes else next(iter(hashes), None)
