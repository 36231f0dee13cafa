"""A checkout of the project in which one scheduled run works: a git worktree at HEAD's commit below `var/runs`, gone afterwards.

`python -m flows.checkout` makes one for the process that calls it, and prints its folder: the pull step of `prefect.yaml`. Code and
settings are those of the commit; data paths stay relative to the project, and state is the project's.
"""

import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import BadParams, NotThere, RetuneError
from components.identity import digest_value
from components.learning.state import STATE
from components.origin import PROJECT
from components.process import is_gone, owner
from flows.git import git, must_git
from flows.models import ModelFolder, find_model
from flows.settings import enter
from flows.workspace import Workspace, find_project

log = logging.getLogger(__name__)

RUNS = "var/runs"
FOLDER, OWNER = "checkout", "owner.json"
BASIS = ("components", "dvc.yaml")  # what a model hangs on beside its settings and data


@contextmanager
def checkout(project: Path) -> Iterator[Path]:
    """Yield a checkout of `project`, which is removed however the block ends.

    Raises:
        NotThere: the project has no commit.
    """
    root = make_checkout(project, os.getpid())
    try:
        yield root
    finally:
        remove(project, root.parent)


def make_checkout(project: Path, pid: int) -> Path:
    """Make a checkout for the process `pid` and return its folder; what processes that are gone have left is removed first.

    Raises:
        NotThere: the project has no commit.
    """
    remove_abandoned(project)
    commit = git(project, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        raise NotThere(f"{project} has no git commit: a scheduled run works on what is committed; `git init`, `git add`, `git commit`")
    home = project / RUNS / uuid.uuid4().hex[:12]
    home.mkdir(parents=True)
    (home / OWNER).write_text(owner(pid), encoding="utf-8")  # before git knows of the folder: who finds it there and free may remove it
    must_git(project, "worktree", "add", "--quiet", "--detach", str(home / FOLDER), commit)
    return home / FOLDER


def remove(project: Path, home: Path) -> None:
    """Remove a checkout and what git knows of it."""
    git(project, "worktree", "remove", "--force", str(home / FOLDER))
    shutil.rmtree(home, ignore_errors=True)
    git(project, "worktree", "prune")


def remove_abandoned(project: Path) -> None:
    """Remove the checkouts whose process is gone."""
    for note in sorted((project / RUNS).glob(f"*/{OWNER}")):
        if is_gone(note.read_text(encoding="utf-8")):
            log.info("removing %s, which a run that was killed left behind", note.parent)
            remove(project, note.parent)


def enter_checkout(model: str) -> Workspace:
    """Return the workspace of `model` in the checkout that is the working folder; none: the project's own model.

    Raises:
        BadParams: there is no such model, or its settings are not committed.
        RetuneError: the working folder is no checkout of the project that RETUNE_PROJECT names.
    """
    root, project = Path.cwd().resolve(), project_of()
    if not is_checkout(project):
        raise RetuneError(f"{root} is no checkout in {project / RUNS}: `retune retrain` and the deployment make one")
    enter(project)
    os.environ[STATE] = str(project / "var")  # a search or training that was cut short outlives the checkout
    found = find_model(project, model) if model else ModelFolder("", project / "params.yaml")
    params = found.params.relative_to(project)
    commit = git(root, "rev-parse", "HEAD")
    if not (root / params).is_file():
        raise BadParams(
            f"{params} is not in commit {commit[:12]}: a scheduled run works on what is committed; `git add {params}`, `git commit`"
        )
    return Workspace(project, root, root / params, home=found.params.parent, commit=commit)


def project_of() -> Path:
    """Return the project that RETUNE_PROJECT names, else the one above the working folder."""
    return find_project(Path(os.environ.get(PROJECT) or Path.cwd()).resolve())


def is_checkout(project: Path) -> bool:
    """Say whether the working folder is a checkout of `project`."""
    return Path.cwd().resolve().parent.parent == project / RUNS


def basis(workspace: Workspace) -> str:
    """Return a hash of the code and the settings of a checkout: what a new model could differ by, besides its data."""
    params = workspace.params.relative_to(workspace.root).as_posix()
    return digest_value([git(workspace.root, "rev-parse", f"{workspace.commit}:{path}") for path in (*BASIS, params)])


def main() -> int:
    """Make a checkout for the process that called this one, and print its folder; with `--project` only the project's."""
    try:
        project = project_of()
        print(project if sys.argv[1:] == ["--project"] else make_checkout(project, os.getppid()))
    except RetuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
