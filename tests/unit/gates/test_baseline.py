import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.gates import Evidence, baseline
from tests.unit.gates.test_judge import answered


def decided(mine: int, theirs: int, n: int = 600, **settings):
    evidence = Evidence(answered(np.arange(n) < mine), {"tfidf": answered(np.arange(n) < theirs)}, None, None, 10)
    return baseline.decide(evidence, baseline.Params(**settings))


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize(
    ("mine", "outcome"), [(500, Outcome.PASS), (451, Outcome.INCONCLUSIVE), (450, Outcome.INCONCLUSIVE), (400, Outcome.FAIL)]
)
def test_the_candidate_must_be_provably_better(metric, mine, outcome):
    assert decided(mine, 450, metric=metric).outcome is outcome


def test_a_margin_asks_for_more():
    assert decided(500, 450, margin=0.05).outcome is Outcome.PASS
    assert decided(500, 450, margin=0.08).outcome is Outcome.INCONCLUSIVE
    assert decided(500, 450, margin=0.12).outcome is Outcome.FAIL


def test_the_reason_names_baseline_and_setting():
    reason = decided(400, 450, metric="accuracy").reason

    assert reason.startswith("accuracy difference -0.083 is not above gates.baseline.margin 0 over tfidf (90 % interval -0.1")
