import dataclasses

import numpy as np
import pytest

from components.artifacts.verdict import Outcome
from components.core.errors import BadParams
from components.gates import GatesParams
from components.gates.support import ReferenceModel
from tests.support.gate_cases import advised, against, answered, decided, faults, gained_and_lost


def champion(gained: int, lost: int, n: int = 1000, **settings):
    return decided("champion", against(*gained_and_lost(gained, lost, n)), **{"also": [], **settings})


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
@pytest.mark.parametrize(
    ("gained", "lost", "outcome"),
    [
        (10, 10, Outcome.PASS),
        (4, 10, Outcome.PASS),  # worse, within the margin
        (0, 9, Outcome.PASS),  # significantly worse, within the margin
        (56, 70, Outcome.INCONCLUSIVE),
        (30, 70, Outcome.FAIL),
    ],
)
def test_interval_within_the_margin_passes(metric, gained, lost, outcome):
    assert champion(gained, lost, metric=metric).outcome is outcome


@pytest.mark.parametrize(("gained", "lost", "outcome"), [(10, 10, Outcome.INCONCLUSIVE), (30, 10, Outcome.PASS), (10, 30, Outcome.FAIL)])
def test_superiority_requires_a_better_candidate(gained, lost, outcome):
    assert champion(gained, lost, aim="superiority", margin=0).outcome is outcome


def test_threshold_is_minus_the_margin():
    result = champion(10, 10, margin=0.03)

    assert result.threshold == -0.03
    assert result.reason.startswith("accuracy difference +0.000 to champion version 4 is within gates.champion.margin 0.03 (90 % ")
    assert result.n == 1000


def test_margin_in_change_changes_the_outcome():
    stated, settings = advised(champion(56, 70))

    assert champion(56, 70, **settings).outcome is stated is Outcome.PASS
    assert advised(champion(56, 70, **settings))[0] is Outcome.INCONCLUSIVE
    assert champion(56, 70, margin=settings["margin"] - 0.001).outcome is Outcome.INCONCLUSIVE


def test_margin_that_another_metric_rejects_is_not_advised():
    alone, both = champion(20, 120), champion(20, 120, also=["macro_f1"])

    assert champion(20, 120, **advised(alone)[1]).outcome is advised(alone)[0] is Outcome.PASS
    assert (both.outcome, both.change) == (Outcome.FAIL, None)


def test_reason_contains_the_rows_an_equal_model_needs():
    # The formula 6.18 psi / m² for 80 % at 5 %: psi = 0.16, m = 0.02.
    needed = int(champion(80, 80).reason.split("; with ")[1].split(" test")[0].replace(",", ""))

    assert needed == pytest.approx(6.18 * 0.16 / 0.02**2, rel=0.02)


def test_no_number_of_rows_helps_beyond_the_margin():
    result = champion(80, 101)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "no number of test rows would pass it" in result.reason


