import dataclasses
import json
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from pydantic import create_model

from components import gates
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role, Verdict
from components.core.errors import BadParams, RetuneError
from components.core.hashing import digest_value
from components.core.section import Section
from components.evaluation.metric_set import decidable_metrics
from components.gates import GatesParams
from components.gates.support import Evidence, Need, ReferenceModel
from components.judge import check_metrics, verdict_key
from components.judge.multiple_testing import combine, correct_tests
from components.model import tasks
from tests.support.gate_cases import ADDED, DEFAULT, SHIPPED, against, answered, gate, models, verdict
from tests.support.project import ROOT

CHAMPION_ONLY = GatesParams.parse({"floor": {"at_least": 0.01}, "baseline": {"against": "majority"}}, "gates")


def test_worse_candidate_is_rejected():
    champion, candidate = models(4000, 0.8, worse_by=0.02)
    result = verdict(candidate, champion)

    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith("champion: accuracy is worse than that of champion version 4 by 0.020 (90 % interval -0.028 to -0.012)")


def test_worse_candidate_does_not_pass_on_few_rows():
    champion, candidate = models(500, 0.8, worse_by=0.02)

    assert verdict(candidate, champion).outcome is not Outcome.PASS


def test_better_candidate_passes():
    champion, candidate = models(1000, 0.7, worse_by=-0.08)
    result = verdict(candidate, champion)

    assert result.outcome is Outcome.PASS
    assert result.reason.startswith("All 4 required gates pass; 1 of 5 blocking gates passes. ")
    assert result.champion == "4"


@pytest.mark.parametrize(("rows", "outcome"), [(4000, Outcome.PASS), (200, Outcome.INCONCLUSIVE)])
def test_equal_candidate_passes_with_enough_rows(rows, outcome):
    champion, candidate = models(rows, 0.8)

    assert gate(verdict(candidate, champion, params=CHAMPION_ONLY), "champion").outcome is outcome


def test_first_candidate_needs_no_champion():
    result = verdict(models(1000, 0.8)[1])

    assert result.outcome is Outcome.PASS
    assert "no champion yet" in gate(result, "champion").reason
    assert gate(result, "champion").low is None


def test_swapping_candidate_and_champion_mirrors_the_interval():
    champion, candidate = models(900, 0.8, worse_by=0.03)
    forth, back = (gate(verdict(*pair), "champion") for pair in [(candidate, champion), (champion, candidate)])

    assert (forth.estimate, forth.low, forth.high) == (-back.estimate, -back.high, -back.low)


def test_twenty_rows_are_inconclusive():
    champion, candidate = models(20, 0.9)
    result = verdict(candidate, champion)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert {gate(result, name).outcome for name in ("floor", "baseline", "champion")} == {Outcome.INCONCLUSIVE}
    assert "evaluate.min_class_units" in gate(result, "floor").reason


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("right", [True, False])
def test_one_row_is_judged(n, right):
    model = answered(np.full(n, right))

    assert verdict(model, model, {"tfidf": model}, min_class_units=1).outcome is not Outcome.PASS


def test_fewer_than_fifty_groups_are_inconclusive():
    groups = np.array([f"g{i % 49}" for i in range(3000)])
    best, worst = answered(np.ones(3000, bool), groups), answered(np.zeros(3000, bool), groups)
    result = verdict(best, worst, {"tfidf": worst})

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "49 groups" in gate(result, "champion").reason


def test_fifty_groups_can_pass():
    groups = np.array([f"g{i % 50}" for i in range(3000)])
    best, worst = answered(np.ones(3000, bool), groups), answered(np.zeros(3000, bool), groups)

    assert verdict(best, worst, {"tfidf": worst}).outcome is Outcome.PASS


