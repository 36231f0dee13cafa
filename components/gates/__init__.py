"""Gates between a candidate and production: one file per gate, found by name; `components.judge` combines them into a verdict.

Gates are pure functions of the evidence. A file `NAME.py` defines `Params` (section `gates.NAME` of params.yaml), `decide`, and
optionally `NEEDS`; see docs/add-a-gate.md.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from pydantic import Field, create_model

from components.artifacts.verdict import Role
from components.core import plugins
from components.core.section import Section
from components.gates.support.evidence import Gate
from components.gates.support.evidence_settings import EVIDENCE_SETTINGS

FOLDER = Path(__file__).parent
Settings = TypeVar("Settings", bound=Section)


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


def settings_of(gates: GatesParams, kind: type[Settings]) -> tuple[str, Settings]:
    """Return the gate whose settings of `kind` (one of `EVIDENCE_SETTINGS`) apply, and its section.

    An enabled gate comes before one that is off. If no gate has such settings, the name is empty and the defaults apply.
    """
    sections = [(name, section) for name in _enabled_first(gates) if isinstance(section := getattr(gates, name), kind)]
    return sections[0] if sections else ("", kind())


def conflicts(gates: GatesParams) -> Iterator[str]:
    """Yield the settings of evidence in which two enabled gates differ, since the evidence is gathered once."""
    for kind in EVIDENCE_SETTINGS:
        first, *others = [name for name in available() if is_enabled(gates, name) and isinstance(getattr(gates, name), kind)] or [""]
        for name, setting in ((name, setting) for name in others for setting in kind.model_fields):
            one, other = (getattr(getattr(gates, gate), setting) for gate in (first, name))
            if one != other:
                yield f"{name}.{setting}: expected {one!r} as in gates.{first}, because both gates use the same evidence, found {other!r}"


def _enabled_first(gates: GatesParams) -> list[str]:
    return sorted(available(), key=lambda name: not is_enabled(gates, name))


def needs(gates: GatesParams) -> frozenset[str]:
    """Return the fields of `Evidence` that the enabled gates declare in `NEEDS`."""
    return frozenset().union(*(getattr(load(name), "NEEDS", ()) for name in available() if is_enabled(gates, name)))
