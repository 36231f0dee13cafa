import dataclasses

import numpy as np
import pandas as pd
import pytest

from components.artifacts.past_test_set import PastTestSet, prepare_earlier
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import BadParams
from components.gates import Evidence, ReferenceModel, forgetting
from components.gates.forgetting import backward_transfer
from components.stats import MIN_GROUPS, Units, mcnemar, mean
from tests.support.gate_cases import against, answered, decided, models

NOW = answered(np.arange(300) % 4 != 0)


def earlier(name: str, n: int, worse_by: float = 0.0, **more) -> PastTestSet:
    champion, candidate = models(n, 0.8, worse_by)
    return PastTestSet(name, candidate, champion, **more)


def asked(*sets: PastTestSet, **settings) -> GateResult:
    return decided("forgetting", against(NOW, NOW, earlier=sets), **settings)


def test_what_is_forgotten_on_one_of_five_sets_is_rejected():
    found = asked(*(earlier(f"2026-0{i}", 2000) for i in range(1, 5)), earlier("2025-12", 2000, worse_by=0.05))

    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith("accuracy on 2025-12 is worse than that of champion version 4 by 0.050 (90 % interval -0.0")
    assert len(found.hypotheses) == 5
    assert found.estimate == pytest.approx(-0.01)


def test_equal_answers_within_the_margin_pass_and_stay_in_the_family():
    found = asked(earlier("one", 3000), earlier("two", 3000))

    assert found.outcome is Outcome.PASS
    assert [one.p for one in found.hypotheses] == [1.0, 1.0]
    assert "within gates.forgetting.margin 0.03" in found.reason


def test_few_rows_settle_nothing():
    found = asked(earlier("small", 100))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "small does not settle gates.forgetting.margin 0.03" in found.reason


def test_the_p_is_that_of_the_mid_p_mcnemar_test():
    candidate, champion = answered(np.arange(200) >= 9), answered(np.ones(200, bool))
    found = asked(PastTestSet("old", candidate, champion))

    assert [one.p for one in found.hypotheses] == [mcnemar(0, 9)]


def test_a_missing_set_is_named_with_advice_and_the_others_still_reject():
    gone = PastTestSet("2026-03", fault="its test rows are not in the cache")
    found = asked(gone, earlier("2026-02", 3000))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "missing: 2026-03: its test rows are not in the cache" in found.reason
    assert "dvc pull" in str(found.change)
    assert asked(gone).outcome is Outcome.INCONCLUSIVE
    assert asked(gone, earlier("2026-02", 3000, worse_by=0.06)).outcome is Outcome.FAIL


def test_a_set_that_was_all_trained_on_tests_nothing():
    nothing = answered(np.zeros(0, bool))
    found = asked(PastTestSet("old", nothing, nothing, left_out=200))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "old: no row is left to test on, 200 were trained on" in found.reason


def test_answers_to_other_rows_are_no_comparison():
    one = earlier("old", 300)
    found = asked(dataclasses.replace(one, champion=one.champion.take(np.arange(300) > 0)))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "did not answer the same rows" in found.reason


def test_only_rows_whose_label_both_know_are_compared():
    candidate = answered(np.ones(900, bool))
    champion = dataclasses.replace(candidate, predicted=np.full(900, "billing"), labels=("billing", "device"))

    assert asked(PastTestSet("old", candidate, champion)).tables[0].rows[0][1] == 600


def test_without_earlier_sets_or_champion_there_is_nothing_to_forget():
    alone: Evidence = against(NOW, None, earlier=(earlier("old", 300),))

    assert asked().outcome is Outcome.PASS
    assert "no earlier test set yet" in asked().reason
    assert decided("forgetting", alone).outcome is Outcome.PASS
    assert decided("forgetting", alone).tables[0].rows[0][:2] == ("old", 300)
    assert decided("forgetting", dataclasses.replace(alone, earlier=())).reason.startswith("not asked: there is no champion yet")


@pytest.mark.parametrize("sets", [(), (PastTestSet("old", NOW, None),), (PastTestSet("old", fault="not in the cache"),)])
def test_a_champion_that_cannot_be_scored_settles_nothing_whether_there_are_earlier_sets_or_not(sets):
    found = decided("forgetting", dataclasses.replace(against(NOW, None, earlier=sets), champion=ReferenceModel("3", None, "it is gone")))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == "champion version 3 cannot be scored: it is gone"
    assert [row[:2] for table in found.tables for row in table.rows] == [("old", 300)][: sum(one.candidate is not None for one in sets)]


