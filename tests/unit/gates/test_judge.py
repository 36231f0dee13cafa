import dataclasses

import numpy as np
import pytest
import yaml

from components import gates
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role, Verdict
from components.core.errors import BadParams, RetuneError
from components.core.section import Section
from components.evaluation.metric_set import decidable_metrics
from components.gates import GatesParams
from components.judge import check_metrics, verdict_key
from components.judge.multiple_testing import combine, correct_tests
from components.model import tasks
from tests.support.gate_cases import DEFAULT, against, answered, gate, models, verdict

CHAMPION_ONLY = GatesParams.parse({"floor": {"at_least": 0.01}, "baseline": {"against": "majority"}}, "gates")


def test_a_candidate_two_points_worse_is_not_promoted():
    champion, candidate = models(4000, 0.8, worse_by=0.02)
    found = verdict(candidate, champion)

    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith("champion: accuracy is worse than that of champion version 4 by 0.020 (90 % interval -0.028 to -0.012)")


def test_a_candidate_two_points_worse_is_not_promoted_on_few_rows_either():
    champion, candidate = models(500, 0.8, worse_by=0.02)

    assert verdict(candidate, champion).outcome is not Outcome.PASS


def test_a_much_better_candidate_is_promoted():
    champion, candidate = models(1000, 0.7, worse_by=-0.08)
    found = verdict(candidate, champion)

    assert found.outcome is Outcome.PASS
    assert found.reason.startswith("All 4 deciding gates that were asked pass, and none of ")
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
    assert {gate(found, name).outcome for name in ("floor", "baseline", "champion")} == {Outcome.INCONCLUSIVE}
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


def test_predictions_of_other_rows_are_refused_with_the_first_of_them():
    champion, candidate = models(30, 0.8)
    other = dataclasses.replace(champion, ids=np.array(["x0", *champion.ids[1:]]))

    with pytest.raises(RetuneError, match=r"the champion, version 4, .* 1 missing \(first 'r000000'\), 1 unknown \(first 'x0'\)"):
        verdict(candidate, other)
    with pytest.raises(RetuneError, match="another order"):
        verdict(candidate, dataclasses.replace(champion, ids=champion.ids[::-1]))
    with pytest.raises(RetuneError, match="another label on 30 test rows, first 'r000000'"):
        verdict(candidate, dataclasses.replace(champion, expected=np.roll(champion.expected, 1)))


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
    assert (
        verdict_key("c", "4", "t", GatesParams.parse({"floor": {"at_least": 0.65}, "leakage": {"role": "blocking"}}, "gates"), 10)
        == keys[0]
    )


def test_the_verdict_carries_the_key_that_can_be_looked_up_beforehand():
    champion, candidate = models(60, 0.8)

    assert verdict(candidate, champion).key == verdict_key("c", "4", "t", DEFAULT, 10)


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
def test_every_gate_answers_for_itself_on_sixty_rows(name):
    champion, candidate = models(60, 0.6)
    result = gates.load(name).decide(against(candidate, champion), gates.load(name).Params())

    assert result.gate == name
    assert result.reason
    assert all(0 <= one.p <= 1 and one.says for one in result.hypotheses)
    assert Outcome.FAIL is not result.outcome


def veto(*values: float, role: Role = Role.BLOCKING) -> GateResult:
    ways = tuple(Hypothesis(name=f"way {place}", says=f"way {place} is worse", p=value) for place, value in enumerate(values))
    return GateResult(gate="slices", outcome=Outcome.PASS, reason="nothing is worse", role=role, hypotheses=ways)


PROVEN = GateResult(gate="floor", outcome=Outcome.PASS, reason="good")


@pytest.mark.parametrize("name", ["best_champion", "calibration", "champion", "fairness", "forgetting", "test_budget"])
def test_a_gate_with_nothing_to_judge_says_so(name):
    result = gates.load(name).decide(against(models(60, 0.6)[1], None), gates.load(name).Params())

    assert (result.outcome, result.asked, result.shown) == (Outcome.PASS, False, "NOT ASKED")
    assert result.reason.startswith("not asked: ")


def test_a_verdict_names_the_gates_that_were_not_asked():
    unasked = [GateResult.not_asked("champion", "there is none"), GateResult.not_asked("fairness", "no column", role=Role.BLOCKING)]

    assert combine([PROVEN, *unasked]) == (Outcome.PASS, "All 1 deciding gates that were asked pass. Not asked: champion, fairness.")


