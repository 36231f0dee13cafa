"""The base of every settings section: frozen, complete, unknown keys refused with the nearest known one.

Each step owns its own section and sees no other; `flows/params.py` composes them into the whole of `params.yaml`.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from components.errors import BadParams


class Section(BaseModel):
    """A frozen group of settings; every field has a description, a unit where it has one, and a bound where it needs one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, raw: object, where: str) -> Self:
        """Make the section from the plain value found at `where` in params.yaml.

        Raises:
            BadParams: with every fault of the section in one message.
        """
        try:
            return cls.model_validate({} if raw is None else raw)
        except ValidationError as error:
            raise BadParams("\n".join(_fault(cls, where, detail) for detail in error.errors())) from None


class Free(Section):
    """A section whose fields somebody else knows, as a task knows its own; `fields` are the plain values."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    @property
    def fields(self) -> dict[str, Any]:
        """The values as they are written."""
        return dict(self.model_extra or {})


NOTHING = Free()


def nearest(name: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or the list of known names; nothing where none is known."""
    if not known:
        return ""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _fault(section: type[BaseModel], where: str, detail: ErrorDetails) -> str:
    path = ".".join(part for part in (where, *map(str, detail["loc"])) if part)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(section, detail["loc"][:-1])
        return f"params.yaml: {path} is not a setting{nearest(str(detail['loc'][-1]), known)}"
    reason = detail["msg"].removeprefix("Value error, ")
    return f"params.yaml: {path}: {reason[:1].lower()}{reason[1:]}, found {_short(detail['input'])}"


def _fields_at(section: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the names of the settings at `path` below `section`, as they are written in params.yaml."""
    parts = iter(path)
    for part in parts:
        field = next((f for name, f in section.model_fields.items() if part in (name, f.alias)), None)
        inner = getattr(field, "annotation", None)
        if get_origin(inner) is dict:  # a mapping of sections: the next part is a key of it
            next(parts, None)
            inner = get_args(inner)[1]
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        section = inner
    return [field.alias or name for name, field in section.model_fields.items()]


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, value)) or 'no keys'}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
