"""The flow behind the approval form in Prefect: approve or reject a waiting run.

`make ui` serves it as the deployment `decide`. This module imports Prefect eagerly: only the process that serves the form imports it.
"""

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.orchestrator import prefect_adapter
from flows.production import promotion

Run = Annotated[str, Field(min_length=4, description="the beginning of the waiting run's id in MLflow; `retune status` shows it")]
Decision = Annotated[Literal["approve", "reject"], Field(description="approve promotes the version, reject keeps the champion")]
Why = Annotated[str, Field(min_length=1, description="the reason; recorded in the ledger")]

DECIDE = {"approve": promotion.approve, "reject": promotion.reject}


@flow(persist_result=False)
def decide(run: Run, decision: Decision, why: Why) -> None:
    """Promote or reject the version of a waiting run.

    Prefect's server has no accounts: the ledger records the user who serves this form, and that the decision came through it.
    """
    with prefect_adapter.joined():
        DECIDE[decision](promotion.environment(), run, who=f"{promotion.person()} (Prefect)", why=why)