@pytest.mark.parametrize(
    ("settings", "said"), [({"last": 0}, "last 0 and no sets"), ({"last": 0, "sets": ["own.csv"]}, "no earlier test set")]
)
def test_what_is_said_to_be_not_asked_was_not_asked(settings, said):
    assert said in asked(**settings).reason


def test_groups_below_the_minimum_reject_nothing():
    groups = np.array([f"g{i % (MIN_GROUPS - 1)}" for i in range(1000)])
    found = asked(PastTestSet("old", answered(np.zeros(1000, bool), groups), answered(np.ones(1000, bool), groups)))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert f"{MIN_GROUPS - 1} groups" in found.reason


def test_the_transfer_over_one_set_is_the_mean_with_the_jackknife_interval():
    generator = np.random.default_rng(2)
    gains, groups = generator.choice([-1.0, 0.0, 1.0], 600), np.array([f"g{i // 6}" for i in range(600)])
    found, expected = backward_transfer([gains], [groups], 0.9), mean(gains, Units.from_groups(groups), (-1, 1), 0.9)

    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_the_transfer_leaves_a_group_out_of_every_set_at_once():
    generator = np.random.default_rng(3)
    gains = [generator.choice([-1.0, 0.0, 1.0], size) for size in (40, 60)]
    groups = [np.array([f"g{i // 4}" for i in range(size)]) for size in (40, 60)]
    names = np.unique(np.concatenate(groups))
    left_out = [np.mean([one[own != name].mean() for one, own in zip(gains, groups, strict=True)]) for name in names]
    value = np.mean([one.mean() for one in gains])
    error = np.sqrt((len(names) - 1) / len(names) * np.sum((np.array(left_out) - value) ** 2))
    found = backward_transfer(gains, groups, 0.9)

    assert found.value == pytest.approx(value)
    assert found.high - found.low == pytest.approx(2 * Units.from_groups(np.concatenate(groups)).critical(0.9) * error)


def test_sets_that_share_their_rows_do_not_make_the_transfer_surer():
    gains, groups = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], 500), np.arange(500).astype(str)
    once, thrice = backward_transfer([gains], [groups], 0.9), backward_transfer([gains] * 3, [groups] * 3, 0.9)

    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.01)


def test_the_transfer_covers_the_truth_in_nine_of_ten_histories():
    """Three sets that overlap by half; the candidate is two points worse on each."""
    generator, repetitions, covered = np.random.default_rng(6), 400, 0
    for _ in range(repetitions):
        pool = generator.choice([-1.0, 0.0, 1.0], 1200, p=[0.07, 0.88, 0.05])
        parts = [slice(0, 600), slice(300, 900), slice(600, 1200)]
        names = np.arange(1200).astype(str)
        found = backward_transfer([pool[part] for part in parts], [names[part] for part in parts], 0.9)
        covered += found.low <= -0.02 <= found.high

    assert abs(covered / repetitions - 0.9) <= 3 * np.sqrt(0.9 * 0.1 / repetitions)


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("right", [True, False])
def test_a_handful_of_rows_settles_nothing_and_breaks_nothing(n, right):
    model = answered(np.full(n, right))
    found = asked(PastTestSet("old", model, model), PastTestSet("older", model, model))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert np.isfinite([found.estimate, found.low, found.high, *(one.p for one in found.hypotheses)]).all()


@pytest.mark.slow
def test_equal_models_are_rejected_in_no_more_than_five_of_a_hundred_histories():
    generator, repetitions, rejected = np.random.default_rng(8), 300, 0
    for _ in range(repetitions):
        sets = []
        for name in "abc":
            differ, mine = generator.random(500) < 0.12, generator.random(500) < 0.5
            sets.append(PastTestSet(name, answered(~(differ & ~mine)), answered(~(differ & mine))))
        rejected += asked(*sets).outcome is Outcome.FAIL

    assert rejected / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_rows_that_were_trained_on_or_have_an_unknown_label_are_left_out():
    rows = pd.DataFrame({"text": ["wifi slow", "no tone", "paper jam"], "label": ["a", "b", "gone"]})
    kept, left_out = prepare_earlier(rows, np.array([True, False, False]), ("a", "b"))

    assert kept["text"].tolist() == ["no tone"]
    assert kept.index.tolist() == [0]
    assert left_out == 2
    assert prepare_earlier(rows.head(0), np.zeros(0, dtype=bool), ("a",))[1] == 0


@pytest.mark.parametrize(
    ("raw", "message"), [({"margin": 0}, "margin"), ({"last": -1}, "last"), ({"set": []}, "did you mean 'sets'"), ({"last": 99}, "last")]
)
def test_a_wrong_setting_is_named(raw, message):
    with pytest.raises(BadParams, match=message):
        forgetting.Params.parse(raw, "gates.forgetting")
