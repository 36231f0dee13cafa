import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from components.artifacts.verdict import GateResult, Outcome, Role
from components.core.errors import BadParams
from components.gates import leakage
from components.gates.support.evidence import Evidence, TrainingRows
from components.gates.support.leak_probe import _excess_hits, probe
from components.judge.multiple_testing import combine
from tests.support.gate_cases import LABELS, WORDS, against, answered, decided, random_texts, text_evidence, text_rows


def copied(train: pd.DataFrame, rows: pd.DataFrame, count: int, **changes) -> pd.DataFrame:
    """Return the training rows, of which the first `count` get text and label of the first test rows."""
    taken = rows.head(count)
    copies = train.head(count).assign(text=taken["text"].to_numpy(), label=taken["label"].to_numpy()).assign(**changes)
    return pd.concat([copies, train.iloc[count:]], ignore_index=True)


def champion_rows(rows: pd.DataFrame) -> tuple[TrainingRows, ...]:
    return (TrainingRows("champion version 4", rows),)


def counts(result: GateResult) -> dict[str, int]:
    """Return the counts rows by the setting of their limit and, for training rows of champions, the champion."""
    who = [re.search("champion version 4|earlier champions", str(row[0])) for row in result.tables[0].rows]
    return {f"{row[4]}{f' ({one[0]})' if one else ''}": int(str(row[1])) for row, one in zip(result.tables[0].rows, who, strict=True)}


def test_separate_test_set_passes():
    result = decided("leakage", text_evidence())

    assert result.outcome is Outcome.PASS
    assert set(counts(result).values()) == {0}
    assert result.tables[1].rows == ()


def test_one_copied_row_fails_and_is_listed():
    base = text_evidence()
    result = decided("leakage", dataclasses.replace(base, train=copied(base.train, base.rows, 1)))

    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith("1 of 400 test rows (0.25 %) occur word for word in the training rows, above gates.leakage.max_e")
    assert result.tables[1].rows[0][:3] == ("same text", "r000000", "t2-000000")


def test_long_texts_are_cut_in_the_table():
    base = text_evidence()
    rows = base.rows.assign(text=["x" * 80 if i == 0 else "y" * 81 if i == 1 else text for i, text in enumerate(base.rows["text"])])
    result = decided("leakage", dataclasses.replace(base, rows=rows, train=copied(base.train, rows, 2)))

    assert [row[4] for row in result.tables[1].rows] == ["x" * 80, "y" * 79 + "…"]


def test_spaces_and_invisible_characters_do_not_hide_a_copy():
    base = text_evidence()
    train = copied(base.train, base.rows, 1)
    train.loc[0, "text"] = "  " + train.loc[0, "text"].replace(" ", "\u00a0 \u200b")

    assert counts(decided("leakage", dataclasses.replace(base, train=train)))["max_exact_share"] == 1


def test_near_copies_have_a_separate_limit():
    base = text_evidence()
    rows = base.rows.assign(text=[text.upper() + "!" if i < 5 else text for i, text in enumerate(base.rows["text"])])
    for copies, outcome in [(4, Outcome.PASS), (5, Outcome.FAIL)]:
        result = decided("leakage", dataclasses.replace(base, rows=rows, train=copied(base.train, base.rows, copies)))
        assert result.outcome is outcome
        assert (counts(result)["max_near_share"], counts(result)["max_exact_share"]) == (copies, 0)


def test_copy_with_another_label_is_a_conflict():
    base = text_evidence()
    train = copied(base.train, base.rows, 2)
    train.loc[1, "label"] = "device" if train.loc[1, "label"] != "device" else "network"
    result = decided("leakage", dataclasses.replace(base, train=train), max_exact_share=0.5)

    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith("1 of 400 test rows (0.25 %) occur with another label in")


def test_duplicates_in_the_test_set_are_limited():
    base = text_evidence()
    for copies, outcome in [(20, Outcome.PASS), (21, Outcome.FAIL)]:
        repeated = [base.rows["text"][0] if 0 < i <= copies else text for i, text in enumerate(base.rows["text"])]
        result = decided("leakage", dataclasses.replace(base, rows=base.rows.assign(text=repeated)))
        assert result.outcome is outcome
        assert counts(result)["max_test_duplicate_share"] == copies


def test_champion_training_rows_are_excluded_and_do_not_reject():
    base = text_evidence(champion=True)
    for copies, outcome in [(20, Outcome.PASS), (21, Outcome.INCONCLUSIVE)]:
        result = decided("leakage", dataclasses.replace(base, training_rows=champion_rows(copied(base.train, base.rows, copies))))
        assert result.outcome is outcome
        assert (
            f"{copies} of 400 test rows are excluded from every comparison: they are training rows of a compared model, or near copies"
            in result.notes
        )
        assert counts(result)["max_learnt_share (champion version 4)"] == copies
    assert result.reason.startswith(
        "21 of 400 test rows (5.25 %) are training rows of a compared model and excluded from every comparison, above gates.lea"
    )


