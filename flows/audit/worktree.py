"""A folder apart, in which a version is made again: a git worktree at the commit, with a cache and a state of its own.

Nothing that runs in it reaches the project's registry, its searches, or its DVC cache, which is only read.
"""

import configparser
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from components.errors import BadInput, NotThere, RetuneError
from flows.dvc import cached_folder, dvc
from flows.lineage import NO_GIT, git

log = logging.getLogger(__name__)


@contextmanager
def worktree(project: Path, commit: str, keep: Path | None = None) -> Iterator[Path]:
    """Yield a folder with the files of `commit`; it is removed however the block ends, unless it is the folder `keep`.

    Raises:
        NotThere: the commit is not in the project's repository.
        BadInput: `keep` is a folder that holds something.
    """
    if commit in ("", NO_GIT):
        raise NotThere("the version was made without a git commit, so there is no code that it could be made again from")
    if not git(project, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
        raise NotThere(f"commit {commit[:12]} is not in the repository of {project}: `git fetch` it from where the version was made")
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise BadInput(f"{keep} is not empty: name a folder that is not there yet")
    home = Path(tempfile.mkdtemp(prefix="retune-rebuild-")) if keep is None else keep.resolve().parent
    root = home / "retune-rebuild" if keep is None else keep.resolve()
    try:
        _git(project, "worktree", "add", "--quiet", "--detach", str(root), commit)
        yield root
    finally:
        if keep is None:
            git(project, "worktree", "remove", "--force", str(root))
            shutil.rmtree(home, ignore_errors=True)


def furnish(root: Path, project: Path) -> None:
    """Give the folder a DVC of its own: no git, an empty cache, the project's remotes."""
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read([project / ".dvc/config", project / ".dvc/config.local"], encoding="utf-8")
    for section in [name for name in config.sections() if name not in ("core",) and not name.startswith("'remote")]:
        config.remove_section(section)
    for section in [name for name in config.sections() if name != "core"]:
        url = config.get(section, "url", fallback="")
        if url and "://" not in url:
            config.set(section, "url", str((project / ".dvc" / url).resolve()))
    config.read_dict(
        {"core": {"no_scm": "true", "analytics": "false", "check_update": "false"}, "cache": {"dir": str(root / ".dvc/cache")}}
    )
    shutil.rmtree(root / ".dvc", ignore_errors=True)
    (root / ".dvc/tmp").mkdir(parents=True)
    with (root / ".dvc/config").open("w", encoding="utf-8") as file:
        config.write(file)


def bring(root: Path, project: Path, inputs: Mapping[str, str]) -> None:
    """Lay DVC's folders `inputs` (path to md5) into `root`: from the project's cache, else from its remote.

    Raises:
        NotThere: neither has them.
    """
    for path, md5 in inputs.items():
        try:
            cached_folder(project, md5, root / path)
        except NotThere as gone:
            log.info("%s is not in the cache of %s: pulling it", path, project)
            _pull(root, path, md5, gone)


def _pull(root: Path, path: str, md5: str, gone: NotThere) -> None:
    pointer = root / f"{path}.dvc"
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.write_text(yaml.safe_dump({"outs": [{"md5": md5, "hash": "md5", "path": Path(path).name}]}), encoding="utf-8")
    try:
        dvc(["pull", str(pointer.relative_to(root))], root, what=f"dvc pull {path}", level=logging.DEBUG)
    except RetuneError as error:
        raise NotThere(f"{gone}. Pulling {path} failed: {error}") from None
    finally:
        pointer.unlink()
        (pointer.parent / ".gitignore").unlink(missing_ok=True)


def _git(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["git", "-c", "core.hooksPath=/dev/null", *arguments], cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise RetuneError(f"git {' '.join(arguments[:2])} failed in {folder}: {done.stderr.strip() or done.returncode}")
