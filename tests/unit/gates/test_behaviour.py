import dataclasses

import numpy as np
import pytest

from components.artifacts.behaviour import Behaviour, Case, CaseReply, CaseResult
from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates.support import Evidence, ReferenceModel
from tests.support.gate_cases import advised, against, answered, decided

RIGHT = np.arange(200) % 5 != 0


def reply(failed: bool, label: bool = False) -> CaseReply:
    probability = 0.4 if label else None
    return CaseReply(before="a", after="b" if failed else "a", probability_before=probability, probability_after=probability, failed=failed)


def cases(
    kind: str, failing: int, champion_failing: int | None = None, count: int = 100, groups: int | None = None, skip: int = 0
) -> tuple[CaseResult, ...]:
    """Return `count` cases: the candidate fails the first `failing`, the champion `champion_failing` after `skip`."""
    return tuple(
        CaseResult(
            case=Case(kind=kind, name=kind, group=f"g{number % (groups or count)}", text=f"text {number}", changed=f"txet {number}"),
            candidate=reply(number < failing),
            champion=None if champion_failing is None else reply(skip <= number < skip + champion_failing),
        )
        for number in range(count)
    )


def run_gate(*kinds: tuple[CaseResult, ...], evidence: Evidence | None = None, **settings) -> GateResult:
    behaviour = Behaviour(tried=tuple(case for kind in kinds for case in kind))
    evidence = evidence or against(answered(RIGHT), answered(RIGHT))
    return decided("behaviour", dataclasses.replace(evidence, behaviour=behaviour), **settings)


@pytest.mark.parametrize(
    ("failing", "outcome"), [(0, Outcome.PASS), (10, Outcome.PASS), (22, Outcome.INCONCLUSIVE), (40, Outcome.FAIL), (100, Outcome.FAIL)]
)
def test_failure_rate_decides_by_its_interval(failing, outcome):
    result = run_gate(cases("case", failing))

    assert result.outcome is outcome
    assert result.role is Role.BLOCKING
    assert result.threshold == 0.25
    assert result.estimate == failing / 100
    if outcome is Outcome.FAIL:
        assert "cases of case fail, above gates.behaviour.at_most.case 0.25" in result.reason


@pytest.mark.parametrize(
    ("failing", "champion_failing", "skip", "outcome"),
    [
        (5, 5, 0, Outcome.PASS),
        (0, 10, 0, Outcome.PASS),
        (2, 0, 0, Outcome.INCONCLUSIVE),
        (8, 4, 50, Outcome.INCONCLUSIVE),  # other cases fail: no significant difference
        (20, 0, 0, Outcome.FAIL),
    ],
)
def test_more_failures_than_the_champion_are_rejected(failing, champion_failing, skip, outcome):
    result = run_gate(cases("case", failing, champion_failing, skip=skip))

    assert result.outcome is outcome
    if outcome is Outcome.FAIL:
        assert "+0.200 more cases fail than with champion version 4, not within gates.behaviour.margin 0.05" in result.reason


def test_reason_is_the_undecided_limit():
    """5 of 100 failures are far below the limit, but not proven to be within the margin of the champion's 2."""
    result = run_gate(cases("case", 5, 2), cases("typos", 20, 20))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.reason.startswith("+0.030 more cases of case fail than with champion version 4 (")
    assert result.reason.endswith("gates.behaviour.margin 0.05); undecided: case")
    assert (result.metric, result.threshold) == ("difference of failing cases, case", 0.05)
    assert result.low < result.threshold < result.high


def test_advice_has_the_stated_outcome():
    tried = (cases("case", 5, 2), cases("typos", 45, 45))
    result = run_gate(*tried)
    stated, settings = advised(result)

    assert (result.outcome, stated) == (Outcome.INCONCLUSIVE, Outcome.PASS)
    assert set(settings) == {"margin", "at_most"}
    assert run_gate(*tried, **settings).outcome is stated
    assert advised(run_gate(*tried, **settings))[0] is Outcome.INCONCLUSIVE


def test_significant_loss_within_the_margin_passes():
    result = run_gate(cases("case", 8, 0, count=1000))

    assert result.outcome is Outcome.PASS
    assert result.hypotheses[1].p == 1


