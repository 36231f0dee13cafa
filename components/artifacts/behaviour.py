"""`behaviour.json`: answers of candidate and champion to behavioural test cases."""

from typing import Literal

from components.artifacts.base import Artifact, Record

Must = Literal["rise", "fall", "not rise", "not fall"]


class Case(Record):
    """A behavioural test case; cases of the same `group` depend on each other.

    Invariance (no `label`): the answers to `text` and `changed` must be equal. Directional (`label` and `must`): from `text` to
    `changed` the probability of the label must rise or fall by at least `by`, or not rise or not fall by more than `by`. Minimum
    functionality (`label` only): the answer to `changed` must be the label; `text` is None.
    """

    kind: str
    name: str
    group: str
    text: str | None
    changed: str
    label: str | None = None
    must: Must | None = None
    by: float = 0.0


class CaseReply(Record):
    """The answers `before` and `after` the change, with the probabilities of the case's label (None without a label)."""

    before: str | None
    after: str
    probability_before: float | None
    probability_after: float | None
    failed: bool


class CaseResult(Record):
    """The result of a case; `champion` is None if there is no champion or it does not know the label."""

    case: Case
    candidate: CaseReply
    champion: CaseReply | None = None


class Behaviour(Artifact):
    """The results of all cases; `notes` name user cases that could not be run."""

    FILE = "behaviour.json"

    tried: tuple[CaseResult, ...] = ()
    notes: tuple[str, ...] = ()
