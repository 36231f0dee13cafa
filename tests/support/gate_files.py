"""A gate of the user: a file beside the shipped gates, for one test."""

import sys
from pathlib import Path
from typing import Any

import pytest

from components import gates


def add_gate(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> Any:
    """Write the gate `name` to a folder with links to the shipped gates; return the settings class of all gates."""
    folder.mkdir()
    for file in gates.FOLDER.glob("[!_]*.py"):
        (folder / file.name).symlink_to(file)
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(gates, "FOLDER", folder)
    monkeypatch.setattr(gates, "__path__", [*gates.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, f"{gates.__name__}.{name}", raising=False)
    monkeypatch.setattr(gates, name, None, raising=False)  # so that the imported module does not stay
    return gates._sections()