def test_a_verdict_says_that_no_deciding_gate_was_asked():
    assert combine([GateResult.not_asked("champion", "there is none")])[1] == "No deciding gate had anything to judge. Not asked: champion."


def test_an_asked_gate_keeps_the_digest_of_its_verdict():
    assert "asked" not in PROVEN.model_dump(mode="json")
    assert GateResult.not_asked("champion", "there is none").model_dump(mode="json")["asked"] is False


def test_what_may_reject_is_corrected_together_over_all_gates():
    alone = correct_tests([veto(0.02)])
    among = correct_tests([veto(0.02), veto(0.5, 0.6), veto(0.7)])

    assert alone[0].outcome is Outcome.FAIL
    assert among[0].outcome is Outcome.PASS
    assert [one.adjusted for one in among[0].hypotheses] == [pytest.approx(0.08)]
    assert combine([PROVEN, *alone])[0] is Outcome.FAIL
    assert combine([PROVEN, *among])[0] is Outcome.PASS


def test_the_worst_way_is_the_reason_and_the_others_are_counted():
    (result,) = correct_tests([veto(0.001, 0.0001, 0.9)])

    assert result.reason == "way 1 is worse, p 0.0003 after Holm's correction (and 1 more)"
    assert [one.rejected for one in result.hypotheses] == [True, True, False]


def test_a_gate_that_is_only_shown_neither_rejects_nor_weighs_on_the_others():
    shown = veto(0.0001, role=Role.INFORMATIONAL)
    results = correct_tests([shown, veto(0.04)])

    assert results[0] == shown
    assert results[1].outcome is Outcome.FAIL
    assert combine([PROVEN, shown])[0] is Outcome.PASS


def test_a_veto_that_cannot_tell_does_not_block_and_is_named():
    open_veto = GateResult(gate="cost", outcome=Outcome.INCONCLUSIVE, reason="not measured", role=Role.BLOCKING)

    assert combine([PROVEN, open_veto]) == (Outcome.PASS, "All 1 deciding gates pass, and none of 1 vetoes. Could not tell: cost.")


def test_where_no_gate_decides_a_person_does():
    assert combine([veto(0.5)])[0] is Outcome.INCONCLUSIVE


def test_off_needs_no_quotes_in_yaml():
    assert GatesParams.parse(yaml.safe_load("floor: {role: off}"), "gates").floor.role is Role.OFF


def test_a_gate_that_is_off_is_not_asked_and_is_named():
    candidate = models(1000, 0.8)[1]
    params = GatesParams.parse({"floor": {"at_least": 0.999, "role": "off"}, "leakage": {"role": "blocking"}}, "gates")
    found = verdict(candidate, params=params)

    assert "floor" in found.off
    assert "floor" not in {result.gate for result in found.gates}
    assert found.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"flor": {}}, "gates.flor is not a setting; did you mean 'floor'"),
        ({"floor": {"at_leest": 0.6}}, "gates.floor.at_leest is not a setting; did you mean 'at_least'"),
        ({"baseline": {"margin": -0.1}}, "gates.baseline.margin"),
        ({"champion": {"margin": -0.02}}, "gates.champion.margin"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_right_one(raw, message):
    with pytest.raises(BadParams, match=message):
        GatesParams.parse(raw, "gates")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"floor": {"metric": "macrof1"}}, "gates.floor.metric: unknown metric 'macrof1'; did you mean 'macro_f1'"),
        ({"floor": {"at_least": 1}}, "gates.floor.at_least: expected a macro_f1 above 0 and below 1, found 1"),
        ({"floor": {"at_least": 0}}, "gates.floor.at_least"),
        ({"baseline": {"against": "tf-idf"}}, "gates.baseline.against: unknown baseline 'tf-idf'; did you mean 'tfidf'"),
        ({"champion": {"margin": 1}}, "gates.champion.margin: expected less than 1"),
        ({"champion": {"also": ["macrof1"]}}, "gates.champion.also: unknown metric 'macrof1'"),
    ],
)
def test_what_a_gate_names_must_be_measured_by_the_task(raw, message):
    task = tasks.load("text_classification")

    with pytest.raises(BadParams, match=message):
        check_metrics(GatesParams.parse(raw, "gates"), decidable_metrics(task), task.baselines)
    off = {name: fields | {"role": "off"} for name, fields in raw.items()}
    check_metrics(GatesParams.parse(off, "gates"), decidable_metrics(task), task.baselines)


def test_an_unknown_gate_is_named_with_the_nearest_known_one():
    with pytest.raises(BadParams, match="did you mean 'champion'"):
        gates.load("champoin")
