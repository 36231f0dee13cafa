"""The story that Prefect's page tells with a form: a person decides about a run that waits.

`make ui` serves it as the deployment `decide`. Prefect is imported here at once: only the process that serves it reads this file.
"""

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.orchestrator import prefect_adapter
from flows.production import promotion

Run = Annotated[str, Field(min_length=4, description="the beginning of the waiting run's id in MLflow; `retune status` shows it")]
Decision = Annotated[Literal["approve", "reject"], Field(description="approve promotes the version, reject keeps the champion")]
Why = Annotated[str, Field(min_length=1, description="the reason; the ledger keeps it")]

DECIDE = {"approve": promotion.approve, "reject": promotion.reject}


@flow(persist_result=False)
def decide(run: Run, decision: Decision, why: Why) -> None:
    """Promote the version of a run that waits for a person, or turn it down.

    Prefect's own server knows no accounts: the ledger names who serves this form, and that the decision came through it.
    """
    with prefect_adapter.joined():
        DECIDE[decision](promotion.environment(), run, who=f"{promotion.person()} (Prefect)", why=why)
