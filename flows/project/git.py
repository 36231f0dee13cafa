"""Git commands. Errors have git's own message; a missing repository or commit is not an error."""

import os
import subprocess
from pathlib import Path

from components.core.errors import RetuneError
from components.core.process import inherited_environment

NO_GIT = "none"  # the commit of a project without git (DVC's core.no_scm)
_UNBORN = "does not have any commits yet"


def git(folder: Path, *arguments: str, stdin: str | None = None) -> str:
    """Run git in `folder` without the repository's hooks and return its output; raise RetuneError with git's message if it fails."""
    return _run(folder, arguments, stdin).stdout.decode(errors="replace").strip()


def head_commit(folder: Path) -> str:
    """Return the commit of `folder`, empty if there is none; raise RetuneError if git cannot read the repository."""
    if not has_repository(folder):
        return ""
    try:
        return git(folder, "log", "-1", "--format=%H", "--no-show-signature")
    except RetuneError as error:
        if _UNBORN in str(error):
            return ""
        raise


def has_commit(folder: Path, commit: str) -> bool:
    """Return whether the repository of `folder` has a commit; raise RetuneError if git cannot read it."""
    return _run(folder, ("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"), codes=(0, 1)).returncode == 0


def has_repository(folder: Path) -> bool:
    """Return whether `folder` is in a git repository, readable or not."""
    return any(os.path.lexists(parent / ".git") for parent in (folder, *folder.parents))


def prefix(folder: Path) -> str:
    """Return the path of `folder` in its repository; empty at the top."""
    return git(folder, "rev-parse", "--show-prefix")


def no_commit(folder: Path) -> str:
    """Return the message for a project without a commit."""
    first = "" if has_repository(folder) else "git init && "
    return f"{folder} has no git commit to record with a model: `{first}git add --all && git commit -m start`"


def uncommitted(folder: Path) -> bytes:
    """Return `git status` and `git diff HEAD` of `folder`, as bytes that `git apply` accepts."""
    commands = (("status", "--porcelain", "--untracked-files=all", "--", "."), ("diff", "HEAD", "--no-color", "--no-ext-diff", "--", "."))
    return b"\n".join(b"# git " + " ".join(command).encode() + b"\n" + _run(folder, command).stdout for command in commands)


def _run(
    folder: Path, arguments: tuple[str, ...], stdin: str | None = None, codes: tuple[int, ...] = (0,)
) -> "subprocess.CompletedProcess[bytes]":
    """Run git; an exit code that is not in `codes` is an error."""
    try:
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            cwd=folder,
            env=inherited_environment() | {"LC_ALL": "C.UTF-8"},
            input=None if stdin is None else stdin.encode(),
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise RetuneError(f"git cannot be run in {folder}: {error.strerror}: {error.filename}; is git installed, and on PATH?") from None
    if done.returncode not in codes:
        message = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise RetuneError(f"git {' '.join(arguments[:2])} failed in {folder}: {message}")
    return done