def test_fail_outweighs_inconclusive():
    champion, candidate = models(200, 0.8)
    params = GatesParams.parse({"floor": {"metric": "accuracy", "at_least": 0.95}}, "gates")
    result = verdict(candidate, champion, params=params)

    assert {gate_result.outcome for gate_result in result.gates} == set(Outcome)
    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith("floor: accuracy 0.800 is below gates.floor.at_least 0.95 (90 % interval 0.7")


def test_predictions_on_other_rows_are_refused():
    champion, candidate = models(30, 0.8)
    other = dataclasses.replace(champion, ids=np.array(["x0", *champion.ids[1:]]))

    with pytest.raises(RetuneError, match=r"the champion, version 4, .* 1 missing \(first 'r000000'\), 1 unknown \(first 'x0'\)"):
        verdict(candidate, other)
    with pytest.raises(RetuneError, match=r"the best champion so far, version 2, .* 1 missing"):
        verdict(candidate, champion, best_champion=ReferenceModel("2", other))
    with pytest.raises(RetuneError, match="another order"):
        verdict(candidate, dataclasses.replace(champion, ids=champion.ids[::-1]))
    with pytest.raises(RetuneError, match="another expected label on 30 test rows, first 'r000000'"):
        verdict(candidate, dataclasses.replace(champion, expected=np.roll(champion.expected, 1)))


def test_key_depends_on_all_inputs_of_the_verdict():
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
    written = GatesParams.parse({"floor": {"at_least": 0.65}, "leakage": {"role": "blocking"}} | ADDED, "gates")
    assert verdict_key("c", "4", "t", written, 10) == keys[0]


def test_verdict_contains_its_key():
    champion, candidate = models(60, 0.8)

    assert verdict(candidate, champion).key == verdict_key("c", "4", "t", DEFAULT, 10)


def test_verdict_is_reproducible_and_survives_its_file(tmp_path):
    champion, candidate = models(300, 0.8)
    result = verdict(candidate, champion)
    result.write(tmp_path)

    assert verdict(candidate, champion) == result == Verdict.read(tmp_path)


def test_every_file_is_a_gate_with_a_section():
    files = {path.stem for path in gates.FOLDER.glob("[!_]*.py")}

    assert set(gates.available()) == files == set(GatesParams.model_fields) != set()
    for name in files:
        assert issubclass(gates.load(name).Params, Section)
        assert all(field.description for field in gates.load(name).Params.model_fields.values())


def test_needs_are_fields_of_evidence():
    fields = {field.name for field in dataclasses.fields(Evidence)}
    declared = {name: getattr(gates.load(name), "NEEDS", frozenset()) for name in gates.available()}

    assert set(get_args(Need)) <= fields
    assert set().union(*declared.values()) == gates.needs(GatesParams()) == set(get_args(Need))
    assert "cost" not in gates.needs(GatesParams.parse({"cost": {"role": "off"}}, "gates"))
    assert declared["floor"] == frozenset()
    page = (ROOT / "docs/add-a-gate.md").read_text(encoding="utf-8")
    assert all(f"| `{need}` |" in page for need in get_args(Need))


@pytest.mark.parametrize("name", gates.available())
def test_every_gate_decides_on_sixty_rows(name):
    champion, candidate = models(60, 0.6)
    result = gates.load(name).decide(against(candidate, champion), gates.load(name).Params())

    assert result.gate == name
    assert result.reason
    assert all(0 <= way.p <= 1 and way.says for way in result.hypotheses)
    assert Outcome.FAIL is not result.outcome


def blocking(*values: float, role: Role = Role.BLOCKING) -> GateResult:
    ways = tuple(Hypothesis(name=f"way {index}", says=f"way {index} is worse", p=value) for index, value in enumerate(values))
    return GateResult(gate="slices", outcome=Outcome.PASS, reason="nothing is worse", role=role, hypotheses=ways)


PROVEN = GateResult(gate="floor", outcome=Outcome.PASS, reason="good")


