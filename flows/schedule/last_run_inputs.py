"""What the last run of a model worked on, laid into a checkout: from this machine, or from wherever that run was.

Several machines may take turns with one model, and a worker may have nothing of its own: then the registry knows the hashes, and DVC's
remote has the data.
"""

import logging
from contextlib import suppress

from components.artifacts.manifest import BaseManifest, base_folder, base_names
from components.core.errors import Cancelled, NotFound, RetuneError, Unavailable
from components.core.hashing import digest_file, digest_value
from components.ledger import Ledger, Retraining
from components.model.base_resolver import REGISTERED
from flows.audit.registered_model import open_model
from flows.audit.worktree import fetch_inputs
from flows.dvc_adapter import lock, repro
from flows.pipeline.actions import read_name, repair_input
from flows.project.git import git
from flows.project.params import read_params
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)

SKIPPED, FAILED = "skipped", "failed"  # outcomes of runs that made no candidate
CODE = ("components", "dvc.yaml")  # what a model hangs on beside its settings and data


def last_made(workspace: Workspace) -> Retraining | None:
    """Return the last scheduled run that made a candidate."""
    return next(iter(Ledger(workspace.ledger).retrainings(read_name(workspace), without=(SKIPPED, FAILED))), None)


def basis(workspace: Workspace) -> str:
    """Return a hash of a checkout's code, settings and pinned base models, and of the files that gates' settings name.

    It is what a new verdict could differ by, besides the data.
    """
    tracked = (*CODE, workspace.params.relative_to(workspace.root).as_posix())
    gates = read_params(workspace.params).gates
    files = [workspace.origin / path for path in (*gates.forgetting.sets, *([gates.behaviour.cases] if gates.behaviour.cases else []))]
    bases = [(name, BaseManifest.read(base_folder(workspace.base, name))) for name in base_names(workspace.base)]
    own = f"{REGISTERED}{read_name(workspace)}/"  # a model that goes on from its own champion has nothing to learn from that
    others = sorted((name, base.digest) for name, base in bases if not base.source.startswith(own))
    code = [git(workspace.root, "rev-parse", f"{workspace.commit}:./{path}") for path in tracked]
    return digest_value([code, others, [digest_file(file) if file.is_file() else "missing" for file in files]])


def restore_last_inputs(workspace: Workspace) -> None:
    """Lay data and base model of the last version into the checkout, so that equal ones stay equal; what cannot be had is made anew.

    Those that a version was made from, and not what a run brought under DVC that ended before it made one: that is news still.

    Raises:
        Unavailable: the registry or the ledger is out of reach, so nobody knows what is news.
    """
    for folder in (workspace.raw, workspace.base):
        path = folder.relative_to(workspace.root).as_posix()
        known = lock.tracked_md5(workspace.root, path)
        wanted = of_last_version(workspace, path, known) or known
        try:
            if wanted and wanted != known:
                fetch_inputs(workspace.root, workspace.project, {path: wanted})
            elif known:
                repro.pull(f"{path}.dvc", workspace.root)
            repair_input(workspace, folder)
        except (Unavailable, Cancelled):
            raise
        except RetuneError as error:
            log.warning("%s cannot be had, so it is made anew: %s", path, error)


def of_last_version(workspace: Workspace, path: str, known: str | None) -> str | None:
    """Return the hash that a folder had in the last scheduled run, as the registry knows it; None where it knows none.

    That is `known` where a version since then was made from it, as by a person, and has a verdict: one without is a run that was cut short.
    """
    last = last_made(workspace)
    if last is None or last.version is None:
        return None
    hashes = []
    with suppress(NotFound):  # no version is left
        model = open_model(read_name(workspace), start=workspace.project)
        for version in model.versions:
            with suppress(NotFound):  # somebody registered it by hand
                if version.number == last.version or (version.number > last.version and version.verdict):
                    hashes.append(model.hash_of(version, path))
    return known if known in hashes else next(iter(hashes), None)