def test_training_rows_of_earlier_champions_are_informational():
    base = text_evidence(champion=True)
    earlier = TrainingRows("earlier champions (2, 1)", copied(base.train, base.rows, 70), by="earlier")
    result = decided("leakage", dataclasses.replace(base, training_rows=(*champion_rows(base.train), earlier)))

    assert result.outcome is Outcome.PASS
    assert counts(result)["max_learnt_share (champion version 4)"] == 0
    assert counts(result)["max_learnt_share (earlier champions)"] == 70


def test_near_copies_are_counted_per_source():
    """Three rows have a near copy in both training sets, two in the champion's only, one in the candidate's only."""
    base = text_evidence(champion=True)
    rows = base.rows.assign(text=[text.upper() + "!" if i < 6 else text for i, text in enumerate(base.rows["text"])])
    both = copied(base.train, base.rows, 3)
    alone = text_rows(10, 5).assign(text=[*base.rows["text"][3:5], *random_texts(8, 6)])
    own = text_rows(10, 7).assign(text=[base.rows["text"][5], *random_texts(9, 8)])
    given = {"train": pd.concat([both, own]), "training_rows": champion_rows(pd.concat([both, alone]))}
    result = decided("leakage", dataclasses.replace(base, rows=rows, **given), max_near_share=0.5)

    assert (counts(result)["max_near_share"], counts(result)["max_learnt_share (champion version 4)"]) == (4, 5)


@pytest.mark.parametrize("by", [{"by": "champion"}, {"by": "candidate", "inherited": True}, {"by": "best_champion", "inherited": True}])
def test_missing_training_rows_of_a_compared_version(by):
    missing = TrainingRows("champion version 4", None, "it is not in DVC's cache", **by)
    by_default, skipped = (
        decided("leakage", text_evidence(champion=True, training_rows=(missing,)), unknown=unknown) for unknown in ("ask", "skip")
    )

    assert (by_default.outcome, by_default.may_pass, skipped.outcome) == (Outcome.INCONCLUSIVE, True, Outcome.PASS)
    assert by_default.reason == (
        "the training rows of champion version 4 are unavailable (it is not in DVC's cache): cannot check whether they contain test rows"
    )
    assert skipped.notes[-1].startswith("the training rows of champion version 4 are unavailable (it is not in DVC's cache)")


def test_missing_training_rows_of_an_earlier_champion_pass():
    result = decided(
        "leakage",
        text_evidence(champion=True, training_rows=(TrainingRows("version 3", None, "it was deleted from the registry", by="earlier"),)),
    )

    assert result.outcome is Outcome.PASS
    assert result.notes[-1].startswith("the training rows of version 3 are unavailable (it was deleted from the registry)")


def test_leakage_is_required_by_default():
    assert leakage.Params().role is Role.REQUIRED


def on(right: np.ndarray, **more) -> Evidence:
    candidate = answered(right)
    rows = text_rows(len(right), 1).assign(id=candidate.ids, group=candidate.groups, label=candidate.expected)
    return against(candidate, more.pop("champion", None), rows=rows, train=text_rows(10, 2), **more)


@pytest.mark.parametrize(
    ("rows", "wrong", "outcome"),
    [(100, 0, Outcome.INCONCLUSIVE), (1000, 0, Outcome.INCONCLUSIVE), (99, 0, Outcome.PASS), (1000, 1, Outcome.PASS)],
)
def test_suspicious_accuracy_is_inconclusive_from_100_rows(rows, wrong, outcome):
    result = decided("leakage", on(np.arange(rows) >= wrong))

    assert result.outcome is outcome
    assert ("is above gates.leakage.too_good 0.999; check whether the texts contain the label" in result.reason) is (
        outcome is not Outcome.PASS
    )
    assert decided("leakage", on(np.arange(rows) >= wrong), too_good=1).outcome is Outcome.PASS


def test_suspicious_gain_is_inconclusive():
    usual = answered(np.arange(600) % 4 != 0)
    result = decided("leakage", on(np.ones(600, bool), champion=usual), too_good=1)

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "gates.leakage.suspicious_gain 0.15" in result.reason
    assert decided("leakage", on(np.ones(600, bool), champion=usual), too_good=1, suspicious_gain=0.24).outcome is Outcome.PASS


def test_suspicious_accuracy_does_not_block_as_blocking_gate():
    base = on(np.ones(1000, bool))
    leak_result = decided("leakage", base, role="blocking")

    assert combine([leak_result, decided("floor", base)])[0] is Outcome.PASS


def test_missing_training_rows_are_inconclusive():
    result = decided("leakage", text_evidence(train=None))

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "training rows are unavailable" in result.reason
    assert "no test rows" in decided("leakage", text_evidence(rows=None)).reason