@pytest.mark.parametrize("name", ["best_champion", "calibration", "champion", "fairness", "forgetting", "test_budget"])
def test_gate_with_nothing_to_judge_is_not_applicable(name):
    result = gates.load(name).decide(against(models(60, 0.6)[1], None), gates.load(name).Params())

    assert (result.outcome, result.applicable) == (Outcome.NOT_APPLICABLE, False)


def test_verdict_lists_gates_with_nothing_to_judge():
    skipped = [
        GateResult.not_applicable("champion", "there is none"),
        GateResult.not_applicable("fairness", "no column", role=Role.BLOCKING),
    ]
    reason = "The one required gate passes. 1 of 3 gates had something to test; not applicable: champion, fairness."

    assert combine([PROVEN, *skipped]) == (Outcome.PASS, reason)


def test_no_required_gate_had_anything_to_judge():
    reason = combine([GateResult.not_applicable("champion", "there is none")])[1]

    assert reason == "No required gate had anything to judge. 0 of 1 gates had something to test; not applicable: champion."


def test_stored_pass_that_was_not_asked_is_not_applicable():
    verdict = Verdict(key="k", candidate="c", champion=None, test_digest="t", outcome=Outcome.PASS, reason="good", gates=())
    alone = verdict.model_copy(update={"gates": (PROVEN, GateResult.not_applicable("champion", "there is no champion yet"))})
    stored = json.loads(alone.model_dump_json())
    stored["gates"][1] |= {"outcome": "PASS", "asked": False, "reason": "not asked: there is no champion yet"}
    former = json.loads(json.dumps(stored))
    for each in former["gates"]:
        each["role"] = "decides"

    assert Verdict.model_validate(stored) == alone
    assert alone.evidence == digest_value(former)  # the hash that an approval of 0.1.0 refers to


def test_hypotheses_of_all_gates_are_corrected_together():
    alone = correct_tests([blocking(0.02)])
    among = correct_tests([blocking(0.02), blocking(0.5, 0.6), blocking(0.7)])

    assert alone[0].outcome is Outcome.FAIL
    assert among[0].outcome is Outcome.PASS
    assert [way.adjusted for way in among[0].hypotheses] == [pytest.approx(0.08)]
    assert combine([PROVEN, *alone])[0] is Outcome.FAIL
    assert combine([PROVEN, *among])[0] is Outcome.PASS


def test_reason_is_the_worst_hypothesis():
    (result,) = correct_tests([blocking(0.001, 0.0001, 0.9)])

    assert result.reason == "way 1 is worse, p 0.0003 after Holm's correction (and 1 more)"
    assert [way.rejected for way in result.hypotheses] == [True, True, False]


def test_informational_gate_is_not_corrected_and_cannot_reject():
    shown = blocking(0.0001, role=Role.INFORMATIONAL)
    results = correct_tests([shown, blocking(0.04)])

    assert results[0] == shown
    assert results[1].outcome is Outcome.FAIL
    assert combine([PROVEN, shown])[0] is Outcome.PASS


def test_inconclusive_blocking_gate_does_not_block():
    undecided = GateResult(gate="cost", outcome=Outcome.INCONCLUSIVE, reason="not measured", role=Role.BLOCKING)

    reason = "The one required gate passes; the one blocking gate is inconclusive. Inconclusive: cost."
    assert combine([PROVEN, undecided]) == (Outcome.PASS, reason)
    reason = "All 2 required gates pass; 2 of 3 blocking gates pass. Inconclusive: cost."
    assert combine([PROVEN, PROVEN, blocking(0.5), blocking(0.6), undecided]) == (Outcome.PASS, reason)
    assert combine([PROVEN, blocking(0.5)]) == (Outcome.PASS, "The one required gate passes; the one blocking gate passes.")


def test_no_required_gate_is_inconclusive():
    assert combine([blocking(0.5)])[0] is Outcome.INCONCLUSIVE


