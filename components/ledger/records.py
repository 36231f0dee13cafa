"""Records of the ledger: promotions as entries, approvals as requests with answers, and scheduled runs.

Their fields are the columns of the tables.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NotRequired, TypedDict

from components.core.errors import RetuneError

Action = Literal["promoted", "rolled back", "adopted"]
Answer = Literal["approved", "rejected", "superseded"]
Expected = int | Literal["any"] | None
"""The champion that a change replaces: its version, None for no champion, or any."""


class StaleVerdict(RetuneError):
    """The champion changed since the decision; nothing was written, and a retry does not help."""

    def __init__(self, expected: int | None, found: int | None, action: Action = "promoted") -> None:
        reference = f"version {expected}" if expected is not None else "no champion"
        now = f"champion is now {'none' if found is None else found}"
        if action == "rolled back":
            super().__init__(f"the rollback is from {reference}, {now}: check again, and roll back from that version if needed")
        else:
            super().__init__(f"verdict is about {reference}, {now}: judge again")
        self.expected, self.found = expected, found


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A change of champion: `version` replaced `previous`; `sequence` counts the changes of the model from 1.

    `key` identifies the same candidate in every registry. `anchor` is the best champion so far. `evidence` is the digest of the verdict
    with `outcome`; both are None without a verdict. `origin` is the environment that a copy came from.
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


def check_expected(expected: Expected, head: Entry | None, action: Action) -> None:
    """Raise StaleVerdict if the champion, the version of `head`, is not the expected one."""
    champion = head.version if head else None
    if expected != "any" and expected != champion:
        raise StaleVerdict(expected, champion, action)


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """The result of a scheduled run; `outcome` is that of the verdict, `skipped` or `failed`.

    `basis` is a hash of code, settings and base models, at the commit `git_commit`.
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
    """The fields of Entry that its writer sets; the ledger adds sequence, time and predecessor."""

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
    """A request for approval of a verdict, bound to its evidence and to the champion at that time (`expected`).

    `run` is the id of the MLflow run. The last four fields are the answer, None before it.
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

    def expired(self) -> bool:
        """Return whether it expired without an answer."""
        return self.decision is None and self.expires_at <= datetime.now(UTC)

    def rejects(self, verdict_key: str | None) -> bool:
        """Return whether a person rejected the verdict with this key, regardless of version numbers."""
        return self.decision == "rejected" and self.verdict_key is not None and self.verdict_key == verdict_key

    def refusal(self) -> str:
        """Return why the rejected version cannot be promoted."""
        return (
            f"{self.who} rejected version {self.version} of {self.model} on this evidence: {self.why}; "
            'a verdict on another champion, test set or gates overrides that, or --force --why "…"'
        )

    def is_open(self) -> bool:
        """Return whether it can still be answered."""
        return self.decision is None and not self.expired()
