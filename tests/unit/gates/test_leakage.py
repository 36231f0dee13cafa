import dataclasses
import re
import time

import numpy as np
import pandas as pd
import pytest

from components.artifacts.verdict import GateResult, Outcome, Role
from components.core.errors import BadParams
from components.gates import Evidence, TrainingRows, leakage
from components.gates.support.leak_probe import _foretold, probe
from components.judge.multiple_testing import combine
from tests.support.gate_cases import LABELS, against, answered, decided

WORDS = np.array([f"word{i}" for i in range(3000)])


def texts(n: int, seed: int, length: int = 8) -> list[str]:
    return [" ".join(row) for row in np.random.default_rng(seed).choice(WORDS, (n, length))]


def table(n: int, seed: int) -> pd.DataFrame:
    ids = [f"t{seed}-{i:06d}" for i in range(n)]
    return pd.DataFrame({"id": ids, "group": ids, "text": texts(n, seed), "label": np.array(LABELS)[np.arange(n) % 3]})


def evidence(n: int = 400, champion: bool = False, **changes) -> Evidence:
    candidate = answered(np.arange(n) % 5 != 0)
    rows = table(n, 1).assign(id=candidate.ids, group=candidate.groups, label=candidate.expected)
    known = {"rows": rows, "train": table(3 * n, 2), **changes}
    return against(candidate, candidate if champion else None, **known)


def copied(train: pd.DataFrame, rows: pd.DataFrame, count: int, **changes) -> pd.DataFrame:
    """The training rows, the first `count` of which carry text and label of the first test rows."""
    taken = rows.head(count)
    copies = train.head(count).assign(text=taken["text"].to_numpy(), label=taken["label"].to_numpy()).assign(**changes)
    return pd.concat([copies, train.iloc[count:]], ignore_index=True)


def learnt(rows: pd.DataFrame) -> tuple[TrainingRows, ...]:
    return (TrainingRows("champion version 4", rows),)


def counted(found: GateResult) -> dict[str, int]:
    """The rows counted, by the setting of their limit and, where a champion learnt from them, who did."""
    who = [re.search("champion version 4|earlier champions", str(row[0])) for row in found.tables[0].rows]
    return {f"{row[4]}{f' ({one[0]})' if one else ''}": int(str(row[1])) for row, one in zip(found.tables[0].rows, who, strict=True)}


def test_a_test_set_of_its_own_passes():
    found = decided("leakage", evidence())

    assert found.outcome is Outcome.PASS
    assert set(counted(found).values()) == {0}
    assert found.tables[1].rows == ()


def test_one_copied_row_is_enough_and_is_shown():
    seen = evidence()
    found = decided("leakage", dataclasses.replace(seen, train=copied(seen.train, seen.rows, 1)))

    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith("1 of 400 test rows (0.25 %) stand word for word among the rows learnt from, above gates.leakage.max_e")
    assert found.tables[1].rows[0][:3] == ("same text", "r000000", "t2-000000")


def test_long_texts_are_cut_in_the_table_of_pairs():
    seen = evidence()
    rows = seen.rows.assign(text=["x" * 80 if i == 0 else "y" * 81 if i == 1 else text for i, text in enumerate(seen.rows["text"])])
    found = decided("leakage", dataclasses.replace(seen, rows=rows, train=copied(seen.train, rows, 2)))

    assert [row[4] for row in found.tables[1].rows] == ["x" * 80, "y" * 79 + "…"]


def test_a_copy_is_known_through_spaces_and_invisible_characters():
    seen = evidence()
    train = copied(seen.train, seen.rows, 1)
    train.loc[0, "text"] = "  " + train.loc[0, "text"].replace(" ", "\u00a0 \u200b")

    assert counted(decided("leakage", dataclasses.replace(seen, train=train)))["max_exact_share"] == 1


