"""The base class of all settings sections: frozen, strict, and unknown keys are errors that suggest the closest known key.

Each step has its own section; `flows/project/params.py` combines them to `params.yaml`.
"""

import logging
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from functools import cache, partial
from itertools import islice
from reprlib import Repr
from typing import Any, ClassVar, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from components.core.errors import BadParams, listed, shorten

log = logging.getLogger(__name__)

_KNOWN, _LONG = 30, 100  # limits: names listed in a message, characters of a name
_EXPECTED = {  # by pydantic error type
    "string_type": "expected a text",
    "bool_type": "expected true or false, without quotes",
    "tuple_type": "expected a list, e.g. [a, b]",
    "list_type": "expected a list, e.g. [a, b]",
    "dict_type": "expected a mapping, e.g. {a: b}",
}
_NO_SCHEMAS = ("default", "metadata", "serialization")  # parts of a schema that are values


def _literal(value: object, expected: str) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected {expected}, not a boolean")
    if isinstance(value, str | bytes):
        raise ValueError(f"expected {expected}, not a text; {_number_hint(value)}")
    return value


def _number_hint(text: str | bytes) -> str:
    try:
        float(text)
    except ValueError:
        return "write digits with a dot and no comma, e.g. 0.5 or 1e-4"
    return "leave the quotes out"


_LITERAL = {"int": partial(_literal, expected="an integer"), "float": partial(_literal, expected="a number")}


def _take_literally(part: Any) -> None:
    """Make a schema strict at every depth: booleans and texts are no numbers, and only true and false are booleans."""
    if isinstance(part, list | tuple):
        for item in part:
            _take_literally(item)
    elif isinstance(part, dict):
        if part.get("type") == "bool":
            part["strict"] = True
        elif part.get("type") in ("int", "float"):
            inner = dict(part)
            part.clear()
            part.update(core_schema.no_info_before_validator_function(_LITERAL[inner["type"]], inner))
        elif not _is_ours(part.get("function")):  # else a nested section, which is already strict
            for name, item in part.items():
                if name not in _NO_SCHEMAS:
                    _take_literally(item)


def _is_ours(function: Any) -> bool:
    return isinstance(function, dict) and function.get("function") in _LITERAL.values()


class Section(BaseModel):
    """A frozen group of settings; each field has a description, with unit and bounds if they apply."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Setting names of the previous release, each with the current name."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Allow no conversions between true and 1 or "3" and 3; 3.0 is still 3."""
        schema = handler(source)
        _take_literally(schema)
        return schema

    @classmethod
    def parse(cls, raw: object, where: str) -> Self:
        """Build the section from the value at `where` in params.yaml.

        Raises:
            BadParams: lists every fault of the section.
        """
        try:
            return cls.model_validate(current_names(cls, {} if raw is None else raw, where))
        except ValidationError as error:
            raise BadParams("\n".join(dict.fromkeys(_fault(cls, where, detail) for detail in error.errors()))) from None


class OpenSection(Section):
    """A section whose fields are checked elsewhere, e.g. by the task; `fields` contains the plain values."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    @property
    def fields(self) -> dict[str, Any]:
        """The plain values."""
        return dict(self.model_extra or {})


NOTHING = OpenSection()


def current_names(section: type[BaseModel], raw: Any, where: str) -> Any:
    """Return `raw` with the settings of the previous release renamed; log a warning for each.

    Raises:
        BadParams: both the old and the new name are set.
    """
    if not isinstance(raw, Mapping):
        return raw
    renamed = section.renamed if issubclass(section, Section) else {}
    result: dict[Any, Any] = {}
    for name, value in raw.items():
        new = renamed.get(name, name) if isinstance(name, str) else name
        if new != name:
            if new in raw:
                raise BadParams(f"params.yaml: {where}.{name} is the old name of {where}.{new}, and both are set; remove {name}")
            path = f"{where}." if where else ""
            warn_once(f"params.yaml: {path}{name} is now {path}{new}; the old name works in this release only")
        field = next((field for key, field in section.model_fields.items() if new in (key, field.alias)), None)
        result[new] = _renamed_below(getattr(field, "annotation", None), value, f"{where}.{new}".strip("."))
    return result


def _renamed_below(annotation: Any, value: Any, where: str) -> Any:
    if get_origin(annotation) is dict and isinstance(value, Mapping):
        inner = get_args(annotation)[1]
        return {key: _renamed_below(inner, item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return current_names(annotation, value, where)
    return value


@cache
def warn_once(message: str) -> None:
    """Log a warning the first time it occurs in this process."""
    log.warning("%s", message)


def did_you_mean(name: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or an empty text."""
    close = get_close_matches(name, [text for text in known if len(text) <= _LONG], n=1) if len(name) <= _LONG else []
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest(name: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, else `; known: …`; empty if `known` is empty."""
    if not known:
        return ""
    return did_you_mean(name, known) or f"; known: {listed([shorten(text, _LONG) for text in sorted(known)], _KNOWN)}"


def _fault(section: type[BaseModel], where: str, detail: ErrorDetails) -> str:
    # If a value may have several types, the location also contains the name of our validator.
    parts = (part for part in map(str, detail["loc"]) if not part.startswith("function-before["))
    path = ".".join(part for part in (where, *parts) if part)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(section, detail["loc"][:-1])
        return f"params.yaml: {path} is not a setting{nearest(str(detail['loc'][-1]), known)}"
    reason = _EXPECTED.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    if detail["type"] == "string_type" and isinstance(detail["input"], bool | int | float | date):
        return f"params.yaml: {path}: {reason}, found {_short(detail['input'])}; put it in quotes"
    return f"params.yaml: {path}: {reason[:1].lower()}{reason[1:]}, found {_short(detail['input'])}"


def _fields_at(section: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the setting names at `path` in `section`, as written in params.yaml."""
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


# Shows a value in about 80 characters and reads only the part of it that is shown.
_REPR = Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxdict, _REPR.maxtuple, _REPR.maxset = 2, 5, 5, 5, 5
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 80


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(str(key)[:80] for key in islice(value, 20)) or 'no keys'}{', …' * (len(value) > 20)}"
    return shorten(_REPR.repr(value), 80)