def run_probe(leaked: float, seed: int, n: int = 1000):
    """Run the probe on `n` test texts, of which a share of `leaked` is among 2,000 training texts."""
    train, test = random_texts(2000, 2 * seed), random_texts(n, 2 * seed + 1)
    train[: int(leaked * n)] = test[: int(leaked * n)]
    labels = np.random.default_rng(seed).choice(list("abcdef"), len(train) + n)
    return probe(train, test, labels.tolist(), 0.01, 0.9, seed)


def test_probe_estimates_the_leaked_share():
    result = run_probe(0.05, 1)

    assert result.share == pytest.approx(0.05, abs=0.015)
    assert result.p < 1e-3
    assert result.low < result.share < result.high


@pytest.mark.slow
def test_probe_rejects_in_at_most_5_percent_without_a_leak():
    """At the limit, one text in a hundred on both sides, the p is below 5 % in at most 5 % of the data sets."""
    repetitions = 80
    below = sum(run_probe(0.01, seed, 300).p < 0.05 for seed in range(repetitions))

    assert below / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
    assert run_probe(0.0, 3).p > 0.05


@pytest.mark.slow
def test_probe_moments_equal_those_of_permutations():
    generator = np.random.default_rng(5)
    predicted, actual = generator.integers(0, 4, 60), generator.integers(0, 4, 60)
    drawn = [_excess_hits(predicted, generator.permutation(actual), 4)[0] for _ in range(20_000)]

    assert np.mean(drawn) == pytest.approx(0, abs=4 * np.std(drawn) / np.sqrt(len(drawn)))
    assert _excess_hits(predicted, actual, 4)[1] == pytest.approx(np.std(drawn), rel=0.02)


def test_probe_is_one_hypothesis():
    base = text_evidence(2000)
    train = copied(base.train, base.rows.assign(text=base.rows["text"].str.upper()), 200)
    result = decided("leakage", dataclasses.replace(base, train=train), max_near_share=0.05, near_duplicate=1)

    assert result.outcome is Outcome.FAIL
    assert result.reason.startswith("permuted labels are predictable as if 9.")
    assert [way.rejected for way in result.hypotheses] == [True]


def test_probe_allows_the_limits_with_few_neighbours():
    """8 of 1,000 rows are training rows with other punctuation, 150 share a word with one, the others share none."""
    base = text_evidence(
        1000, train=text_rows(3000, 2).assign(text=[f"{text} champion_rows{i // 3}" for i, text in enumerate(random_texts(3000, 2))])
    )
    learnt_texts = base.train["text"].tolist()
    strange = [" ".join(f"new{i}x{place}" for place in range(8)) for i in range(1000)]
    for copies, outcome in [(8, Outcome.PASS), (60, Outcome.FAIL)]:
        own = [f"{learnt_texts[i]}!" if i < copies else f"{text} champion_rows{i}" if i < 158 else text for i, text in enumerate(strange)]
        result = decided("leakage", dataclasses.replace(base, rows=base.rows.assign(text=own)), near_duplicate=1)

        assert result.outcome is outcome
        assert result.hypotheses[0].n == 1000
        assert result.hypotheses[0].estimate == pytest.approx(copies / 1000, abs=0.01)


@pytest.mark.parametrize("n", [1, 2, 20])
def test_few_rows_pass(n):
    result = decided("leakage", text_evidence(n))
    nothing = decided("leakage", text_evidence(n, train=text_rows(3, 2).head(0)))

    assert result.outcome is nothing.outcome is Outcome.PASS
    assert all(np.isfinite(one.p) for one in result.hypotheses)


def test_one_label_and_empty_texts():
    base = text_evidence(50)
    rows, train = base.rows.assign(label="device", text=""), base.train.assign(label="device")
    result = decided("leakage", dataclasses.replace(base, rows=rows, train=train))

    assert result.outcome is Outcome.FAIL  # 49 empty texts repeat the first
    assert result.hypotheses == ()


@pytest.mark.parametrize(
    ("raw", "message"),
    [({"max_exact_share": 1}, "max_exact_share"), ({"near_duplicate": 0.2}, "near_duplicate"), ({"max_near": 0.1}, "did you mean")],
)
def test_invalid_setting_is_refused(raw, message):
    with pytest.raises(BadParams, match=message):
        leakage.Params.parse(raw, "gates.leakage")


@pytest.mark.exhaustive
def test_no_leak_is_found_in_ten_thousand_rows():
    generator = np.random.default_rng(0)
    common = 1 / np.arange(1, 3001)
    long = [" ".join(row) for row in generator.choice(WORDS, (50_000, 20), p=common / common.sum())]
    candidate = answered(np.arange(10_000) % 5 != 0)
    rows = pd.DataFrame({"id": candidate.ids, "group": candidate.groups, "text": long[:10_000], "label": candidate.expected})
    train = pd.DataFrame({"id": np.arange(40_000).astype(str), "text": long[10_000:], "label": np.array(LABELS)[np.arange(40_000) % 3]})
    result = decided("leakage", against(candidate, None, rows=rows, train=train))

    assert result.outcome is Outcome.PASS
