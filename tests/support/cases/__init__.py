"""Small data sets and tiny base models for the tests of all tasks; one module per task."""

import importlib
from pathlib import Path

from tests.support.pipeline import Case


def make(task: str, folder: Path) -> Case:
    """Return the case of `task` with its base model in `folder`."""
    case: Case = importlib.import_module(f"tests.support.cases.{task}").make(folder)
    return case
