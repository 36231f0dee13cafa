import dataclasses

import numpy as np
import pandas as pd
import pytest

from components.artifacts.metrics import MIN_GROUPS
from components.artifacts.past_test_set import PastTestSet, prepare_earlier
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import BadParams
from components.gates import forgetting
from components.gates.forgetting import backward_transfer
from components.gates.support import Evidence, ReferenceModel
from components.stats.means import mean
from components.stats.significance import mcnemar
from components.stats.units import Units
from tests.support.gate_cases import advised, against, answered, decided, models

NOW = answered(np.arange(300) % 4 != 0)


def past_set(name: str, n: int, worse_by: float = 0.0, **more) -> PastTestSet:
    champion, candidate = models(n, 0.8, worse_by)
    return PastTestSet(name, candidate, champion, **more)


def judge(*sets: PastTestSet, **settings) -> GateResult:
    return decided("forgetting", against(NOW, NOW, past_test_sets=sets), **settings)


def test_loss_on_one_of_five_sets_is_rejected():
    result = judge(*(past_set(f"2026-0{i}", 2000) for i in range(1, 5)), past_set("2025-12", 2000, worse_by=0.05))

    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith("accuracy on 2025-12 is worse than that of champion version 4 by 0.050 (90 % interval -0.0")
    assert len(result.hypotheses) == 5
    assert result.estimate == pytest.approx(-0.01)


def test_equal_answers_pass_and_stay_in_the_family():
    result = judge(past_set("one", 3000), past_set("two", 3000))

    assert result.outcome is Outcome.PASS
    assert [way.p for way in result.hypotheses] == [1.0, 1.0]
    assert "within gates.forgetting.margin 0.03" in result.reason


def test_small_set_is_inconclusive():
    result = judge(past_set("small", 100))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "small is inconclusive for gates.forgetting.margin 0.03" in result.reason


def test_p_equals_the_mid_p_mcnemar_test():
    candidate, champion = answered(np.arange(200) >= 9), answered(np.ones(200, bool))
    result = judge(PastTestSet("old", candidate, champion))

    assert [way.p for way in result.hypotheses] == [mcnemar(0, 9)]


def test_missing_set_is_inconclusive_and_others_reject():
    missing = PastTestSet("2026-03", fault="its test rows are not in the cache")
    result = judge(missing, past_set("2026-02", 3000))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "missing: 2026-03: its test rows are not in the cache" in result.reason
    assert "dvc pull" in str(result.change)
    assert judge(missing).outcome is Outcome.INCONCLUSIVE
    assert judge(missing, past_set("2026-02", 3000, worse_by=0.06)).outcome is Outcome.FAIL


def test_set_of_training_rows_is_inconclusive():
    nothing = answered(np.zeros(0, bool))
    result = judge(PastTestSet("old", nothing, nothing, left_out=200))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "old: no row remains: 200 are training rows" in result.reason


def test_answers_to_other_rows_are_inconclusive():
    past = past_set("old", 300)
    result = judge(dataclasses.replace(past, champion=past.champion.take(np.arange(300) > 0)))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "did not answer the same rows" in result.reason


def test_only_rows_with_common_labels_are_compared():
    candidate = answered(np.ones(900, bool))
    champion = dataclasses.replace(candidate, predicted=np.full(900, "billing"), labels=("billing", "device"))

    assert judge(PastTestSet("old", candidate, champion)).tables[0].rows[0][1] == 600


def test_gate_without_past_sets_or_champion_is_not_applicable():
    alone: Evidence = against(NOW, None, past_test_sets=(past_set("old", 300),))

    assert judge().outcome is Outcome.NOT_APPLICABLE
    assert "no past test set yet" in judge().reason
    assert decided("forgetting", alone).outcome is Outcome.NOT_APPLICABLE
    assert decided("forgetting", alone).tables[0].rows[0][:2] == ("old", 300)
    assert decided("forgetting", dataclasses.replace(alone, past_test_sets=())).reason.startswith("there is no champion yet")


@pytest.mark.parametrize("sets", [(), (PastTestSet("old", NOW, None),), (PastTestSet("old", fault="not in the cache"),)])
def test_unscorable_champion_is_inconclusive(sets):
    result = decided(
        "forgetting", dataclasses.replace(against(NOW, None, past_test_sets=sets), champion=ReferenceModel("3", None, "it is gone"))
    )

    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.reason == "champion version 3 cannot be scored: it is gone"
    assert [row[:2] for table in result.tables for row in table.rows] == [("old", 300)][: sum(past.candidate is not None for past in sets)]


@pytest.mark.parametrize(
    ("settings", "message"), [({"last": 0}, "last is 0 and sets is empty"), ({"last": 0, "sets": ["own.csv"]}, "no past test set")]
)
def test_reason_why_the_gate_is_not_applicable(settings, message):
    assert message in judge(**settings).reason


