"""A person's rejection applies to the verdict, even if the versions have other numbers now. No model is loaded here."""

import pytest
from mlflow import MlflowClient

from components.artifacts.verdict import Outcome
from components.core.errors import BadInput
from components.mlflow_store.registry import Environment
from components.mlflow_store.registry.versions import COMPLETE, KEY
from flows.production import promotion
from tests.support.promotion import NAME, aliases, find, judge, judge_and_request


@pytest.mark.slow
def test_rejection_survives_reregistered_champion(environment: Environment) -> None:
    promotion.promote(environment, NAME, 1, who="ada", why="so", force=True)
    rejected = judge_and_request(environment, 3, Outcome.PASS)
    promotion.reject(environment, rejected.run, who="bob", why="it is harmful")
    client = MlflowClient(environment.mlflow)
    client.delete_model_version(NAME, "1")
    client.create_model_version(NAME, "file:///nowhere", find(environment, 2).run_id, tags={KEY: "k1", COMPLETE: "true"})
    again = judge(environment, 3, champion=4)  # the same verdict, with the champion's present number
    assert (again.key, again.evidence != rejected.evidence) == (rejected.verdict_key, True)

    with pytest.raises(BadInput, match="bob rejected version 3 of tickets on this evidence: it is harmful"):
        promotion.promote(environment, NAME, 3, who="ada")
    decision = promotion.registry.Decision(4, "retune run", again.reason, evidence=again.evidence)
    with pytest.raises(BadInput, match="bob rejected"):  # like a run, which checks only the ledger
        promotion.registry.promote(environment.mlflow, environment.ledger, NAME, 3, decision)
    promotion.sync_registry(environment, NAME)
    assert (find(environment, 3).answer, aliases(environment.mlflow)) == ("rejected by bob: it is harmful", {"champion": 4})
