import dataclasses

import numpy as np
import pandas as pd
import pytest

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import BadParams
from components.gates import Evidence, ReferenceModel, slices
from components.stats import MIN_GROUPS, mcnemar
from tests.support.gate_cases import against, answered, decided

KINDS = np.array(["synonym", "inclusion", "title"])


def rows_of(predictions: Predictions, **columns) -> pd.DataFrame:
    n = len(predictions.ids)
    texts = [f"{'printer ' * (1 + i % 7)}number {i}" for i in range(n)]
    base = {"id": predictions.ids, "group": predictions.groups, "text": texts, "label": predictions.expected}
    return pd.DataFrame(base | columns)


def pair(n: int, lost: np.ndarray, groups: np.ndarray | None = None, **columns) -> Evidence:
    """A champion that is right on nine rows in ten, and a candidate that is wrong on the rows `lost` besides."""
    right = np.arange(n) % 10 != 3
    candidate, champion = answered(right & ~lost, groups), answered(right, groups)
    return against(candidate, champion, rows=rows_of(candidate, **columns), train=rows_of(champion))


def asked(evidence: Evidence, **settings) -> GateResult:
    return decided("slices", evidence, **settings)


def table(found: GateResult) -> dict[str, dict[str, object]]:
    return {str(row[0]): dict(zip(found.tables[0].columns, row, strict=True)) for row in found.tables[0].rows}


