"""The gates between a candidate and production: one file per gate, found by name; `components.judge` combines them into a verdict.

Pure: reads predictions that others made, writes nothing. A file `NAME.py` here offers `Params`, its section `gates.NAME` of
params.yaml, and `decide`; nothing else needs to change.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import Field, create_model

from components.core import plugins
from components.core.section import Section
from components.gates.support.evidence import LEVEL, Evidence, Gate, GateSection, ReferenceModel, TrainingRows
from components.gates.support.learned_rows import measure_exposure, without_learned_rows

__all__ = [
    "LEVEL",
    "Evidence",
    "Gate",
    "GateSection",
    "GatesParams",
    "ReferenceModel",
    "TrainingRows",
    "available",
    "load",
    "measure_exposure",
    "without_learned_rows",
]

FOLDER = Path(__file__).parent


def available() -> list[str]:
    """Return the names of all gates, sorted: the files of this folder."""
    return plugins.names(FOLDER)


def load(name: str) -> Gate:
    """Return the gate called `name`.

    Raises:
        BadParams: the file does not exist.
    """
    return cast(Gate, plugins.load(__name__, name, available(), "gate"))


def _sections() -> Any:
    """Return a section with one field a gate, so that a gate's settings stand at gates.NAME without a list to edit."""
    fields: dict[str, Any] = {}
    for name in available():
        params = load(name).Params
        fields[name] = (params, Field(default_factory=params, description=str(params.__doc__).splitlines()[0]))
    return create_model("_Sections", __base__=Section, **fields)


class GatesParams(_sections()):  # type: ignore[misc]
    """Who decides whether the candidate replaces the champion: one section a gate."""

    renamed: ClassVar[Mapping[str, str]] = {"looks": "test_budget", "anchor": "best_champion"}