def test_undecided_superiority_contains_the_needed_rows():
    result = champion(90, 71, aim="superiority", margin=0)
    needed = int(result.reason.split("; with ")[1].split(" test")[0].replace(",", ""))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert (
        "accuracy difference +0.019 to champion version 4 is inconclusive for gates.champion.aim superiority (90 % interval"
        in result.reason
    )
    assert result.reason.endswith("test rows (now 1,000) a model that is better by this difference passes in 80 % of cases")
    assert needed == pytest.approx(6.18 * (0.161 - 0.019**2) / 0.019**2, rel=0.03)
    assert champion(90 * needed // 1000, 71 * needed // 1000, needed, aim="superiority", margin=0).outcome is Outcome.PASS


def test_change_of_superiority_is_a_valid_setting():
    result = champion(90, 71, aim="superiority", margin=0)
    stated, settings = advised(result)

    assert settings["aim"] == "non_inferiority"
    assert champion(90, 71, **settings).outcome is stated is Outcome.PASS
    assert champion(90, 41, aim="superiority", margin=0).change is None


@pytest.mark.parametrize(("gained", "lost"), [(20, 20), (20, 22)])
def test_no_number_of_rows_helps_if_not_better(gained, lost):
    result = champion(gained, lost, aim="superiority", margin=0)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.reason.endswith("no number of test rows would pass it: the candidate is not better")


def test_additional_metric_rejects():
    """Accuracy is equal, but the rare class is lost: macro-F1 falls."""
    labels = ("common", "rare")
    expected = np.array([0] * 1800 + [1] * 200)
    champion_right, right = expected.copy(), expected.copy()
    champion_right[:90] = 1  # 90 errors in the common class
    right[1800:1890] = 0  # 90 errors in the rare class
    candidate, champion = (
        dataclasses.replace(
            answered(np.ones(2000, bool)),
            expected=np.array(labels)[expected],
            predicted=np.array(labels)[answers],
            probabilities=np.eye(2)[answers],
            labels=labels,
        )
        for answers in (right, champion_right)
    )
    evidence = against(candidate, champion)

    assert decided("champion", evidence, also=[]).outcome is Outcome.PASS
    failed = decided("champion", evidence, also=["macro_f1"])
    assert failed.outcome is Outcome.FAIL
    assert "macro_f1 is worse than that of champion version 4 by 0.053" in failed.reason


def test_notes_contain_power_mcnemar_and_bootstrap():
    result = champion(60, 40)
    low, high = (float(end) for end in result.notes[2].removeprefix("cross-check, percentile bootstrap: ").split(" to "))

    assert result.notes[0].startswith("minimum detectable effect: 0.025 (80 % power, one-sided 5.00%)")
    assert result.notes[1].startswith("McNemar: only the candidate is correct on 60 rows, only the other model on 40, mid-p 0.04")
    assert (low, high) == pytest.approx((result.low, result.high), abs=0.003)


def with_other_labels() -> tuple:
    """Return a candidate, and a champion that is correct on its labels, lacks `device` and knows `printer`."""
    candidate = answered(np.arange(1200) % 20 != 0)
    old = ("billing", "network", "printer")
    predicted = np.where(candidate.expected == "device", "printer", candidate.expected)
    return candidate, dataclasses.replace(candidate, predicted=predicted, probabilities=np.eye(3)[np.zeros(1200, int)], labels=old)


def test_new_labels_common_compares_common_labels():
    result = decided("champion", against(*with_other_labels()), margin=0.1)

    assert result.estimate == pytest.approx(-0.05, abs=0.002)
    assert result.n == 800
    assert "only the candidate knows device; only the other model knows printer; compared on 800 of 1,200 rows" in result.notes


def test_new_labels_wrong_counts_unknown_labels_as_wrong():
    result = decided("champion", against(*with_other_labels()), new_labels="wrong")

    assert result.estimate > 0.25
    assert result.outcome is Outcome.PASS


def test_new_labels_ask_is_inconclusive():
    result = decided("champion", against(*with_other_labels()), new_labels="ask")

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "only the candidate knows device" in result.reason


def test_new_labels_ask_ignores_removed_labels():
    candidate, _ = with_other_labels()
    more, fewer = (dataclasses.replace(candidate, labels=labels) for labels in ((*candidate.labels, "printer"), candidate.labels[:2]))

    assert decided("champion", against(candidate, more), new_labels="ask").outcome is Outcome.PASS
    assert decided("champion", against(candidate, fewer), new_labels="ask").outcome is Outcome.INCONCLUSIVE


def test_unscorable_champion_is_inconclusive_or_skipped():
    candidate = answered(np.ones(300, bool))
    evidence = dataclasses.replace(against(candidate, None), champion=ReferenceModel("3", None, "it was deleted from the registry"))

    asked, skipped = decided("champion", evidence), decided("champion", evidence, unscorable="skip")
    assert asked.outcome is Outcome.INCONCLUSIVE
    assert asked.reason == "champion version 3 cannot be scored: it was deleted from the registry"
    assert skipped.outcome is Outcome.NOT_APPLICABLE
    assert "gates.champion.unscorable: skip leaves the decision to the other gates" in skipped.reason


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"aim": "superiority"}, "aim superiority allows no loss, found margin 0.02: set margin: 0"),
        ({"margin": 0}, "non-inferiority needs a margin above 0"),
        ({"margin": -0.1}, "gates.champion.margin"),
    ],
)
def test_contradictory_margins_are_refused(raw, message):
    with pytest.raises(BadParams, match=message):
        GatesParams.parse({"champion": raw}, "gates")


def test_fewer_than_fifty_groups_are_inconclusive():
    groups = np.array([f"g{i % 49}" for i in range(1000)])

    assert decided("champion", against(*gained_and_lost(300, 0, groups=groups))).outcome is Outcome.INCONCLUSIVE
    assert decided("champion", against(*gained_and_lost(0, 300, groups=groups))).outcome is Outcome.INCONCLUSIVE


def test_margin_is_below_the_largest_difference():
    assert faults("champion", metric="kappa", also=["accuracy"], margin=1.9) == []
    assert faults("champion", metric="kappa", also=[], margin=2) == [
        "margin: expected less than 2, the largest possible difference of the metric"
    ]
    assert faults("champion", metric="accuracy", also=["kapa"]) == ["also: unknown metric 'kapa'; did you mean 'kappa'?"]
