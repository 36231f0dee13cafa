"""A person's no is about the verdict, whatever numbers its versions have by now. No model is loaded here."""

import pytest
from mlflow import MlflowClient

from components.artifacts.verdict import Outcome
from components.core.errors import BadInput
from components.mlflow_store.registry import Environment
from components.mlflow_store.registry.versions import COMPLETE, KEY
from flows.production import promotion
from tests.unit.mlflow_store.test_promotion_decisions import NAME, aliases, judge, place, version, wait

__all__ = ["place"]  # a fixture


def test_a_persons_no_outlasts_the_champion_being_registered_again_under_another_number(place: Environment) -> None:
    promotion.promote(place, NAME, 1, who="ada", why="so", force=True)
    rejected = wait(place, 3, Outcome.PASS)
    promotion.reject(place, rejected.run, who="bob", why="it is harmful")
    client = MlflowClient(place.mlflow)
    client.delete_model_version(NAME, "1")
    client.create_model_version(NAME, "file:///nowhere", version(place, 2).run_id, tags={KEY: "k1", COMPLETE: "true"})
    again = judge(place, 3, champion="4")  # the verdict that stands, as a run attaches it with today's number of the champion
    assert (again.key, again.evidence != rejected.evidence) == (rejected.verdict_key, True)

    with pytest.raises(BadInput, match="bob rejected version 3 of tickets on this evidence: it is harmful"):
        promotion.promote(place, NAME, 3, who="ada")
    with pytest.raises(BadInput, match="bob rejected"):  # as a run, which asks the ledger alone
        promotion.registry.promote(
            place.mlflow, place.ledger, NAME, 3, expected=4, who="retune run", why=again.reason, evidence=again.evidence
        )
    promotion.bring(place, NAME)
    assert (version(place, 3).answer, aliases(place)) == ("rejected by bob: it is harmful", {"champion": 4})
