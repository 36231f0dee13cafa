"""A little data and a tiny base for each task, on which the tests of all tasks run; one module a task."""

import importlib
from pathlib import Path

from tests.support.pipeline import Case


def make(task: str, folder: Path) -> Case:
    """Return the case of `task`, its base model made in `folder`."""
    case: Case = importlib.import_module(f"tests.support.cases.{task}").make(folder)
    return case
