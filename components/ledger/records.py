"""What the ledger holds: a promotion as an entry, an approval as a request and its answer."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NotRequired, TypedDict

from components.core.errors import RetuneError

Action = Literal["promoted", "rolled back", "adopted"]
Answer = Literal["approved", "rejected", "superseded"]


class StaleVerdict(RetuneError):
    """The champion is another one than was decided about; nothing was written, and to try the same again does not mend it."""

    def __init__(self, expected: int | None, found: int | None, action: Action = "promoted") -> None:
        about = f"version {expected}" if expected is not None else "no champion"
        now = f"{found}" if found is not None else "nobody"
        if action == "rolled back":
            super().__init__(f"the rollback is from {about}, champion is now {now}: look again, and roll back from that one if it must be")
        else:
            super().__init__(f"verdict is about {about}, champion is now {now}: judge again")
        self.expected, self.found = expected, found


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A change of champion: `version` took the place of `previous`, and `sequence` counts the model's changes from 1.

    `key` is the candidate's key, which names the same model in every registry. `anchor` is the best champion so far. `evidence` is the
    digest of the verdict that `outcome` is of; both are None where nobody judged. `origin` names the environment a copy came from.
    """

    model: str
    sequence: int
    at: datetime
    action: Action
    version: int
    key: str
    previous: int | None
    anchor: int | None = None
    verdict_key: str | None = None
    outcome: str | None = None
    evidence: str | None = None
    forced: bool = False
    who: str
    why: str
    origin: str | None = None


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How a scheduled run ended: the verdict's outcome, `skipped` where there was nothing to do, or `failed`.

    `basis` is a hash of the code, the settings and the base models that it ran with, from the commit `git_commit`.
    """

    model: str
    at: datetime
    outcome: str
    reason: str
    version: int | None = None
    basis: str
    git_commit: str
    flow_run: str | None = None


class Change(TypedDict):
    """What the writer of an entry decides; the ledger adds sequence, time and predecessor. The fields are those of Entry."""

    action: Action
    version: int
    key: str
    who: str
    why: str
    anchor: NotRequired[int | None]
    verdict_key: NotRequired[str | None]
    outcome: NotRequired[str | None]
    evidence: NotRequired[str | None]
    forced: NotRequired[bool]
    origin: NotRequired[str | None]


@dataclass(frozen=True)
class Request:
    """A verdict that waits for a person, bound to its evidence and to the champion that it was about (`expected`).

    `run` is the id of the MLflow run. The last four fields are the answer: None while there is none.
    """

    run: str
    model: str
    version: int
    expected: int | None
    anchor: int | None
    verdict_key: str | None
    outcome: str
    evidence: str
    reason: str
    asked_at: datetime
    expires_at: datetime
    decision: Answer | None = None
    who: str | None = None
    why: str | None = None
    decided_at: datetime | None = None

    def expired(self, now: datetime | None = None) -> bool:
        """Say whether its time passed without an answer."""
        return self.decision is None and self.expires_at <= (now or datetime.now(UTC))

    def rejects(self, verdict_key: str | None) -> bool:
        """Say whether a person said no to the verdict of this key, whatever numbers the versions in it have by now."""
        return self.decision == "rejected" and self.verdict_key is not None and self.verdict_key == verdict_key

    def refusal(self) -> str:
        """Return why what a person rejected is not promoted."""
        return (
            f"{self.who} rejected version {self.version} of {self.model} on this evidence: {self.why}; "
            'only a verdict on another champion, test set or gates, or --force --why "…", overrules that'
        )

    def waits(self, now: datetime | None = None) -> bool:
        """Say whether it still can be answered."""
        return self.decision is None and not self.expired(now)
