"""Questions to git and work for it. Whatever fails is told in git's own words; no repository, and no commit yet, are no failures."""

import os
import subprocess
from pathlib import Path

from components.core.errors import RetuneError
from components.core.process import inherited_environment

NO_GIT = "none"  # the commit of a project that keeps no history on purpose (DVC's core.no_scm)
_UNBORN = "does not have any commits yet"


def git(folder: Path, *arguments: str, said: str | None = None) -> str:
    """Let git answer or do something in `folder`, without the repository's hooks; return what it prints. `said` is its input.

    Raises:
        RetuneError: git failed or is not installed; the message is git's.
    """
    return _output(folder, arguments, said).decode(errors="replace").strip()


def head_commit(folder: Path) -> str:
    """Return the commit that `folder` is at, or nothing where there is no repository, or no commit in it yet.

    Raises:
        RetuneError: there is a repository, and git cannot read it.
    """
    if not has_repository(folder):
        return ""
    arguments = ("-c", "log.showSignature=false", "log", "-1", "--format=%H")
    done = _run(folder, arguments)
    if done.returncode != 0 and _UNBORN not in done.stderr.decode(errors="replace"):
        raise _failed(folder, arguments[2:], done)
    return done.stdout.decode(errors="replace").strip()


def has_commit(folder: Path, commit: str) -> bool:
    """Say whether the repository of `folder` has a commit.

    Raises:
        RetuneError: git cannot read the repository, or there is none.
    """
    arguments = ("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    done = _run(folder, arguments)
    if done.returncode not in (0, 1):
        raise _failed(folder, arguments, done)
    return done.returncode == 0


def has_repository(folder: Path) -> bool:
    """Say whether `folder` is in a git repository, sound or not."""
    return any(os.path.lexists(place / ".git") for place in (folder, *folder.parents))


def prefix(folder: Path) -> str:
    """Return where `folder` lies in its repository; nothing at the top."""
    return git(folder, "rev-parse", "--show-prefix")


def no_commit(folder: Path) -> str:
    """Return the message for a project without a commit."""
    first = "" if has_repository(folder) else "git init && "
    return f"{folder} has no git commit that a model could lead back to: `{first}git add --all && git commit -m start`"


def uncommitted(folder: Path) -> bytes:
    """Return `git status` and `git diff HEAD` of `folder`, byte for byte: `git apply` takes the difference."""
    commands = (("status", "--porcelain", "--", "."), ("diff", "HEAD", "--no-color", "--no-ext-diff", "--", "."))
    return b"\n".join(b"# git " + " ".join(command).encode() + b"\n" + _output(folder, command) for command in commands)


def _output(folder: Path, arguments: tuple[str, ...], said: str | None = None) -> bytes:
    done = _run(folder, arguments, said)
    if done.returncode != 0:
        raise _failed(folder, arguments, done)
    return done.stdout


def _run(folder: Path, arguments: tuple[str, ...], said: str | None = None) -> "subprocess.CompletedProcess[bytes]":
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=inherited_environment() | {"LC_ALL": "C.UTF-8"},
            input=None if said is None else said.encode(),
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise RetuneError(f"git cannot be run in {folder}: {error.strerror}: {error.filename}; is git installed, and on PATH?") from None


def _failed(folder: Path, arguments: tuple[str, ...], done: "subprocess.CompletedProcess[bytes]") -> RetuneError:
    says = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
    return RetuneError(f"git {' '.join(arguments[:2])} failed in {folder}: {says}")
