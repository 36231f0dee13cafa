"""The lineage of a candidate, read from git, DVC's files and the installed packages."""

import importlib.metadata
import platform

from components.artifacts.lineage import Lineage
from components.artifacts.manifest import BaseManifest, SnapshotManifest, base_folder
from components.artifacts.profile import Profile
from components.artifacts.training import ModelSpec
from components.core.errors import NotFound
from flows.dvc_adapter import lock
from flows.dvc_adapter.config import keeps_no_history
from flows.orchestrator.prefect_adapter import current_flow_run
from flows.project.git import NO_GIT, git, has_repository, head_commit, no_commit
from flows.project.workspace import DVC_FILES, MODELS, Workspace

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "optuna", "scikit-learn", "mlflow", "dvc", "great-expectations", "prefect")


def lineage_of(workspace: Workspace, name: str, candidate: str) -> Lineage:
    """Collect the lineage of `candidate`."""
    base = BaseManifest.read(base_folder(workspace.base, ModelSpec.read(workspace.model).base))
    return Lineage(
        model=name,
        candidate=candidate,
        git_commit=(commit := commit_of(workspace)),
        dirty=uncommitted_files(workspace, commit, "."),
        dirty_code=uncommitted_files(workspace, commit, "components", "dvc.yaml"),
        data_digest=SnapshotManifest.read(workspace.raw).digest,
        base_source=base.source,
        base_digest=base.digest,
        hashes=lock.lock_hashes(workspace.root),
        flow_run=current_flow_run(),
        python=platform.python_version(),
        packages={package: importlib.metadata.version(package) for package in PACKAGES},
        pseudo=Profile.read(workspace.root / "data/prepared").pseudo,
    )


def uncommitted_files(workspace: Workspace, commit: str, *paths: str) -> int:
    """Return the number of uncommitted files below `paths` of the project; 0 in a checkout and without git.

    The DVC files of the models are left out: runs write them, and each version keeps its own.
    """
    if workspace.commit or commit == NO_GIT:
        return 0
    written = [*(f":(exclude){path}" for path in DVC_FILES.values()), *(f":(exclude,glob){MODELS}/*/{name}" for name in DVC_FILES)]
    return len(git(workspace.project, "status", "--porcelain", "--untracked-files=all", "--", *paths, *written).splitlines())


def commit_of(workspace: Workspace) -> str:
    """Return the commit of the code; NO_GIT if DVC is configured with core.no_scm.

    Raises:
        NotFound: there is no commit, so the version could not be rebuilt.
        RetuneError: git cannot read the repository.
    """
    if commit := workspace.commit or head_commit(workspace.project):
        return commit
    if not has_repository(workspace.project) and keeps_no_history(workspace.project):
        return NO_GIT
    raise NotFound(no_commit(workspace.project))
