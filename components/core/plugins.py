"""Discover and load plug-ins: the files or packages of one folder, found by name, with no list to edit."""

import importlib
from pathlib import Path
from typing import Any

from components.core.errors import BadParams
from components.core.section import did_you_mean


def names(folder: Path, packages: bool = False) -> list[str]:
    """Return the sorted names of the modules in `folder`, or of its packages; names with a leading underscore are skipped."""
    if packages:
        return sorted(path.parent.name for path in folder.glob("[!_]*/__init__.py"))
    return sorted(path.stem for path in folder.glob("[!_]*.py"))


def load(package: str, name: str, available: list[str], noun: str) -> Any:
    """Import the module `name` of `package`.

    Raises:
        BadParams: `name` is not in `available`.
    """
    if name not in available:
        raise BadParams(unknown(package, name, available, noun))
    return importlib.import_module(f"{package}.{name}")


def unknown(package: str, name: str, available: list[str], noun: str) -> str:
    """Return the message for an unknown plug-in, with the available names and the closest one."""
    return f"unknown {noun} {name!r}; {package.replace('.', '/')} has: {', '.join(available)}{did_you_mean(name, available)}"