def test_near_copies_have_a_limit_of_their_own():
    seen = evidence()
    rows = seen.rows.assign(text=[text.upper() + "!" if i < 5 else text for i, text in enumerate(seen.rows["text"])])
    for copies, outcome in [(4, Outcome.PASS), (5, Outcome.FAIL)]:
        found = decided("leakage", dataclasses.replace(seen, rows=rows, train=copied(seen.train, seen.rows, copies)))
        assert found.outcome is outcome
        assert (counted(found)["max_near_share"], counted(found)["max_exact_share"]) == (copies, 0)


def test_the_same_text_with_another_label_is_a_conflict_even_where_copies_are_allowed():
    seen = evidence()
    train = copied(seen.train, seen.rows, 2)
    train.loc[1, "label"] = "device" if train.loc[1, "label"] != "device" else "network"
    found = decided("leakage", dataclasses.replace(seen, train=train), max_exact_share=0.5)

    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith("1 of 400 test rows (0.25 %) stand with another label among")


def test_rows_that_stand_twice_in_the_test_set_make_it_smaller_than_it_seems():
    seen = evidence()
    for copies, outcome in [(20, Outcome.PASS), (21, Outcome.FAIL)]:
        repeated = [seen.rows["text"][0] if 0 < i <= copies else text for i, text in enumerate(seen.rows["text"])]
        found = decided("leakage", dataclasses.replace(seen, rows=seen.rows.assign(text=repeated)))
        assert found.outcome is outcome
        assert counted(found)["max_test_duplicate_share"] == copies


def test_rows_that_the_champion_learnt_leave_and_reject_nobody():
    seen = evidence(champion=True)
    for copies, outcome in [(20, Outcome.PASS), (21, Outcome.INCONCLUSIVE)]:
        found = decided("leakage", dataclasses.replace(seen, seen=learnt(copied(seen.train, seen.rows, copies))))
        assert found.outcome is outcome
        assert f"{copies} of 400 test rows leave every comparison: a compared model has learnt them or near copies" in found.notes
        assert counted(found)["max_learnt_share (champion version 4)"] == copies
    assert found.reason.startswith(
        "21 of 400 test rows (5.25 %) were learnt by a compared model and leave every comparison, above gates.lea"
    )


def test_what_earlier_champions_have_learnt_is_shown_alone():
    seen = evidence(champion=True)
    earlier = TrainingRows("earlier champions (2, 1)", copied(seen.train, seen.rows, 70), by="earlier")
    found = decided("leakage", dataclasses.replace(seen, seen=(*learnt(seen.train), earlier)))

    assert found.outcome is Outcome.PASS
    assert counted(found)["max_learnt_share (champion version 4)"] == 0
    assert counted(found)["max_learnt_share (earlier champions)"] == 70


def test_near_copies_are_counted_on_each_side_that_holds_them():
    """Three are near a text that both learnt from, two more near one that the champion alone did, one near the candidate's own."""
    seen = evidence(champion=True)
    rows = seen.rows.assign(text=[text.upper() + "!" if i < 6 else text for i, text in enumerate(seen.rows["text"])])
    both = copied(seen.train, seen.rows, 3)
    alone = table(10, 5).assign(text=[*seen.rows["text"][3:5], *texts(8, 6)])
    own = table(10, 7).assign(text=[seen.rows["text"][5], *texts(9, 8)])
    given = {"train": pd.concat([both, own]), "seen": learnt(pd.concat([both, alone]))}
    found = decided("leakage", dataclasses.replace(seen, rows=rows, **given), max_near_share=0.5)

    assert (counted(found)["max_near_share"], counted(found)["max_learnt_share (champion version 4)"]) == (4, 5)


@pytest.mark.parametrize("by", [{"by": "champion"}, {"by": "candidate", "inherited": True}, {"by": "anchor", "inherited": True}])
def test_what_a_compared_version_or_its_base_learnt_must_be_known(by):
    gone = TrainingRows("champion version 4", None, "it is not in DVC's cache", **by)
    asked, skipped = (decided("leakage", evidence(champion=True, seen=(gone,)), unknown=unknown) for unknown in ("ask", "skip"))

    assert (asked.outcome, asked.may_pass, skipped.outcome) == (Outcome.INCONCLUSIVE, True, Outcome.PASS)
    assert asked.reason == (
        "what champion version 4 learnt from is not at hand (it is not in DVC's cache): whether it has learnt test rows cannot be told"
    )
    assert skipped.notes[-1].startswith("what champion version 4 learnt from is not at hand (it is not in DVC's cache)")


