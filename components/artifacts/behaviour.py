"""`behaviour.json`: what the candidate and the champion answered to texts that were changed, or written, on purpose."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from components.artifacts.base import Artifact

Must = Literal["rise", "fall", "not rise", "not fall"]


class Case(BaseModel):
    """A text whose answer says how a model behaves; cases of the same `group` depend on each other.

    Without `label` the answer to `changed` must be that to `text` (invariance). With `label` and `must` the label's probability must
    move so from `text` to `changed`: rise and fall by at least `by`, not rise and not fall by at most `by` (directional). With `label`
    alone it must be the answer to `changed`, and `text` is None (minimum functionality).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    name: str
    group: str
    text: str | None
    changed: str
    label: str | None = None
    must: Must | None = None
    by: float = 0.0


class CaseReply(BaseModel):
    """A model's answers `before` and `after` the change; the probabilities are those of the case's label, None where it has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    before: str | None
    after: str
    probability_before: float | None
    probability_after: float | None
    failed: bool


class Tried(BaseModel):
    """A case and how it went; `champion` is None where there is none, or where it does not know the label."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    case: Case
    candidate: CaseReply
    champion: CaseReply | None = None


class Behaviour(Artifact):
    """Every case that was tried; `notes` name those of the user that could not be made."""

    FILE: ClassVar[str] = "behaviour.json"

    tried: tuple[Tried, ...] = ()
    notes: tuple[str, ...] = ()