@pytest.mark.parametrize(("failing", "outcome"), [(0, Outcome.INCONCLUSIVE), (40, Outcome.FAIL)])
def test_limits_reject_without_a_usable_champion(failing, outcome):
    gone = dataclasses.replace(against(answered(RIGHT), None), champion=ReferenceModel("3", None, "it was deleted"))
    result = run_gate(cases("case", failing), evidence=gone)

    assert result.outcome is outcome
    assert result.reason.startswith("champion version 3 cannot be scored: it was deleted; 0.000 of 100 cases") is (failing == 0)
    assert run_gate(cases("case", 0), evidence=against(answered(RIGHT), None)).outcome is Outcome.PASS


def test_cases_of_a_group_are_one_unit():
    result = run_gate(cases("case", 40, groups=10))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert any("10 groups" in note for note in result.notes)


def test_few_cases_are_informational():
    result = run_gate(cases("directional", 19, 0, count=19), cases("case", 0))

    assert result.outcome is Outcome.PASS
    assert "directional: 19 cases, for information only" in result.notes
    assert [row[0] for row in result.tables[0].rows] == ["directional", "case"]
    assert run_gate(cases("directional", 19, count=19)).outcome is Outcome.INCONCLUSIVE


def test_kinds_have_own_limits_and_a_common_correction():
    result = run_gate(cases("typos", 40, 40), cases("width", 40, 40), cases("padding", 34, 34))

    assert [way.name for way in result.hypotheses if "too many" in way.name] == [
        "typos: too many failures",
        "width: too many failures",
        "padding: too many failures",
    ]
    assert all(way.adjusted >= way.p for way in result.hypotheses)
    assert result.metric == "failing cases, padding"


def test_champion_is_compared_on_cases_it_can_answer():
    known, unknown = cases("case", 0, 0, count=30), cases("case", 30, count=30)
    result = run_gate((*known, *unknown))

    assert result.tables[0].rows[0][7:] == pytest.approx((0.0, 0.0, result.tables[0].rows[0][9], result.tables[0].rows[0][10]))
    assert [way.name for way in result.hypotheses] == ["case: too many failures", "case: more failures than champion version 4"]
    assert len(run_gate(cases("case", 0)).hypotheses) == 1


def test_failing_cases_alternate_between_kinds():
    result = run_gate(cases("typos", 30, 0), cases("case", 2))
    table = result.tables[1]

    assert table.title == "Failing cases (32 fail, the first 20)"
    assert [row[0] for row in table.rows[:5]] == ["typos", "case", "typos", "case", "typos"]
    assert table.rows[0] == ("typos", "text 0", "txet 0", "a", "b", None, "passes")
    assert len(table.rows) == 20


def test_directional_failure_lists_probabilities():
    case = Case(kind="directional", name="newborn", group="d", text="a", changed="b", label="perinatal", must="not fall", by=0.1)
    result = run_gate((CaseResult(case=case, candidate=reply(True, label=True)),), cases("case", 0))

    expected = ("directional: newborn", "a", "b", "perinatal 0.400", "0.400", "must not fall by at most 0.1", None)
    assert result.tables[1].rows[0] == expected


def test_missing_cases_are_inconclusive():
    assert run_gate().outcome is Outcome.INCONCLUSIVE
    missing = decided("behaviour", against(answered(RIGHT), None))
    assert missing.outcome is Outcome.INCONCLUSIVE
    assert missing.reason == "no case was run"
    assert decided("behaviour", against(answered(RIGHT), None), kinds=()).outcome is Outcome.NOT_APPLICABLE
    noted = dataclasses.replace(against(answered(RIGHT), None), behaviour=Behaviour(notes=("case: no test row has anything to change",)))
    assert "no test row has anything to change" in decided("behaviour", noted).reason


@pytest.mark.parametrize("failing", [0, 1, 99, 100])
def test_numbers_are_finite_at_the_ends(failing):
    result = run_gate(cases("case", failing, 100 - failing), evidence=against(answered(RIGHT), answered(RIGHT), level=0.01))

    numbers = [result.estimate, result.low, result.high, *(way.p for way in result.hypotheses), *result.tables[0].rows[0][3:]]
    assert all(np.isfinite(float(number)) for number in numbers)


def test_interval_follows_the_level():
    wide = run_gate(cases("case", 10), evidence=against(answered(RIGHT), None, level=0.01))
    narrow = run_gate(cases("case", 10), evidence=against(answered(RIGHT), None, level=0.05))

    assert wide.low < narrow.low < narrow.high < wide.high
    assert "98 %" in wide.reason