def test_what_nobody_is_compared_with_need_not_be_known():
    found = decided(
        "leakage", evidence(champion=True, seen=(TrainingRows("version 3", None, "it was deleted from the registry", by="earlier"),))
    )

    assert found.outcome is Outcome.PASS
    assert found.notes[-1].startswith("what version 3 learnt from is not at hand (it was deleted from the registry)")


def test_leakage_decides_by_default():
    assert leakage.Params().role is Role.REQUIRED


def on(right: np.ndarray, **more) -> Evidence:
    candidate = answered(right)
    rows = table(len(right), 1).assign(id=candidate.ids, group=candidate.groups, label=candidate.expected)
    return against(candidate, more.pop("champion", None), rows=rows, train=table(10, 2), **more)


@pytest.mark.parametrize(
    ("rows", "wrong", "outcome"),
    [(100, 0, Outcome.INCONCLUSIVE), (1000, 0, Outcome.INCONCLUSIVE), (99, 0, Outcome.PASS), (1000, 1, Outcome.PASS)],
)
def test_an_accuracy_too_good_to_be_true_is_told_on_test_sets_of_the_usual_size(rows, wrong, outcome):
    found = decided("leakage", on(np.arange(rows) >= wrong))

    assert found.outcome is outcome
    assert ("is above gates.leakage.too_good 0.999; look for the label in the text" in found.reason) is (outcome is not Outcome.PASS)
    assert decided("leakage", on(np.arange(rows) >= wrong), too_good=1).outcome is Outcome.PASS


def test_a_gain_over_the_champion_is_suspicious_when_its_lower_end_is():
    usual = answered(np.arange(600) % 4 != 0)
    found = decided("leakage", on(np.ones(600, bool), champion=usual), too_good=1)

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "gates.leakage.suspicious_gain 0.15" in found.reason
    assert decided("leakage", on(np.ones(600, bool), champion=usual), too_good=1, suspicious_gain=0.24).outcome is Outcome.PASS


def test_as_a_veto_what_is_too_good_blocks_nothing():
    seen = on(np.ones(1000, bool))
    said = decided("leakage", seen, role="blocking")

    assert combine([said, decided("floor", seen)])[0] is Outcome.PASS


def test_without_training_rows_it_cannot_tell():
    found = decided("leakage", evidence(train=None))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "not handed over" in found.reason
    assert "not handed over" in decided("leakage", evidence(rows=None)).reason


def foretold(leaked: float, seed: int, n: int = 1000):
    """The probe on `n` test texts of which a share of `leaked` stands among 2,000 training texts."""
    train, test = texts(2000, 2 * seed), texts(n, 2 * seed + 1)
    train[: int(leaked * n)] = test[: int(leaked * n)]
    labels = np.random.default_rng(seed).choice(list("abcdef"), len(train) + n)
    return probe(train, test, labels.tolist(), 0.01, 0.9, seed)


def test_the_probe_finds_what_stands_on_both_sides_and_says_how_much():
    found = foretold(0.05, 1)

    assert found.share == pytest.approx(0.05, abs=0.015)
    assert found.p < 1e-3
    assert found.low < found.share < found.high


@pytest.mark.slow
def test_permuted_labels_cannot_be_foretold_where_nothing_leaked():
    """At the limit itself, one text in a hundred on both sides, the p is below 5 % in no more than 5 % of the data sets."""
    repetitions = 80
    below = sum(foretold(0.01, seed, 300).p < 0.05 for seed in range(repetitions))

    assert below / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
    assert foretold(0.0, 3).p > 0.05


