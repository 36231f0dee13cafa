import dataclasses

import numpy as np
import pandas as pd
import pytest

from components.artifacts.metrics import MIN_GROUPS
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.core.errors import BadParams
from components.gates import slices
from components.gates.support import Evidence, ReferenceModel
from components.stats.significance import mcnemar
from tests.support.gate_cases import advised, against, answered, decided

KINDS = np.array(["synonym", "inclusion", "title"])


def rows_of(predictions: Predictions, **columns) -> pd.DataFrame:
    n = len(predictions.ids)
    texts = [f"{'printer ' * (1 + i % 7)}number {i}" for i in range(n)]
    base = {"id": predictions.ids, "group": predictions.groups, "text": texts, "label": predictions.expected}
    return pd.DataFrame(base | columns)


def pair(n: int, lost: np.ndarray, groups: np.ndarray | None = None, **columns) -> Evidence:
    """Return a champion with 90 % accuracy, and a candidate that is also wrong on the rows `lost`."""
    right = np.arange(n) % 10 != 3
    candidate, champion = answered(right & ~lost, groups), answered(right, groups)
    return against(candidate, champion, rows=rows_of(candidate, **columns), train=rows_of(champion))


def judge(evidence: Evidence, **settings) -> GateResult:
    return decided("slices", evidence, **settings)


def table(result: GateResult) -> dict[str, dict[str, object]]:
    return {str(row[0]): dict(zip(result.tables[0].columns, row, strict=True)) for row in result.tables[0].rows}


