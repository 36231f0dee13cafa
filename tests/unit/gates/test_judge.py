import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

from components import gates
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.errors import BadParams, RetuneError
from components.gates import Evidence, GatesParams, judge, verdict_key
from components.params import Section

LABELS = ("billing", "device", "network")
DEFAULT = GatesParams()
CHAMPION_ONLY = GatesParams.parse({"floor": {"at_least": 0.01}, "baseline": {"against": "majority"}}, "gates")


def answered(right: np.ndarray, groups: np.ndarray | None = None, labels: tuple[str, ...] = LABELS) -> Predictions:
    """A model that is right where `right` says so, and one label off elsewhere."""
    n = len(right)
    ids = np.array([f"r{i:06d}" for i in range(n)])
    expected = np.arange(n) % len(labels)
    predicted = np.where(right, expected, (expected + 1) % len(labels))
    names = np.array(labels)
    return Predictions(ids, ids if groups is None else groups, names[expected], names[predicted], np.eye(len(labels))[predicted], labels)


def models(n: int, accuracy: float, worse_by: float = 0.0, changed: float = 0.10) -> tuple[Predictions, Predictions]:
    """Champion and candidate with exactly these accuracies, which answer `changed` of the rows differently."""
    order = np.random.default_rng(0).permutation(n)
    right = np.zeros(n, bool)
    right[order[: round(n * accuracy)]] = True
    lost, gained = round(n * (changed + worse_by) / 2), round(n * (changed - worse_by) / 2)
    candidate = right.copy()
    candidate[np.flatnonzero(right)[:lost]] = False
    candidate[np.flatnonzero(~right)[:gained]] = True
    return answered(right), answered(candidate)


def verdict(
    candidate: Predictions,
    champion: Predictions | None = None,
    baselines: Mapping[str, Predictions] | None = None,
    params: GatesParams = DEFAULT,
    min_class_units: int = 10,
) -> Verdict:
    if baselines is None:
        poor = answered(np.random.default_rng(9).random(len(candidate.ids)) < 0.4)
        baselines = {"tfidf": poor, "majority": poor}
    return judge(
        candidate,
        baselines,
        champion,
        champion_version=None if champion is None else "4",
        candidate_digest="c",
        test_digest="t",
        gates=params,
        min_class_units=min_class_units,
    )


def gate(found: Verdict, name: str) -> GateResult:
    return next(result for result in found.gates if result.gate == name)


def test_a_candidate_two_points_worse_is_not_promoted():
    champion, candidate = models(4000, 0.8, worse_by=0.02)
    found = verdict(candidate, champion)

    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith("champion: accuracy difference -0.020 to champion version 4 is worse")
    assert "gates.champion.margin 0.02 (90 % interval -0.028 to -0.012)" in found.reason


def test_a_candidate_two_points_worse_is_not_promoted_on_few_rows_either():
    champion, candidate = models(500, 0.8, worse_by=0.02)

    assert verdict(candidate, champion).outcome is not Outcome.PASS


def test_a_much_better_candidate_is_promoted():
    champion, candidate = models(1000, 0.7, worse_by=-0.08)
    found = verdict(candidate, champion)

    assert found.outcome is Outcome.PASS
    assert found.reason == "All 3 gates pass."
    assert found.champion == "4"


@pytest.mark.parametrize(("rows", "outcome"), [(4000, Outcome.PASS), (200, Outcome.INCONCLUSIVE)])
def test_an_equal_candidate_passes_when_there_are_rows_enough_to_tell(rows, outcome):
    champion, candidate = models(rows, 0.8)

    assert gate(verdict(candidate, champion, params=CHAMPION_ONLY), "champion").outcome is outcome


def test_the_first_candidate_needs_no_champion():
    found = verdict(models(1000, 0.8)[1])

    assert found.outcome is Outcome.PASS
    assert "no champion yet" in gate(found, "champion").reason
    assert gate(found, "champion").low is None


def test_exchanging_candidate_and_champion_mirrors_the_interval_exactly():
    champion, candidate = models(900, 0.8, worse_by=0.03)
    there, back = (gate(verdict(*pair), "champion") for pair in [(candidate, champion), (champion, candidate)])

    assert (there.estimate, there.low, there.high) == (-back.estimate, -back.high, -back.low)


def test_twenty_rows_settle_nothing_and_break_nothing():
    champion, candidate = models(20, 0.9)
    found = verdict(candidate, champion)

    assert found.outcome is Outcome.INCONCLUSIVE
    assert {result.outcome for result in found.gates} == {Outcome.INCONCLUSIVE}
    assert "evaluate.min_class_units" in gate(found, "floor").reason


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("right", [True, False])
def test_one_row_is_judged_without_a_crash(n, right):
    model = answered(np.full(n, right))

    assert verdict(model, model, {"tfidf": model}, min_class_units=1).outcome is not Outcome.PASS


def test_fewer_than_fifty_groups_settle_nothing_however_many_rows():
    groups = np.array([f"g{i % 49}" for i in range(3000)])
    best, worst = answered(np.ones(3000, bool), groups), answered(np.zeros(3000, bool), groups)
    found = verdict(best, worst, {"tfidf": worst})

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "49 groups" in gate(found, "champion").reason


def test_fifty_groups_may_settle_it():
    groups = np.array([f"g{i % 50}" for i in range(3000)])
    best, worst = answered(np.ones(3000, bool), groups), answered(np.zeros(3000, bool), groups)

    assert verdict(best, worst, {"tfidf": worst}).outcome is Outcome.PASS


def test_any_fail_outweighs_any_doubt():
    champion, candidate = models(200, 0.8)
    params = GatesParams.parse({"floor": {"metric": "accuracy", "at_least": 0.95}}, "gates")
    found = verdict(candidate, champion, params=params)

    assert {result.outcome for result in found.gates} == set(Outcome)
    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith("floor: accuracy 0.800 is below gates.floor.at_least 0.95 (90 % interval 0.7")


