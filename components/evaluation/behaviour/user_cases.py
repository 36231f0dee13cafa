"""The cases that a user wrote: reads a YAML file next to the data, and checks it as params.yaml is checked.

invariance:              # the answer must stay the same
  - {text: Fracture of left femur, changed: Fracture of the left femur}
  - {name: side, replace: [[left, right]]}             # in every test row that holds the word
directional:             # the probability of a label must move
  - {text: …, changed: …, label: Neoplasms, must: rise, by: 0.1}
minimum_functionality:   # what every model must know
  - {text: Cholera, label: Certain infectious and parasitic diseases}
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from components.artifacts.behaviour import Must
from components.core.documents import parse_yaml
from components.core.errors import BadParams
from components.core.section import Section, nearest
from components.core.text import Label


class Invariance(Section):
    """Two texts with one answer, or words that may be replaced in any text."""

    name: str = Field("", description="what the report calls it")
    text: str | None = Field(None, min_length=1, description="a text")
    changed: str | None = Field(None, min_length=1, description="another that must be answered alike")
    replace: tuple[tuple[str, str], ...] = Field(
        (), description="pairs of words, from and to: test rows with the first must be answered alike"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        texts = [self.text, self.changed]
        if bool(self.replace) == any(texts) or (any(texts) and not all(texts)):
            raise ValueError("expected `text` and `changed`, or `replace` alone")
        if any(not old.strip() for old, _ in self.replace):
            raise ValueError("`replace` cannot replace nothing; expected pairs as [[from, to]]")
        return self


class Directional(Section):
    """Two texts between which the probability of a label must move."""

    name: str = Field("", description="what the report calls it")
    text: str = Field(min_length=1, description="a text")
    changed: str = Field(min_length=1, description="the text after the change")
    label: Label = Field(description="whose probability must move")
    must: Must = Field(description="rise | fall | not rise | not fall, from `text` to `changed`")
    by: float = Field(0.0, ge=0, le=1, description="rise and fall: by at least this; not rise and not fall: by at most this")


class MinimumFunctionality(Section):
    """A text with the label that every model must give it."""

    name: str = Field("", description="what the report calls it")
    text: str = Field(min_length=1, description="a text")
    label: Label = Field(description="its answer")


class Written(Section):
    """The cases of a user's file, in its order; all empty where there is no file."""

    invariance: tuple[Invariance, ...] = Field((), description="the answer must stay the same")
    directional: tuple[Directional, ...] = Field((), description="the probability of a label must move")
    minimum_functionality: tuple[MinimumFunctionality, ...] = Field((), description="what every model must know")


_CASES: dict[str, type[Section]] = {"invariance": Invariance, "directional": Directional, "minimum_functionality": MinimumFunctionality}


def read_cases(path: Path, labels: Sequence[str] | None = None) -> Written:
    """Read and check a user's cases; `labels` are those that a case may name, None while they are not known.

    Raises:
        BadParams: the file is missing, is no YAML, holds no case, or with every fault of its cases, each by its number from 1.
    """
    raw = _mapping(path)
    faults: list[str] = []
    for kind in raw:
        if kind not in _CASES:
            faults.append(f"{kind} is not a kind of case{nearest(str(kind), list(_CASES))}")
        elif raw[kind] is not None and not isinstance(raw[kind], list):
            faults.append(f"{kind}: expected a list of cases, found {type(raw[kind]).__name__}")
    cases = {kind: raw[kind] for kind in _CASES if isinstance(raw.get(kind), list)}
    if not faults and not any(cases.values()):
        faults.append("it holds no case; expected a list under " + ", ".join(_CASES) + ', or gates.behaviour.cases: ""')
    read: dict[str, list[Section]] = {kind: [] for kind in cases}
    for kind, found in cases.items():
        for number, case in enumerate(found, 1):
            parsed, wrong = _parse(_CASES[kind], case, f"{kind} case {number}", labels)
            read[kind] += parsed
            faults += wrong
    if faults:
        raise BadParams("\n".join(f"{path}: {fault}" for fault in faults))
    return Written.model_validate({kind: tuple(found) for kind, found in read.items()})


def _mapping(path: Path) -> dict[Any, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadParams(f'{path} (gates.behaviour.cases) cannot be read: {error.strerror}; write it, or set it to ""') from None
    raw = parse_yaml(content, path)
    if raw is not None and not isinstance(raw, dict):
        raise BadParams(f"{path}: expected a mapping with {', '.join(_CASES)}, found {type(raw).__name__}")
    return raw or {}


def _parse(section: type[Section], raw: object, where: str, labels: Sequence[str] | None) -> tuple[list[Section], list[str]]:
    """Return the case, or what is wrong with it."""
    if not isinstance(raw, dict):
        return [], [f"{where}: expected a mapping with {', '.join(section.model_fields)}, found {type(raw).__name__}"]
    try:
        case = section.parse(raw, where)
    except BadParams as error:
        return [], re.sub(r"(?m)^params\.yaml: ", "", str(error)).splitlines()
    label = getattr(case, "label", None)
    if labels is not None and label is not None and label not in labels:
        return [], [f"{where}: unknown label {label!r}{nearest(label, list(labels))}"]
    return [case], []
