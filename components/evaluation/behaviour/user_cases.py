"""Read a user's behaviour cases from a YAML file and check them like params.yaml.

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
    """Two texts with the same answer, or word replacements in any text."""

    name: str = Field("", description="name in the report")
    text: str | None = Field(None, min_length=1, description="a text")
    changed: str | None = Field(None, min_length=1, description="a text that must get the same answer")
    replace: tuple[tuple[str, str], ...] = Field(
        (), description="pairs of words, from and to: a test row must keep its answer after the replacement"
    )

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        texts = [self.text, self.changed]
        if bool(self.replace) == any(texts) or (any(texts) and not all(texts)):
            raise ValueError("expected `text` and `changed`, or `replace` alone")
        if any(not old.strip() for old, _ in self.replace):
            raise ValueError("`replace` cannot replace an empty text; expected pairs as [[from, to]]")
        return self


class Directional(Section):
    """Two texts between which the probability of a label must move."""

    name: str = Field("", description="name in the report")
    text: str = Field(min_length=1, description="a text")
    changed: str = Field(min_length=1, description="the text after the change")
    label: Label = Field(description="label whose probability must move")
    must: Must = Field(description="rise | fall | not rise | not fall, from `text` to `changed`")
    by: float = Field(0.0, ge=0, le=1, description="rise and fall: by at least this; not rise and not fall: by at most this")


class MinimumFunctionality(Section):
    """A text with a label that every model must predict."""

    name: str = Field("", description="name in the report")
    text: str = Field(min_length=1, description="a text")
    label: Label = Field(description="expected label")


class UserCases(Section):
    """The cases of a user's file, in file order; empty without a file."""

    invariance: tuple[Invariance, ...] = Field((), description="the answer must stay the same")
    directional: tuple[Directional, ...] = Field((), description="the probability of a label must move")
    minimum_functionality: tuple[MinimumFunctionality, ...] = Field((), description="what every model must know")


_CASES: dict[str, type[Section]] = {"invariance": Invariance, "directional": Directional, "minimum_functionality": MinimumFunctionality}


def read_cases(path: Path, labels: Sequence[str] | None = None) -> UserCases:
    """Read and check a user's cases; `labels` are the allowed labels, None to allow any.

    Raises:
        BadParams: the file is missing, is not YAML, or contains no cases; or lists every fault with the number of its case, from 1.
    """
    raw = _mapping(path)
    faults: list[str] = []
    for name in raw:
        if name not in _CASES:
            faults.append(f"{name} is not a type of case{nearest(str(name), list(_CASES))}")
        elif raw[name] is not None and not isinstance(raw[name], list):
            faults.append(f"{name}: expected a list of cases, found {type(raw[name]).__name__}")
    sections = {name: raw[name] for name in _CASES if isinstance(raw.get(name), list)}
    if not faults and not any(sections.values()):
        faults.append("no cases; expected a list under " + ", ".join(_CASES) + ', or gates.behaviour.cases: ""')
    read: dict[str, list[Section]] = {name: [] for name in sections}
    for name, cases in sections.items():
        for number, case in enumerate(cases, 1):
            parsed, case_faults = _parse(_CASES[name], case, f"{name} case {number}", labels)
            read[name] += parsed
            faults += case_faults
    if faults:
        raise BadParams("\n".join(f"{path}: {fault}" for fault in faults))
    return UserCases.model_validate({name: tuple(cases) for name, cases in read.items()})


def _mapping(path: Path) -> dict[Any, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadParams(f'{path} (gates.behaviour.cases) cannot be read: {error.strerror}; create it, or set it to ""') from None
    raw = parse_yaml(content, path)
    if raw is not None and not isinstance(raw, dict):
        raise BadParams(f"{path}: expected a mapping with {', '.join(_CASES)}, found {type(raw).__name__}")
    return raw or {}


def _parse(section: type[Section], raw: object, where: str, labels: Sequence[str] | None) -> tuple[list[Section], list[str]]:
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