def test_labels_that_the_champion_does_not_have_count_as_wrong_and_are_named():
    candidate = answered(np.ones(1200, bool))
    old = ("billing", "network", "printer")
    predicted = np.where(candidate.expected == "device", "printer", candidate.expected)
    champion = dataclasses.replace(candidate, predicted=predicted, probabilities=np.eye(3)[np.zeros(1200, int)], labels=old)
    result = gate(verdict(candidate, champion), "champion")

    assert result.estimate == pytest.approx(1 / 3)
    assert "cannot predict device" in result.reason
    assert "answers printer are no longer labels" in result.reason


def test_predictions_of_other_rows_are_refused_with_the_first_of_them():
    champion, candidate = models(30, 0.8)
    other = dataclasses.replace(champion, ids=np.array(["x0", *champion.ids[1:]]))

    with pytest.raises(RetuneError, match=r"champion version 4 .* 1 missing \(first 'r000000'\), 1 unknown \(first 'x0'\)"):
        verdict(candidate, other)
    with pytest.raises(RetuneError, match="another order"):
        verdict(candidate, dataclasses.replace(champion, ids=champion.ids[::-1]))
    with pytest.raises(RetuneError, match="another label on 30 test rows, first 'r000000'"):
        verdict(candidate, dataclasses.replace(champion, expected=np.roll(champion.expected, 1)))


def test_a_baseline_that_was_not_evaluated_is_named():
    candidate = models(30, 0.8)[1]

    with pytest.raises(BadParams, match=r"gates.baseline.against: no predictions of 'tfidf'; there are: majority"):
        verdict(candidate, baselines={"majority": candidate})


def test_the_key_changes_with_everything_that_the_verdict_depends_on():
    other = GatesParams.parse({"floor": {"at_least": 0.7}}, "gates")
    keys = [
        verdict_key("c", "4", "t", DEFAULT, 10),
        verdict_key("d", "4", "t", DEFAULT, 10),
        verdict_key("c", "5", "t", DEFAULT, 10),
        verdict_key("c", None, "t", DEFAULT, 10),
        verdict_key("c", "4", "u", DEFAULT, 10),
        verdict_key("c", "4", "t", other, 10),
        verdict_key("c", "4", "t", DEFAULT, 11),
    ]

    assert len(set(keys)) == len(keys)
    assert verdict_key("c", "4", "t", GatesParams.parse({"floor": {"at_least": 0.65}}, "gates"), 10) == keys[0]


def test_the_verdict_carries_the_key_that_can_be_looked_up_beforehand():
    champion, candidate = models(60, 0.8)

    assert verdict(candidate, champion).key == verdict_key("c", "4", "t", DEFAULT, 10)


def test_a_champion_is_named_by_its_version_and_known_by_its_digest():
    champion, candidate = models(300, 0.8)
    known = {"champion_version": "1", "candidate_digest": "c", "test_digest": "t", "gates": CHAMPION_ONLY, "min_class_units": 10}
    found = [judge(candidate, {"majority": champion, "tfidf": champion}, champion, champion_key=key, **known) for key in ("k", "l")]

    assert [each.key for each in found] == [verdict_key("c", key, "t", CHAMPION_ONLY, 10) for key in ("k", "l")]
    assert {each.champion for each in found} == {"1"}
    assert "version 1" in next(gate.reason for gate in found[0].gates if gate.gate == "champion")


def test_the_verdict_is_the_same_twice_and_survives_its_file(tmp_path):
    champion, candidate = models(300, 0.8)
    found = verdict(candidate, champion)
    found.write(tmp_path)

    assert verdict(candidate, champion) == found == Verdict.read(tmp_path)


def test_every_file_is_a_gate_with_a_section_of_its_own():
    files = {path.stem for path in gates.FOLDER.glob("[!_]*.py")}

    assert set(gates.available()) == files == set(GatesParams.model_fields) != set()
    for name in files:
        assert issubclass(gates.load(name).Params, Section)
        assert all(field.description for field in gates.load(name).Params.model_fields.values())


@pytest.mark.parametrize("name", gates.available())
def test_every_gate_answers_for_itself_and_names_its_setting_when_it_does_not_pass(name):
    champion, candidate = models(60, 0.6)
    result = gates.load(name).decide(Evidence(candidate, {"tfidf": candidate}, champion, "4", 10), gates.load(name).Params())

    assert result.gate == name
    assert result.outcome is not Outcome.PASS
    assert f"gates.{name}." in result.reason
    assert "90 % interval, each end a one-sided 5 % bound" in str(result.method)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"flor": {}}, "gates.flor is not a setting; did you mean 'floor'"),
        ({"floor": {"at_leest": 0.6}}, "gates.floor.at_leest is not a setting; did you mean 'at_least'"),
        ({"floor": {"metric": "macrof1"}}, "gates.floor.metric: unknown metric; did you mean 'macro_f1'"),
        ({"floor": {"at_least": 1}}, "gates.floor.at_least"),
        ({"floor": {"at_least": 0}}, "gates.floor.at_least"),
        ({"baseline": {"against": "tf-idf"}}, "unknown baseline; did you mean 'tfidf'"),
        ({"baseline": {"margin": -0.1}}, "gates.baseline.margin"),
        ({"champion": {"margin": -0.02}}, "gates.champion.margin"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_right_one(raw, message):
    with pytest.raises(BadParams, match=message):
        GatesParams.parse(raw, "gates")


def test_an_unknown_gate_is_named_with_the_nearest_known_one():
    with pytest.raises(BadParams, match="did you mean 'champion'"):
        gates.load("champoin")
