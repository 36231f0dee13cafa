"""The checkout of a scheduled run: a temporary git worktree of HEAD below `var/runs`.

`python -m flows.project.checkout` creates one for the calling process and prints its folder: the pull step of `prefect.yaml`. Code and
settings are those of the commit; data paths are relative to the project, and state is in the project's `var/`.
"""

import json
import logging
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from components.core.errors import BadParams, NotFound, RetuneError, Unavailable
from components.core.exits import run_command
from components.core.output_dir import make_private
from components.core.process import is_foreign, is_gone, owner, quiet_environment
from components.model.base_resolver import PROJECT
from components.training.trainer.state_dir import STATE
from flows.orchestrator.orphaned_runs import FLOW_RUN, crash, was_restarted
from flows.orchestrator.prefect_api import request
from flows.project.git import git, head_commit, no_commit, prefix
from flows.project.models import find_model
from flows.project.run_locks import RUNS, folder_lock
from flows.project.workspace import Workspace, find_project
from flows.settings import load_into_environment

log = logging.getLogger(__name__)

FOLDER, OWNER = "checkout", "owner.json"
START_SECONDS = 600.0  # from the checkout to the start of its run, at most


@contextmanager
def checkout(project: Path) -> Iterator[Path]:
    """Yield a checkout of `project`, and remove it at the end; raise NotFound if the project has no commit."""
    root = make_checkout(project, os.getpid())
    try:
        yield root
    finally:
        remove(project, home_of(project, root))


def make_checkout(project: Path, pid: int) -> Path:
    """Create a checkout for the process `pid` and return its folder, after removing abandoned ones; raise NotFound without a commit."""
    remove_abandoned(project)
    commit = head_commit(project)
    if not commit:
        raise NotFound(f"a scheduled run uses committed code, but {no_commit(project)}")
    home = project / RUNS / uuid.uuid4().hex[:12]
    make_private(home)
    record = json.loads(owner(pid)) | {"flow_run": os.environ.get(FLOW_RUN), "prefix": prefix(project), "project": str(project)}
    # Before the worktree exists: a folder without an owner may be removed by another run.
    (home / OWNER).write_text(json.dumps(record), encoding="utf-8")
    git(project, "worktree", "add", "--quiet", "--detach", str(home / FOLDER), commit)
    return root_of(home)


def root_of(home: Path) -> Path:
    """Return the project folder in the checkout below `home`: the top, or a subfolder of a larger repository."""
    return home / FOLDER / _recorded(home, "prefix")


def _recorded(home: Path, name: str) -> str:
    """Return a value of the owner file below `home`; empty if there is none."""
    with suppress(OSError, ValueError, AttributeError):
        return str(json.loads((home / OWNER).read_text(encoding="utf-8")).get(name, ""))
    return ""


def checkouts(project: Path) -> list[Path]:
    """Return all checkouts of the project."""
    return sorted(root for home in (project / RUNS).glob("*") if (root := root_of(home)).is_dir())


def remove(project: Path, home: Path) -> None:
    """Remove the folder `home` with the git worktree in it."""
    with suppress(RetuneError):  # git may not have registered it yet
        git(project, "worktree", "remove", "--force", str(home / FOLDER))
    shutil.rmtree(home, ignore_errors=True)
    try:
        git(project, "worktree", "prune")
    except RetuneError as error:
        log.warning("removed the checkout %s, but git still lists it: %s", home, error)


def home_of(project: Path, root: Path) -> Path:
    """Return the folder that contains a checkout and its owner file."""
    runs = (project / RUNS).resolve()  # var/ may be a link to another disk
    return runs / root.resolve().relative_to(runs).parts[0]


def remove_abandoned(project: Path) -> None:
    """Remove the checkouts whose process no longer exists; for another host's process, check the lock of the workspace.

    Their runs are set to Crashed in Prefect: if the worker died too, the run would block its model until the lease ends.
    """
    for note in sorted((project / RUNS).glob(f"*/{OWNER}")):
        with suppress(FileNotFoundError):  # removed by another run
            tag = note.read_text(encoding="utf-8")
            if is_gone(tag) or (is_foreign(tag) and is_idle(note)):
                log.info("removing %s of a killed run", note.parent)
                report_crashed(json.loads(tag).get("flow_run"), tag)
                remove(project, note.parent)


def report_crashed(flow_run: str | None, tag: str) -> None:
    """Set a flow run to Crashed if Prefect still shows it as running in the process of `tag`."""
    api = os.environ.get("PREFECT_API_URL")
    if not flow_run or not api or flow_run == os.environ.get(FLOW_RUN):  # a retry of this run is this process
        return
    try:
        run = {"id": flow_run, **request("GET", f"{api}/flow_runs/{flow_run}").json()}
        if not was_restarted(run, tag):
            crash(api, run)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        log.warning("could not set the Prefect run %s to Crashed: %s", flow_run, error)


def is_idle(note: Path) -> bool:
    """Return whether a checkout is past its start time and no run uses it."""
    if time.time() - note.stat().st_mtime < START_SECONDS:
        return False
    try:
        with folder_lock(root_of(note.parent)):
            return True
    except Unavailable:
        return False


def enter_checkout(model: str) -> Workspace:
    """Return the workspace of `model` (empty: the project's own) in the checkout that is the working folder.

    Raises:
        BadParams: the model does not exist, or its settings are not committed.
        RetuneError: the working folder is not a checkout of the project.
    """
    root, project = Path.cwd().resolve(), project_of()
    if not is_checkout(project):
        raise RetuneError(f"{root} is not a checkout in {project / RUNS}: `retune retrain` and the deployment create one")
    load_into_environment(project)
    os.environ[PROJECT] = str(project)  # the base models of adapters are in its workspaces
    os.environ[STATE] = str(project / "var")  # interrupted searches and trainings survive the checkout
    commit = head_commit(root)
    params = committed_params(root, project, model, commit)
    return Workspace(project, root, root / params, home=(project / params).parent, commit=commit)


def committed_params(root: Path, project: Path, model: str, commit: str) -> Path:
    """Return the model's parameter file, relative to the checkout; raise BadParams if it does not exist or is not committed."""
    path = Path("params.yaml")
    if model:
        with suppress(BadParams):
            return find_model(root, model).params.relative_to(root)
        path = find_model(project, model).params.relative_to(project)
    elif (root / path).is_file():
        return path
    raise BadParams(
        f"{path} is not in commit {commit[:12]}, or has another name there; a scheduled run uses committed settings: "
        f"`git add {path}`, `git commit`"
    )


def project_of() -> Path:
    """Return the project of RETUNE_PROJECT, else the one at or above the working folder; for a checkout, the one it was made from."""
    root = find_project(Path(os.environ.get(PROJECT) or Path.cwd()).resolve())
    homes = (folder.parent for folder in (root, *root.parents) if folder.name == FOLDER)
    return next((Path(project) for home in homes if (project := _recorded(home, "project"))), root)


def is_checkout(project: Path) -> bool:
    """Return whether the working folder is a checkout of `project`."""
    root = Path.cwd().resolve()
    return (project / RUNS).resolve() in root.parents and root == root_of(home_of(project, root))


def main() -> None:
    """Create a checkout for the parent process and print its folder; with `--project`, print the project's folder only."""
    quiet_environment()
    project = project_of()
    print(project if sys.argv[1:] == ["--project"] else make_checkout(project, os.getppid()))


if __name__ == "__main__":
    sys.exit(run_command(main))
