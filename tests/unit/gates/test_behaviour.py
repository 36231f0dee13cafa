import dataclasses

import numpy as np
import pytest

from components.artifacts.behaviour import Behaviour, Case, CaseReply, CaseResult
from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates import Evidence, ReferenceModel
from tests.support.gate_cases import against, answered, decided

RIGHT = np.arange(200) % 5 != 0


def reply(failed: bool, label: bool = False) -> CaseReply:
    probability = 0.4 if label else None
    return CaseReply(before="a", after="b" if failed else "a", probability_before=probability, probability_after=probability, failed=failed)


def cases(
    kind: str, failing: int, theirs: int | None = None, count: int = 100, groups: int | None = None, skip: int = 0
) -> tuple[CaseResult, ...]:
    """Of `count` cases the candidate fails the first `failing`, the champion `theirs` after `skip`."""
    return tuple(
        CaseResult(
            case=Case(kind=kind, name=kind, group=f"g{number % (groups or count)}", text=f"text {number}", changed=f"txet {number}"),
            candidate=reply(number < failing),
            champion=None if theirs is None else reply(skip <= number < skip + theirs),
        )
        for number in range(count)
    )


def tried(*kinds: tuple[CaseResult, ...], evidence: Evidence | None = None, **settings) -> GateResult:
    seen = Behaviour(tried=tuple(one for kind in kinds for one in kind))
    evidence = evidence or against(answered(RIGHT), answered(RIGHT))
    return decided("behaviour", dataclasses.replace(evidence, behaviour=seen), **settings)


@pytest.mark.parametrize(
    ("failing", "outcome"), [(0, Outcome.PASS), (10, Outcome.PASS), (22, Outcome.INCONCLUSIVE), (40, Outcome.FAIL), (100, Outcome.FAIL)]
)
def test_a_rate_of_failure_is_held_against_its_limit_by_its_interval(failing, outcome):
    result = tried(cases("case", failing))

    assert result.outcome is outcome
    assert result.role is Role.BLOCKING
    assert result.threshold == 0.25
    assert result.estimate == failing / 100
    if outcome is Outcome.FAIL:
        assert "cases of case fail, above gates.behaviour.at_most.case 0.25" in result.reason


@pytest.mark.parametrize(
    ("failing", "theirs", "skip", "outcome"),
    [
        (5, 5, 0, Outcome.PASS),
        (0, 10, 0, Outcome.PASS),
        (2, 0, 0, Outcome.INCONCLUSIVE),
        (8, 4, 50, Outcome.INCONCLUSIVE),  # other cases fail, and nobody can say whose are more
        (20, 0, 0, Outcome.FAIL),
    ],
)
def test_more_failures_than_the_champion_beyond_the_margin_fail(failing, theirs, skip, outcome):
    result = tried(cases("case", failing, theirs, skip=skip))

    assert result.outcome is outcome
    if outcome is Outcome.FAIL:
        assert "+0.200 more cases fail than with champion version 4, not within gates.behaviour.margin 0.05" in result.reason


def test_the_headline_is_what_is_not_settled():
    """Five of 100 are far below the limit; that they are no more than the champion's two, within the margin, is not proven."""
    result = tried(cases("case", 5, 2), cases("typos", 20, 20))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.reason.startswith("+0.030 more cases of case fail than with champion version 4 (")
    assert result.reason.endswith("gates.behaviour.margin 0.05); not settled: case")
    assert (result.metric, result.threshold) == ("difference of failing cases, case", 0.05)
    assert result.low < result.threshold < result.high
    assert result.change == f"gates.behaviour.margin above {result.high:.3f}"


def test_a_significant_loss_within_the_margin_passes():
    result = tried(cases("case", 8, 0, count=1000))

    assert result.outcome is Outcome.PASS
    assert result.hypotheses[1].p == 1