def test_a_loss_in_one_slice_rejects_though_the_whole_hides_it():
    n, kind = 3000, KINDS[np.arange(3000) // 300 % 3]
    lost = (kind == "inclusion") & (np.arange(n) % 20 == 0)
    found = asked(pair(n, lost, kind=kind), columns=["kind"])

    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith("accuracy on kind=inclusion is worse than that of champion version 4 by 0.05")
    assert found.notes[0].startswith("the worst slice: kind=inclusion")
    assert next(iter(table(found))) == "kind=inclusion"


def test_the_candidate_against_itself_is_rejected_nowhere():
    n = 3000
    found = asked(pair(n, np.zeros(n, bool), kind=KINDS[np.arange(n) % 3]), columns=["kind"])

    assert found.outcome is Outcome.PASS
    assert {one.p for one in found.hypotheses} == {1.0}
    assert {row["standing"] for row in table(found).values()} == {"cannot decide"}


def test_the_p_is_that_of_the_mid_p_mcnemar_test():
    n = 1200
    lost = np.arange(n) % 100 == 0
    found = asked(pair(n, lost, kind=KINDS[np.arange(n) % 3]), columns=["kind"], built_in=[])

    assert [one.name for one in found.hypotheses] == [
        f"accuracy on kind={kind} worse than champion version 4" for kind in ("inclusion", "synonym", "title")
    ]
    assert {one.p for one in found.hypotheses} == {mcnemar(0, 4)}


def test_groups_are_compared_by_the_jackknife_and_need_fifty_of_them():
    n = 3000
    kind = np.select([np.arange(n) // 5 < 60, np.arange(n) // 5 >= 600 - (MIN_GROUPS - 1)], ["many", "too few"], "few")
    groups = np.array([f"g{i // 5:04d}" for i in range(n)])
    found = asked(pair(n, np.arange(n) % 50 == 0, groups, kind=kind), columns=["kind"], built_in=[])

    assert {name: row["standing"] for name, row in table(found).items()} == {
        "kind=many": "may reject",
        "kind=few": "may reject",
        "kind=too few": "too small",
    }
    assert "delete-one-group jackknife" in str(found.method)


def test_a_slice_of_three_rows_is_shown_and_rejects_nothing():
    n = 600
    kind = np.where(np.arange(n) < 3, "tiny", "usual")
    found = asked(pair(n, np.arange(n) < 3, kind=kind), columns=["kind"])

    assert found.outcome is Outcome.PASS
    assert table(found)["kind=tiny"]["standing"] == "too small"
    assert any("smaller slices, which reject nothing: kind=tiny" in note for note in found.notes)


def test_an_absent_column_is_named_with_those_that_there_are_and_the_others_still_reject():
    n, kind = 3000, KINDS[np.arange(3000) // 300 % 3]
    evidence = pair(n, (kind == "title") & (np.arange(n) % 10 == 0), kind=kind)
    alone = asked(pair(n, np.zeros(n, bool), kind=kind), columns=["knd"], built_in=["label"])
    found = asked(evidence, columns=["knd", "kind"])

    assert alone.outcome is Outcome.INCONCLUSIVE
    assert "gates.slices.columns: no column 'knd'; there are: group, label, kind" in alone.reason
    assert found.outcome is Outcome.FAIL


def test_without_a_champion_the_accuracies_are_shown():
    candidate = answered(np.arange(400) % 4 != 0)
    found = asked(against(candidate, None, rows=rows_of(candidate)))

    assert (found.outcome, found.shown) == (Outcome.PASS, "NOT ASKED")
    assert table(found)["label=network"]["candidate"] == pytest.approx(0.75, abs=0.01)
    assert found.hypotheses == ()


def test_a_champion_that_cannot_be_scored_leaves_it_open():
    candidate = answered(np.ones(400, bool))
    evidence = dataclasses.replace(against(candidate, None, rows=rows_of(candidate)), champion=ReferenceModel("3", None, "it is gone"))

    assert asked(evidence).outcome is Outcome.INCONCLUSIVE
    assert "cannot be scored: it is gone" in asked(evidence).reason


def test_rows_that_the_champion_has_no_label_for_are_left_out():
    candidate = answered(np.ones(900, bool))
    champion = dataclasses.replace(candidate, predicted=np.full(900, "billing"), labels=("billing", "device"))
    found = asked(against(candidate, champion, rows=rows_of(candidate)))

    assert "label=network" not in table(found)
    assert "300 rows with a label that the champion does not have are left out" in found.notes


def test_of_many_values_the_fifty_most_frequent_are_compared():
    n = 1000
    shop = np.array([f"s{min(i // 10, 60):02d}" for i in range(n)])
    found = asked(pair(n, np.zeros(n, bool), shop=shop), columns=["shop"], built_in=[])

    assert len(found.tables[0].rows) == 50
    assert "shop has 61 values: the 50 most frequent are compared, 110 rows have another" in found.notes


def test_missing_cells_are_a_value_of_their_own():
    n = 300
    found = asked(pair(n, np.zeros(n, bool), kind=["a", None, float("nan")] * 100), columns=["kind"], built_in=[])

    assert {name: row["rows"] for name, row in table(found).items()} == {"kind=(none)": 200, "kind=a": 100}


def test_the_built_in_slices_cut_by_length_label_rare_words_and_source():
    n = 900
    evidence = pair(n, np.zeros(n, bool), source=np.where(np.arange(n) % 2, "mail", "phone"))
    names = list(table(asked(evidence)))

    kinds = {name.split("=")[0] for name in names}
    assert kinds == {"length", "label", "rare words", "source"}
    assert sum(name.startswith("length=") for name in names) == 3
    lengths = [row["rows"] for name, row in table(asked(evidence)).items() if name.startswith("length=")]
    assert sum(lengths) == n


def test_words_are_rare_that_training_holds_fewer_than_three_times():
    n = 300
    candidate = answered(np.ones(n, bool))
    rows = rows_of(candidate).assign(text=["seen seen"] * 150 + ["seen new"] * 100 + ["twice new"] * 50)
    train = pd.DataFrame({"text": ["seen"] * 3 + ["twice"] * 2})
    found = asked(against(candidate, candidate, rows=rows, train=train), built_in=["rare_words"])

    assert {name: row["rows"] for name, row in table(found).items()} == {
        "rare words=few (up to 0 % of the words)": 150,
        "rare words=some (up to 50 % of the words)": 100,
        "rare words=many (above 50 % of the words)": 50,
    }


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("right", [True, False])
def test_a_handful_of_rows_settles_nothing_and_breaks_nothing(n, right):
    one = answered(np.full(n, right))
    found = asked(against(one, one, rows=rows_of(one), train=rows_of(one).head(0)))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == "no slice has 100 rows (gates.slices.min_rows)"
    assert found.change == "a larger test set, or gates.slices.min_rows of 50"


def test_where_groups_count_the_advice_names_groups_and_no_setting_that_counts_rows():
    groups = np.array([f"g{i // 5:04d}" for i in range(240)])
    found = asked(pair(240, np.zeros(240, bool), groups), built_in=["label"], min_rows=50)

    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == f"no slice has {MIN_GROUPS} groups"
    assert found.change == "a test set with more groups"


def test_rows_that_are_not_those_of_the_predictions_are_refused():
    one = answered(np.ones(200, bool))

    assert "another order" in asked(against(one, one, rows=rows_of(one)[::-1])).reason
    assert "not handed over" in asked(against(one, one)).reason


@pytest.mark.parametrize(
    ("raw", "message"), [({"min_rows": 49}, "min_rows"), ({"built_in": ["lenght"]}, "built_in"), ({"colums": ["a"]}, "did you mean")]
)
def test_a_wrong_setting_is_named(raw, message):
    with pytest.raises(BadParams, match=message):
        slices.Params.parse(raw, "gates.slices")


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "changed"), [(None, 0.12), (5, 0.12), (5, 0.06)])
def test_equal_models_are_rejected_in_no_more_than_five_of_a_hundred_test_sets(groups, changed):
    """Ten slices of unequal size; a share of the rows answered differently, in groups by the group's own luck."""
    generator, n, repetitions, rejected = np.random.default_rng(11), 1500, 150, 0
    shares = 1 / np.arange(1, 11)
    for _ in range(repetitions):
        index = np.arange(n) // (groups or 1)
        kind = generator.choice(10, n, p=shares / shares.sum()).astype(str)
        luck = generator.beta(2, 2, index.max() + 1)[index] if groups else np.full(n, 0.5)
        differ, mine = generator.random(n) < changed, generator.random(n) < luck
        names = np.array([f"g{i:05d}" for i in index])
        candidate, champion = answered(~(differ & ~mine), names), answered(~(differ & mine), names)
        found = asked(against(candidate, champion, rows=rows_of(candidate, kind=kind)), columns=["kind"], built_in=[])
        assert found.hypotheses
        rejected += found.outcome is Outcome.FAIL

    assert rejected / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
