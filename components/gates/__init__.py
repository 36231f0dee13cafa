"""Gates between a candidate and production: one file per gate, found by name; `components.judge` combines them into a verdict.

Gates are pure functions of the evidence. A file `NAME.py` defines `Params` (section `gates.NAME` of params.yaml), `decide`, and
optionally `NEEDS`; see docs/add-a-gate.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field, create_model

from components.artifacts.verdict import Role
from components.core import plugins
from components.core.section import Section
from components.gates.support.evidence import Gate

FOLDER = Path(__file__).parent


def available() -> list[str]:
    """Return the names of all gates, sorted."""
    return plugins.names(FOLDER)


def load(name: str) -> Gate:
    """Return the gate `name`.

    Raises:
        BadParams: this gate does not exist.
    """
    return cast(Gate, plugins.load(__name__, name, available(), "gate"))


def _sections() -> Any:
    fields: dict[str, Any] = {}
    for name in available():
        params = load(name).Params
        fields[name] = (params, Field(default_factory=params, description=str(params.__doc__).splitlines()[0]))
    return create_model("_Sections", __base__=Section, **fields)


class GatesParams(_sections()):  # type: ignore[misc]
    """Gates that decide whether the candidate replaces the champion: one section per gate."""

    renamed: ClassVar[Mapping[str, str]] = {"looks": "test_budget", "anchor": "best_champion"}


def is_enabled(gates: GatesParams, name: str) -> bool:
    """Return whether the role of a gate is not `off`."""
    return getattr(gates, name).role is not Role.OFF


def needs(gates: GatesParams) -> frozenset[str]:
    """Return the fields of `Evidence` that the enabled gates declare in `NEEDS`."""
    return frozenset().union(*(getattr(load(name), "NEEDS", ()) for name in available() if is_enabled(gates, name)))