@pytest.mark.parametrize(("failing", "outcome"), [(0, Outcome.INCONCLUSIVE), (40, Outcome.FAIL)])
def test_a_champion_that_cannot_be_asked_is_named_and_the_limits_still_reject(failing, outcome):
    gone = dataclasses.replace(against(answered(RIGHT), None), champion=ReferenceModel("3", None, "it was deleted"))
    result = tried(cases("case", failing), evidence=gone)

    assert result.outcome is outcome
    assert result.reason.startswith("champion version 3 cannot be scored: it was deleted; 0.000 of 100 cases") is (failing == 0)
    assert tried(cases("case", 0), evidence=against(answered(RIGHT), None)).outcome is Outcome.PASS


def test_cases_of_one_group_depend_on_each_other():
    result = tried(cases("case", 40, groups=10))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert any("10 groups" in note for note in result.notes)


def test_a_few_cases_are_shown_and_cannot_reject():
    result = tried(cases("directional", 19, 0, count=19), cases("case", 0))

    assert result.outcome is Outcome.PASS
    assert "directional: 19 cases, shown only" in result.notes
    assert [row[0] for row in result.tables[0].rows] == ["directional", "case"]
    assert tried(cases("directional", 19, count=19)).outcome is Outcome.INCONCLUSIVE


def test_every_kind_has_its_own_limit_and_all_are_corrected_together():
    result = tried(cases("typos", 40, 40), cases("width", 40, 40), cases("padding", 34, 34))

    assert [way.name for way in result.hypotheses if "too many" in way.name] == [
        "typos: too many failures",
        "width: too many failures",
        "padding: too many failures",
    ]
    assert all(way.adjusted >= way.p for way in result.hypotheses)
    assert result.metric == "failing cases, padding"


def test_the_champion_is_compared_on_the_cases_that_it_can_answer():
    known, unknown = cases("case", 0, 0, count=30), cases("case", 30, count=30)
    result = tried((*known, *unknown))

    assert result.tables[0].rows[0][7:] == pytest.approx((0.0, 0.0, result.tables[0].rows[0][9], result.tables[0].rows[0][10]))
    assert [way.name for way in result.hypotheses] == ["case: too many failures", "case: more failures than champion version 4"]
    assert len(tried(cases("case", 0)).hypotheses) == 1


def test_failing_cases_are_listed_by_kind_in_turn():
    result = tried(cases("typos", 30, 0), cases("case", 2))
    table = result.tables[1]

    assert table.title == "Failing cases (32 fail, the first 20)"
    assert [row[0] for row in table.rows[:5]] == ["typos", "case", "typos", "case", "typos"]
    assert table.rows[0] == ("typos", "text 0", "txet 0", "a", "b", None, "passes")
    assert len(table.rows) == 20


def test_a_directional_failure_shows_its_probabilities():
    case = Case(kind="directional", name="newborn", group="d", text="a", changed="b", label="perinatal", must="not fall", by=0.1)
    result = tried((CaseResult(case=case, candidate=reply(True, label=True)),), cases("case", 0))

    expected = ("directional: newborn", "a", "b", "perinatal 0.400", "0.400", "must not fall by at most 0.1", None)
    assert result.tables[1].rows[0] == expected


def test_what_was_not_tried_is_said():
    assert tried().outcome is Outcome.INCONCLUSIVE
    missing = decided("behaviour", against(answered(RIGHT), None))
    assert missing.outcome is Outcome.INCONCLUSIVE
    assert missing.reason == "no case was tried"
    noted = dataclasses.replace(against(answered(RIGHT), None), behaviour=Behaviour(notes=("case: no test row has anything to change",)))
    assert "no test row has anything to change" in decided("behaviour", noted).reason


@pytest.mark.parametrize("failing", [0, 1, 99, 100])
def test_no_number_is_missing_at_the_ends(failing):
    result = tried(cases("case", failing, 100 - failing), evidence=against(answered(RIGHT), answered(RIGHT), level=0.01))

    numbers = [result.estimate, result.low, result.high, *(way.p for way in result.hypotheses), *result.tables[0].rows[0][3:]]
    assert all(np.isfinite(float(number)) for number in numbers)


def test_the_interval_is_that_of_the_level():
    wide = tried(cases("case", 10), evidence=against(answered(RIGHT), None, level=0.01))
    narrow = tried(cases("case", 10), evidence=against(answered(RIGHT), None, level=0.05))

    assert wide.low < narrow.low < narrow.high < wide.high
    assert "98 %" in wide.reason