def test_loss_in_one_slice_is_rejected():
    n, kind = 3000, KINDS[np.arange(3000) // 300 % 3]
    lost = (kind == "inclusion") & (np.arange(n) % 20 == 0)
    result = judge(pair(n, lost, kind=kind), columns=["kind"])

    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith("accuracy on kind=inclusion is worse than that of champion version 4 by 0.05")
    assert result.notes[0].startswith("the worst slice: kind=inclusion")
    assert next(iter(table(result))) == "kind=inclusion"


def test_equal_model_is_not_rejected():
    n = 3000
    result = judge(pair(n, np.zeros(n, bool), kind=KINDS[np.arange(n) % 3]), columns=["kind"])

    assert result.outcome is Outcome.PASS
    assert {model.p for model in result.hypotheses} == {1.0}
    assert {row["status"] for row in table(result).values()} == {"cannot decide"}


def test_p_equals_the_mid_p_mcnemar_test():
    n = 1200
    lost = np.arange(n) % 100 == 0
    result = judge(pair(n, lost, kind=KINDS[np.arange(n) % 3]), columns=["kind"], built_in=[])

    assert [model.name for model in result.hypotheses] == [
        f"accuracy on kind={kind} worse than champion version 4" for kind in ("inclusion", "synonym", "title")
    ]
    assert {model.p for model in result.hypotheses} == {mcnemar(0, 4)}


def test_slices_need_fifty_groups():
    n = 3000
    kind = np.select([np.arange(n) // 5 < 60, np.arange(n) // 5 >= 600 - (MIN_GROUPS - 1)], ["many", "too few"], "few")
    groups = np.array([f"g{i // 5:04d}" for i in range(n)])
    result = judge(pair(n, np.arange(n) % 50 == 0, groups, kind=kind), columns=["kind"], built_in=[])

    assert {name: row["status"] for name, row in table(result).items()} == {
        "kind=many": "may reject",
        "kind=few": "may reject",
        "kind=too few": "too small",
    }
    assert "delete-one-group jackknife" in str(result.method)


def test_small_slice_is_informational():
    n = 600
    kind = np.where(np.arange(n) < 3, "tiny", "usual")
    result = judge(pair(n, np.arange(n) < 3, kind=kind), columns=["kind"])

    assert result.outcome is Outcome.PASS
    assert table(result)["kind=tiny"]["status"] == "too small"
    assert any("smaller slices, which cannot reject: kind=tiny" in note for note in result.notes)


def test_unknown_column_is_inconclusive_and_others_reject():
    n, kind = 3000, KINDS[np.arange(3000) // 300 % 3]
    evidence = pair(n, (kind == "title") & (np.arange(n) % 10 == 0), kind=kind)
    alone = judge(pair(n, np.zeros(n, bool), kind=kind), columns=["knd"], built_in=["label"])
    result = judge(evidence, columns=["knd", "kind"])

    assert alone.outcome is Outcome.INCONCLUSIVE
    assert "gates.slices.columns: no column 'knd'; available: group, label, kind" in alone.reason
    assert result.outcome is Outcome.FAIL


def test_accuracies_are_reported_without_a_champion():
    candidate = answered(np.arange(400) % 4 != 0)
    result = judge(against(candidate, None, rows=rows_of(candidate)))

    assert result.outcome is Outcome.NOT_APPLICABLE
    assert table(result)["label=network"]["candidate"] == pytest.approx(0.75, abs=0.01)
    assert result.hypotheses == ()


def test_unscorable_champion_is_inconclusive():
    candidate = answered(np.ones(400, bool))
    evidence = dataclasses.replace(against(candidate, None, rows=rows_of(candidate)), champion=ReferenceModel("3", None, "it is gone"))

    assert judge(evidence).outcome is Outcome.INCONCLUSIVE
    assert "cannot be scored: it is gone" in judge(evidence).reason


def test_rows_with_labels_new_to_the_champion_are_excluded():
    candidate = answered(np.ones(900, bool))
    champion = dataclasses.replace(candidate, predicted=np.full(900, "billing"), labels=("billing", "device"))
    result = judge(against(candidate, champion, rows=rows_of(candidate)))

    assert "label=network" not in table(result)
    assert "300 rows with a label that the champion does not have are excluded" in result.notes


def test_fifty_most_frequent_values_are_compared():
    n = 1000
    shop = np.array([f"s{min(i // 10, 60):02d}" for i in range(n)])
    result = judge(pair(n, np.zeros(n, bool), shop=shop), columns=["shop"], built_in=[])

    assert len(result.tables[0].rows) == 50
    assert "shop has 61 values: the 50 most frequent are compared, 110 rows have another" in result.notes


def test_missing_cells_are_a_separate_value():
    n = 300
    result = judge(pair(n, np.zeros(n, bool), kind=["a", None, float("nan")] * 100), columns=["kind"], built_in=[])

    assert {name: row["rows"] for name, row in table(result).items()} == {"kind=(none)": 200, "kind=a": 100}


def test_built_in_slices():
    n = 900
    evidence = pair(n, np.zeros(n, bool), source=np.where(np.arange(n) % 2, "mail", "phone"))
    names = list(table(judge(evidence)))

    kinds = {name.split("=")[0] for name in names}
    assert kinds == {"length", "label", "rare words", "source"}
    assert sum(name.startswith("length=") for name in names) == 3
    lengths = [row["rows"] for name, row in table(judge(evidence)).items() if name.startswith("length=")]
    assert sum(lengths) == n


def test_rare_words_occur_less_than_three_times_in_training():
    n = 300
    candidate = answered(np.ones(n, bool))
    rows = rows_of(candidate).assign(text=["seen seen"] * 150 + ["seen new"] * 100 + ["twice new"] * 50)
    train = pd.DataFrame({"text": ["seen"] * 3 + ["twice"] * 2})
    result = judge(against(candidate, candidate, rows=rows, train=train), built_in=["rare_words"])

    assert {name: row["rows"] for name, row in table(result).items()} == {
        "rare words=few (up to 0 % of the words)": 150,
        "rare words=some (up to 50 % of the words)": 100,
        "rare words=many (above 50 % of the words)": 50,
    }


@pytest.mark.parametrize("n", [1, 2, 20])
@pytest.mark.parametrize("right", [True, False])
def test_few_rows_are_inconclusive(n, right):
    model = answered(np.full(n, right))
    result = judge(against(model, model, rows=rows_of(model), train=rows_of(model).head(0)))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.reason == "no slice has 100 rows (gates.slices.min_rows)"
    assert result.change == "a larger test set"


def test_smaller_slices_are_advised_if_they_are_large_enough():
    evidence = pair(240, np.zeros(240, bool))
    stated, settings = advised(judge(evidence, built_in=["label"]))

    assert settings == {"min_rows": 80}
    assert judge(evidence, built_in=["label"], **settings).outcome is stated is Outcome.PASS


def test_advice_with_groups_is_about_groups():
    groups = np.array([f"g{i // 5:04d}" for i in range(240)])
    result = judge(pair(240, np.zeros(240, bool), groups), built_in=["label"], min_rows=50)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.reason == f"no slice has {MIN_GROUPS} groups"
    assert str(result.change).startswith(f"a test set of at least {MIN_GROUPS} groups (now 48)")


def test_rows_must_match_the_predictions():
    model = answered(np.ones(200, bool))

    assert "another order" in judge(against(model, model, rows=rows_of(model)[::-1])).reason
    assert "no test rows" in judge(against(model, model)).reason


@pytest.mark.parametrize(
    ("raw", "message"), [({"min_rows": 49}, "min_rows"), ({"built_in": ["lenght"]}, "built_in"), ({"colums": ["a"]}, "did you mean")]
)
def test_invalid_setting_is_refused(raw, message):
    with pytest.raises(BadParams, match=message):
        slices.Params.parse(raw, "gates.slices")


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "changed"), [(None, 0.12), (5, 0.12), (5, 0.06)])
def test_equal_models_are_rejected_in_at_most_5_percent(groups, changed):
    """Ten slices of unequal size; a share of the rows is answered differently, correlated within groups."""
    generator, n, repetitions, rejected = np.random.default_rng(11), 1500, 150, 0
    shares = 1 / np.arange(1, 11)
    for _ in range(repetitions):
        index = np.arange(n) // (groups or 1)
        kind = generator.choice(10, n, p=shares / shares.sum()).astype(str)
        luck = generator.beta(2, 2, index.max() + 1)[index] if groups else np.full(n, 0.5)
        differ, wins = generator.random(n) < changed, generator.random(n) < luck
        names = np.array([f"g{i:05d}" for i in index])
        candidate, champion = answered(~(differ & ~wins), names), answered(~(differ & wins), names)
        result = judge(against(candidate, champion, rows=rows_of(candidate, kind=kind)), columns=["kind"], built_in=[])
        assert result.hypotheses
        rejected += result.outcome is Outcome.FAIL

    assert rejected / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
