"""A temporary git worktree in which a version is rebuilt, with its own DVC cache and state.

A rebuild does not touch the project's registry, searches or DVC cache; the cache is only read.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from components.core.errors import BadInput, NotFound, RetuneError
from components.core.temporary import sweep, temporary
from flows.dvc_adapter.cache import cached_folder
from flows.dvc_adapter.config import inherit, share_remote
from flows.dvc_adapter.repro import dvc
from flows.project.checkout import FOLDER, remove
from flows.project.git import NO_GIT, git, has_commit, prefix
from flows.settings import read_settings

log = logging.getLogger(__name__)


@contextmanager
def worktree(project: Path, commit: str, keep: Path | None = None) -> Iterator[Path]:
    """Yield a folder with the files of `commit`; remove it at the end, unless it is the folder `keep`.

    Folders of killed rebuilds are removed first.

    Raises:
        NotFound: the commit is not in the project's repository.
        BadInput: `keep` is a file or a folder that is not empty.
    """
    if commit in ("", NO_GIT):
        raise NotFound("the version was built without a git commit, so its code is unknown and it cannot be rebuilt")
    if not has_commit(project, commit):
        raise NotFound(
            f"commit {commit[:12]} is not in the repository of {project}: `git fetch` it from the repository where the version was built"
        )
    sweep(Path(tempfile.gettempdir()))
    git(project, "worktree", "prune")  # forget the swept ones
    if keep is not None:
        if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
            raise BadInput(f"{keep} is {'not empty' if keep.is_dir() else 'a file'}: choose a folder that does not exist")
        git(project, "worktree", "add", "--quiet", "--detach", str(keep.resolve()), commit)
        yield keep.resolve() / prefix(project)
        return
    with temporary() as folder:
        home = folder.resolve()
        try:
            git(project, "worktree", "add", "--quiet", "--detach", str(home / FOLDER), commit)
            yield home / FOLDER / prefix(project)
        finally:
            remove(project, home)


def prepare_worktree(root: Path, project: Path) -> None:
    """Give the folder its own DVC configuration: no git, an empty cache, the project's remotes."""
    share_remote(project / ".dvc/config.local", read_settings(project))
    shutil.rmtree(root / ".dvc", ignore_errors=True)
    inherit(project, root, root / ".dvc/cache")


def fetch_inputs(root: Path, project: Path, inputs: Mapping[str, str]) -> None:
    """Copy the DVC folders `inputs` (path to md5) into `root`, from the project's cache, else from its remote.

    Raises:
        NotFound: neither contains them.
    """
    for path, md5 in inputs.items():
        try:
            cached_folder(project, md5, root / path)
        except NotFound as missing:
            log.info("%s is not in the cache of %s: pulling it", path, project)
            _pull(root, path, md5, missing)


def _pull(root: Path, path: str, md5: str, missing: NotFound) -> None:
    pointer = root / f"{path}.dvc"
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.write_text(yaml.safe_dump({"outs": [{"md5": md5, "hash": "md5", "path": Path(path).name}]}), encoding="utf-8")
    try:
        dvc(["pull", str(pointer.relative_to(root))], root, what=f"dvc pull {path}", level=logging.DEBUG)
    except RetuneError as error:
        raise NotFound(f"{missing}. Pulling {path} failed: {error}") from None
    finally:
        pointer.unlink()
        (pointer.parent / ".gitignore").unlink(missing_ok=True)