def test_off_needs_no_quotes_in_yaml():
    assert GatesParams.parse(yaml.safe_load("floor: {role: off}"), "gates").floor.role is Role.OFF


def test_disabled_gate_is_not_run_and_listed():
    candidate = models(1000, 0.8)[1]
    params = GatesParams.parse({"floor": {"at_least": 0.999, "role": "off"}, "leakage": {"role": "blocking"}}, "gates")
    result = verdict(candidate, params=params)

    assert "floor" in result.off
    assert "floor" not in {gate_result.gate for gate_result in result.gates}
    assert result.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"flor": {}}, "gates.flor is not a setting; did you mean 'floor'"),
        ({"floor": {"at_leest": 0.6}}, "gates.floor.at_leest is not a setting; did you mean 'at_least'"),
        ({"baseline": {"margin": -0.1}}, "gates.baseline.margin"),
        ({"champion": {"margin": -0.02}}, "gates.champion.margin"),
    ],
)
def test_unknown_setting_suggests_the_nearest(raw, message):
    with pytest.raises(BadParams, match=message):
        GatesParams.parse(raw, "gates")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"floor": {"metric": "macrof1"}}, "gates.floor.metric: unknown metric 'macrof1'; did you mean 'macro_f1'"),
        ({"floor": {"at_least": 1}}, "gates.floor.at_least: expected a macro_f1 above 0 and below 1, found 1"),
        ({"baseline": {"against": "tf-idf"}}, "gates.baseline.against: unknown baseline 'tf-idf'; did you mean 'tfidf'"),
        ({"champion": {"also": ["macrof1"]}}, "gates.champion.also: unknown metric 'macrof1'"),
    ],
)
def test_metrics_and_baselines_must_exist_in_the_task(raw, message):
    task = tasks.load("text_classification")

    with pytest.raises(BadParams, match=message):
        check_metrics(GatesParams.parse(raw, "gates"), decidable_metrics(task), task.baselines)
    off = {name: fields | {"role": "off"} for name, fields in raw.items()}
    check_metrics(GatesParams.parse(off, "gates"), decidable_metrics(task), task.baselines)


def test_unknown_gate_suggests_the_nearest():
    with pytest.raises(BadParams, match="did you mean 'champion'"):
        gates.load("champoin")


def test_verdict_key_of_the_release_before_is_kept() -> None:
    """A person's rejection is bound to the key, so a renamed gate or role must not change it."""
    sections: dict[str, Any] = {name: (gates.load(name).Params, gates.load(name).Params()) for name in SHIPPED}
    shipped: Any = create_model("Shipped", **sections)

    assert verdict_key("c" * 8, "4", "t" * 8, shipped(), 10) == "26eaa3aa6c24509675593cbb7dcf3fb7051234892d28c0f04a3a968b8ab78751"


def test_stored_verdict_of_the_release_before_keeps_its_digest() -> None:
    gate = (
        '{{"gate":"{}","outcome":"PASS","reason":"fine","role":"{}","metric":null,"estimate":null,"low":null,"high":null,"threshold":null,'
        '"n":null,"method":null,"change":null,"hypotheses":[],"notes":[],"tables":[]}}'
    )
    gates = f"[{gate.format('looks', 'decides')},{gate.format('slices', 'vetoes')}]"
    stored = (
        '{"key":"k","candidate":"c","champion":null,"test_digest":"t","outcome":"PASS","reason":"r","gates":' + gates + ',"anchor":null,'
        '"level":0.05,"look":null,"off":[],"tested":[]}'
    )
    verdict = Verdict.model_validate_json(stored)

    assert [result.role for result in verdict.gates] == [Role.REQUIRED, Role.BLOCKING]
    assert verdict.evidence == "70b8aa0b01b9b3ceef51036db0d15ced874c316164a387a868d270bbc281a213"
    assert Verdict.model_validate_json(verdict.model_dump_json()).evidence == verdict.evidence