def test_mean_and_spread_of_the_hits_are_those_of_all_permutations():
    generator = np.random.default_rng(5)
    told, actual = generator.integers(0, 4, 60), generator.integers(0, 4, 60)
    drawn = [_foretold(told, generator.permutation(actual), 4)[0] for _ in range(20_000)]

    assert np.mean(drawn) == pytest.approx(0, abs=4 * np.std(drawn) / np.sqrt(len(drawn)))
    assert _foretold(told, actual, 4)[1] == pytest.approx(np.std(drawn), rel=0.02)


def test_the_probe_is_one_hypothesis_among_all():
    seen = evidence(2000)
    train = copied(seen.train, seen.rows.assign(text=seen.rows["text"].str.upper()), 200)
    found = decided("leakage", dataclasses.replace(seen, train=train), max_near_share=0.05, near_duplicate=1)

    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith("permuted labels are foretold as if 9.")
    assert [one.rejected for one in found.hypotheses] == [True]


def test_the_probe_allows_what_the_limits_allow_where_few_texts_have_a_neighbour():
    """8 of 1,000 rows stand in training with other punctuation, 150 more have a word in common with it, the others none."""
    seen = evidence(1000, train=table(3000, 2).assign(text=[f"{text} learnt{i // 3}" for i, text in enumerate(texts(3000, 2))]))
    learnt_texts = seen.train["text"].tolist()
    strange = [" ".join(f"new{i}x{place}" for place in range(8)) for i in range(1000)]
    for copies, outcome in [(8, Outcome.PASS), (60, Outcome.FAIL)]:
        own = [f"{learnt_texts[i]}!" if i < copies else f"{text} learnt{i}" if i < 158 else text for i, text in enumerate(strange)]
        found = decided("leakage", dataclasses.replace(seen, rows=seen.rows.assign(text=own)), near_duplicate=1)

        assert found.outcome is outcome
        assert found.hypotheses[0].n == 1000
        assert found.hypotheses[0].estimate == pytest.approx(copies / 1000, abs=0.01)


@pytest.mark.parametrize("n", [1, 2, 20])
def test_a_handful_of_rows_breaks_nothing(n):
    found = decided("leakage", evidence(n))
    nothing = decided("leakage", evidence(n, train=table(3, 2).head(0)))

    assert found.outcome is nothing.outcome is Outcome.PASS
    assert all(np.isfinite(one.p) for one in found.hypotheses)


def test_one_label_and_empty_texts_break_nothing():
    seen = evidence(50)
    rows, train = seen.rows.assign(label="device", text=""), seen.train.assign(label="device")
    found = decided("leakage", dataclasses.replace(seen, rows=rows, train=train))

    assert found.outcome is Outcome.FAIL  # forty-nine empty texts are copies of the first
    assert found.hypotheses == ()


@pytest.mark.parametrize(
    ("raw", "message"),
    [({"max_exact_share": 1}, "max_exact_share"), ({"near_duplicate": 0.2}, "near_duplicate"), ({"max_near": 0.1}, "did you mean")],
)
def test_a_wrong_setting_is_named(raw, message):
    with pytest.raises(BadParams, match=message):
        leakage.Params.parse(raw, "gates.leakage")


@pytest.mark.slow
def test_ten_thousand_test_rows_against_forty_thousand_take_seconds():
    generator = np.random.default_rng(0)
    common = 1 / np.arange(1, 3001)
    long = [" ".join(row) for row in generator.choice(WORDS, (50_000, 20), p=common / common.sum())]
    candidate = answered(np.arange(10_000) % 5 != 0)
    rows = pd.DataFrame({"id": candidate.ids, "group": candidate.groups, "text": long[:10_000], "label": candidate.expected})
    train = pd.DataFrame({"id": np.arange(40_000).astype(str), "text": long[10_000:], "label": np.array(LABELS)[np.arange(40_000) % 3]})
    start = time.process_time()
    found = decided("leakage", against(candidate, None, rows=rows, train=train))

    assert found.outcome is Outcome.PASS
    assert time.process_time() - start < 20  # 4 to 5 on an idle core; neighbours on the same core count