def test_too_few_groups_are_inconclusive():
    groups = np.array([f"g{i % (MIN_GROUPS - 1)}" for i in range(1000)])
    result = judge(PastTestSet("old", answered(np.zeros(1000, bool), groups), answered(np.ones(1000, bool), groups)))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert f"{MIN_GROUPS - 1} groups" in result.reason


def test_transfer_over_one_set_is_its_mean_gain():
    generator = np.random.default_rng(2)
    gains, groups = generator.choice([-1.0, 0.0, 1.0], 600), np.array([f"g{i // 6}" for i in range(600)])
    result, expected = backward_transfer([gains], [groups], 0.9), mean(gains, Units.from_groups(groups), (-1, 1), 0.9)

    assert (result.value, result.low, result.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_transfer_jackknife_spans_all_sets():
    generator = np.random.default_rng(3)
    gains = [generator.choice([-1.0, 0.0, 1.0], size) for size in (40, 60)]
    groups = [np.array([f"g{i // 4}" for i in range(size)]) for size in (40, 60)]
    names = np.unique(np.concatenate(groups))
    left_out = [np.mean([gain[own != name].mean() for gain, own in zip(gains, groups, strict=True)]) for name in names]
    value = np.mean([gain.mean() for gain in gains])
    error = np.sqrt((len(names) - 1) / len(names) * np.sum((np.array(left_out) - value) ** 2))
    result = backward_transfer(gains, groups, 0.9)

    assert result.value == pytest.approx(value)
    assert result.high - result.low == pytest.approx(2 * Units.from_groups(np.concatenate(groups)).critical(0.9) * error)


def test_repeated_sets_do_not_narrow_the_interval():
    gains, groups = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], 500), np.arange(500).astype(str)
    once, thrice = backward_transfer([gains], [groups], 0.9), backward_transfer([gains] * 3, [groups] * 3, 0.9)

    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.01)


def test_transfer_interval_covers_the_truth():
    """Three sets overlap by half; the candidate is two points worse on each."""
    generator, repetitions, covered = np.random.default_rng(6), 400, 0
    for _ in range(repetitions):
        pool = generator.choice([-1.0, 0.0, 1.0], 1200, p=[0.07, 0.88, 0.05])
        parts = [slice(0, 600), slice(300, 900), slice(600, 1200)]
        names = np.arange(1200).astype(str)
        result = backward_transfer([pool[part] for part in parts], [names[part] for part in parts], 0.9)
        covered += result.low <= -0.02 <= result.high

    assert abs(covered / repetitions - 0.9) <= 3 * np.sqrt(0.9 * 0.1 / repetitions)


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("right", [True, False])
def test_few_rows_are_inconclusive(n, right):
    model = answered(np.full(n, right))
    result = judge(PastTestSet("old", model, model), PastTestSet("older", model, model))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert np.isfinite([result.estimate, result.low, result.high, *(way.p for way in result.hypotheses)]).all()


@pytest.mark.slow
def test_equal_models_are_rejected_in_at_most_5_percent():
    generator, repetitions, rejected = np.random.default_rng(8), 300, 0
    for _ in range(repetitions):
        sets = []
        for name in "abc":
            differ, wins = generator.random(500) < 0.12, generator.random(500) < 0.5
            sets.append(PastTestSet(name, answered(~(differ & ~wins)), answered(~(differ & wins))))
        rejected += judge(*sets).outcome is Outcome.FAIL

    assert rejected / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_training_rows_and_unknown_labels_are_excluded():
    rows = pd.DataFrame({"text": ["wifi slow", "no tone", "paper jam"], "label": ["a", "b", "gone"]})
    kept, left_out = prepare_earlier(rows, np.array([True, False, False]), ("a", "b"))

    assert kept["text"].tolist() == ["no tone"]
    assert kept.index.tolist() == [0]
    assert left_out == 2
    assert prepare_earlier(rows.head(0), np.zeros(0, dtype=bool), ("a",))[1] == 0


@pytest.mark.parametrize(
    ("raw", "message"), [({"margin": 0}, "margin"), ({"last": -1}, "last"), ({"set": []}, "did you mean 'sets'"), ({"last": 99}, "last")]
)
def test_invalid_setting_is_refused(raw, message):
    with pytest.raises(BadParams, match=message):
        forgetting.Params.parse(raw, "gates.forgetting")


@pytest.mark.parametrize(("rows", "worse_by"), [(300, 0.0), (3000, 0.0), (2000, 0.05)])
def test_advice_has_the_stated_outcome(rows, worse_by):
    past = past_set("old", rows, worse_by=worse_by)
    result = judge(past)
    stated, settings = advised(result)

    assert stated is not result.outcome
    assert judge(past, **settings).outcome is stated
