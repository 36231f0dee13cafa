"""A checkout of the project in which one scheduled run works: a git worktree at HEAD's commit below `var/runs`, gone afterwards.

`python -m flows.project.checkout` makes one for the process that calls it, and prints its folder: the pull step of `prefect.yaml`. Code and
settings are those of the commit; data paths stay relative to the project, and state is the project's.
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

from components.core.errors import BadParams, NotFound, RetuneError, Unavailable
from components.core.exits import run_command
from components.core.output_dir import make_private
from components.core.process import is_foreign, is_gone, owner, quiet_environment
from components.model.base_resolver import PROJECT
from components.training.trainer.state_dir import STATE
from flows.orchestrator.orphaned_runs import FLOW_RUN
from flows.project.git import git, head_commit, no_commit, prefix
from flows.project.models import find_model
from flows.project.run_locks import RUNS, folder_lock
from flows.project.workspace import Workspace, find_project
from flows.settings import load_into_environment

log = logging.getLogger(__name__)

FOLDER, OWNER = "checkout", "owner.json"
BEGINS = 600.0  # seconds from the checkout to the run in it, at the most


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
        remove(project, home_of(project, root))


def make_checkout(project: Path, pid: int) -> Path:
    """Make a checkout for the process `pid` and return its folder; what processes that are gone have left is removed first.

    Raises:
        NotThere: the project has no commit.
    """
    remove_abandoned(project)
    commit = head_commit(project)
    if not commit:
        raise NotFound(f"a scheduled run works on what is committed, and {no_commit(project)}")
    home = project / RUNS / uuid.uuid4().hex[:12]
    make_private(home)
    who = json.loads(owner(pid)) | {"flow_run": os.environ.get(FLOW_RUN), "prefix": prefix(project)}
    # Before git knows of the folder: who finds it there and free may remove it.
    (home / OWNER).write_text(json.dumps(who), encoding="utf-8")
    git(project, "worktree", "add", "--quiet", "--detach", str(home / FOLDER), commit)
    return root_of(home)


def root_of(home: Path) -> Path:
    """Return where the project lies in the checkout below `home`: its top, or a folder of a repository that has more than the project."""
    try:
        below = str(json.loads((home / OWNER).read_text(encoding="utf-8")).get("prefix", ""))
    except (OSError, ValueError, AttributeError):
        below = ""
    return home / FOLDER / below


def checkouts(project: Path) -> list[Path]:
    """Return the checkouts of the project that are there, whoever works in them."""
    return sorted(root for home in (project / RUNS).glob("*") if (root := root_of(home)).is_dir())


def remove(project: Path, home: Path) -> None:
    """Remove a checkout and what git knows of it."""
    with suppress(RetuneError):  # git may not know of it yet
        git(project, "worktree", "remove", "--force", str(home / FOLDER))
    shutil.rmtree(home, ignore_errors=True)
    try:
        git(project, "worktree", "prune")
    except RetuneError as error:
        log.warning("git still lists the checkout %s, which is removed: %s", home, error)


def home_of(project: Path, root: Path) -> Path:
    """Return the folder that a checkout was made in, with all that belongs to it."""
    runs = project / RUNS
    return runs / root.relative_to(runs).parts[0]


def remove_abandoned(project: Path) -> None:
    """Remove the checkouts whose process is gone; of another host's process the lock says so, which its kernel drops.

    Prefect is told that such a run crashed: where its worker died with it nobody else does, and the run would hold its model's slot until
    its lease ends.
    """
    for note in sorted((project / RUNS).glob(f"*/{OWNER}")):
        with suppress(FileNotFoundError):  # another run removes it
            tag = note.read_text(encoding="utf-8")
            if is_gone(tag) or (is_foreign(tag) and idle(note)):
                log.info("removing %s, which a run that was killed left behind", note.parent)
                report_crashed(json.loads(tag).get("flow_run"), tag)
                remove(project, note.parent)


def report_crashed(flow_run: str | None, tag: str) -> None:
    """Let Prefect know that a flow run is gone with the process of `tag`, where it takes the run for one at work."""
    api = os.environ.get("PREFECT_API_URL")
    if not flow_run or not api or flow_run == os.environ.get(FLOW_RUN):  # one that is tried again is itself at work
        return
    import httpx

    from flows.orchestrator.orphaned_runs import crash, was_restarted
    from flows.orchestrator.prefect_api import ask

    try:
        run = {"id": flow_run, **ask("GET", f"{api}/flow_runs/{flow_run}").json()}
        if not was_restarted(run, tag):
            crash(api, run)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        log.warning("Prefect was not told that its run %s is gone: %s", flow_run, error)


def idle(note: Path) -> bool:
    """Say whether a checkout is older than its run takes to begin, and no run works in it."""
    if time.time() - note.stat().st_mtime < BEGINS:
        return False
    try:
        with folder_lock(root_of(note.parent)):
            return True
    except Unavailable:
        return False


def enter_checkout(model: str) -> Workspace:
    """Return the workspace of `model` in the checkout that is the working folder; none: the project's own model.

    Raises:
        BadParams: there is no such model, or its settings are not committed.
        RetuneError: the working folder is no checkout of the project that RETUNE_PROJECT names.
    """
    root, project = Path.cwd().resolve(), project_of()
    if not is_checkout(project):
        raise RetuneError(f"{root} is no checkout in {project / RUNS}: `retune retrain` and the deployment make one")
    load_into_environment(project)
    os.environ[STATE] = str(project / "var")  # a search or training that was cut short outlives the checkout
    commit = head_commit(root)
    params = committed(root, project, model, commit)
    return Workspace(project, root, root / params, home=(project / params).parent, commit=commit)


def committed(root: Path, project: Path, model: str, commit: str) -> Path:
    """Return where the parameter file of `model` lies in the checkout, below its root.

    Raises:
        BadParams: there is no such model, or only in the project, where nobody committed it.
    """
    own = Path("params.yaml")
    if not model and (root / own).is_file():
        return own
    with suppress(BadParams):
        if model:
            return find_model(root, model).params.relative_to(root)
    there = find_model(project, model).params.relative_to(project) if model else own
    raise BadParams(
        f"{there} is not in commit {commit[:12]}, or has another name there: a scheduled run works on what is committed; "
        f"`git add {there}`, `git commit`"
    )


def project_of() -> Path:
    """Return the project that RETUNE_PROJECT names, else the one above the working folder."""
    return find_project(Path(os.environ.get(PROJECT) or Path.cwd()).resolve())


def is_checkout(project: Path) -> bool:
    """Say whether the working folder is a checkout of `project`."""
    here, runs = Path.cwd().resolve(), (project / RUNS).resolve()  # var/ may be a link to another disk
    return runs in here.parents and here == root_of(runs / here.relative_to(runs).parts[0])


def main() -> None:
    """Make a checkout for the process that called this one, and print its folder; with `--project` only the project's."""
    quiet_environment()
    project = project_of()
    print(project if sys.argv[1:] == ["--project"] else make_checkout(project, os.getppid()))


if __name__ == "__main__":
    sys.exit(run_command(main))
