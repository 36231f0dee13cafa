"""Questions to git, and what is asked of it that must not fail."""

import subprocess
from pathlib import Path

from components.errors import RetuneError

NO_GIT = "none"  # the commit of a folder without a repository


def git(folder: Path, *arguments: str) -> str:
    """Return what git says, or nothing where there is no git repository or no commit."""
    answer = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def must_git(folder: Path, *arguments: str) -> None:
    """Let git do something, without the repository's hooks.

    Raises:
        RetuneError: it failed; the message is git's.
    """
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise RetuneError(f"git {' '.join(arguments[:2])} failed in {folder}: {done.stderr.strip() or done.returncode}")
