"""No model is compared on a row that it, or who it is compared with, has learnt."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts.verdict import Outcome
from components.core.similarity import shingles, similar_pairs
from components.core.text import normalise
from components.data.preprocess import PreprocessParams
from components.data.preprocess.step import prepare
from components.data.validate.row_ids import add_ids_and_groups
from components.gates import Evidence, GatesParams, ReferenceModel, TrainingRows, measure_exposure, without_learned_rows
from components.model import tasks
from tests.support.gate_cases import LABELS, against, answered, gate, verdict
from tests.unit.gates.test_leakage import evidence, table

KIND = tasks.load("text_classification")
WORDS = [f"word{number}" for number in range(400)]
CHANGES = ("append", "ids", "groups", "ungroup", "edit", "copy", "reorder", "remove")


def start(seed: int) -> pd.DataFrame:
    texts = [" ".join(row) for row in np.random.default_rng(seed).choice(WORDS, (24, 8))]
    return pd.DataFrame({"id": [f"r{seed}-{at}" for at in range(24)], "text": texts, "label": [LABELS[at % 3] for at in range(24)]})


def changed(rows: pd.DataFrame, change: str, seed: int) -> pd.DataFrame:
    """The snapshot after one thing that happens to data."""
    rng = np.random.default_rng(seed)
    some = rng.random(len(rows)) < 0.3
    if change == "append":
        return pd.concat([rows, start(seed).head(8)], ignore_index=True)
    if change == "ids":
        return rows.assign(id=[f"new{seed}-{at}" if new else name for at, (name, new) in enumerate(zip(rows["id"], some, strict=True))])
    if change == "groups":
        return rows.assign(group=[f"g{number}" for number in rng.integers(0, 12, len(rows))])
    if change == "ungroup":
        return rows.drop(columns="group", errors="ignore")
    if change == "edit":
        edited = rows["text"].str.upper().str.replace(" ", "  ") + " !"
        return rows.assign(text=rows["text"].where(~some, edited))
    if change == "copy":
        twins = rows[some].assign(id=[f"copy{seed}-{at}" for at in range(int(some.sum()))])
        return pd.concat([rows, twins], ignore_index=True)
    return rows.sample(frac=1 if change == "reorder" else 0.8, random_state=seed).reset_index(drop=True)


def stated(kept: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is learnt of a snapshot, and what is tested on."""
    test = kept["split"] == "test"
    return kept[~test].reset_index(drop=True), kept[test].sort_values("id", ignore_index=True)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    story=st.lists(st.lists(st.sampled_from(CHANGES), max_size=3), min_size=1, max_size=2),
    split_by=st.sampled_from(["text", "id"]),
)
def test_no_model_is_compared_on_a_row_that_one_has_learnt(seed: int, story: list[list[str]], split_by: str) -> None:
    rows, learnt = start(seed), list[pd.DataFrame]()
    params = PreprocessParams(test_share=0.35, validation_share=0.15, split_by=split_by)
    for step, changes in enumerate([[], *story]):
        for number, change in enumerate(changes):
            rows = changed(rows, change, seed + 100 * step + number)
        kept, _ = prepare(add_ids_and_groups(rows, ["text"]), params, KIND)
        train, test = stated(kept)
        learnt.append(train)
        rivals = [TrainingRows("champion", learnt[max(0, step - 1)]), TrainingRows("anchor", learnt[0], by="anchor")] if step else []
        candidate = dataclasses.replace(answered(np.ones(len(test), bool)), ids=test["id"].to_numpy(dtype=np.str_))
        whole = against(candidate, candidate, rows=test, train=train, anchor=ReferenceModel("1", candidate), baselines={"tfidf": candidate})
        held = measure_exposure(test, train, rivals, 0.8)
        found = without_learned_rows(whole, held)
        if held.fresh.any():
            known = [one for each in (train, *(one.rows for one in rivals)) for one in each["text"]]
            texts, wordings = {normalise(text, "NFC") for text in known}, {shingles(text) for text in known}
            for text in found.rows["text"]:
                assert normalise(text, "NFC") not in texts
                assert shingles(text) not in wordings
            assert found.candidate.ids.tolist() == found.champion.predictions.ids.tolist() == found.rows["id"].tolist()
            assert all(one.ids.tolist() == found.rows["id"].tolist() for one in (found.anchor.predictions, *found.baselines.values()))
        assert len(held.left_out) + int(held.fresh.sum()) == len(test)


def judged(copies: int) -> tuple[Evidence, Any]:
    """A test set of 400, `copies` rows of which the champion has learnt."""
    whole = evidence(champion=True)
    learnt = pd.concat([table(50, 8), whole.rows.head(copies)], ignore_index=True)
    seen = (TrainingRows("champion version 4", learnt),)
    held = measure_exposure(whole.rows, whole.train, seen, 0.8)
    found = without_learned_rows(dataclasses.replace(whole, seen=seen), held)
    return found, held


def test_learnt_rows_leave_the_evidence_of_every_gate() -> None:
    found, held = judged(12)

    assert len(found.candidate.ids) == len(found.champion.predictions.ids) == len(found.baselines["tfidf"].ids) == len(found.rows) == 388
    assert held.left_out == tuple(f"r{at:06d}" for at in range(12))
    assert found.units.count == 388


def test_the_verdict_counts_what_was_left_out() -> None:
    whole = evidence(champion=True)
    seen = (TrainingRows("champion version 4", whole.rows.head(30)),)
    held = measure_exposure(whole.rows, whole.train, seen, 0.8)
    taken = without_learned_rows(dataclasses.replace(whole, seen=seen), held)
    more = {name: getattr(taken, name) for name in ("rows", "train", "seen", "held", "baselines")}
    found = verdict(taken.candidate, taken.champion.predictions, params=GatesParams(), **more)

    assert found.left_out == held.left_out
    assert len(found.left_out) == 30
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "30 of 400 test rows (7.50 %) were learnt by a compared model" in gate(found, "leakage").reason
    assert gate(found, "champion").n == 370


@pytest.mark.parametrize("copies", [399, 400])
def test_where_hardly_a_row_is_left_nothing_is_decided(copies: int) -> None:
    found, _ = judged(copies)
    more = {name: getattr(found, name) for name in ("rows", "train", "seen", "held", "baselines")}
    said = verdict(found.candidate, None if found.champion.predictions is None else found.champion.predictions, **more)

    assert said.outcome is not Outcome.PASS
    assert (found.champion.predictions is None) is (copies == 400)
    assert (found.baselines == {}) is (copies == 400)


def test_near_copies_count_as_learnt() -> None:
    texts = ["the router in room five drops the connection every morning", "no dial tone at all", "Größe falsch"]
    others = ["The router, in room five, drops the connection every morning!", "Gro\u0308ße  falsch"]

    assert similar_pairs(texts, others, 0.8).tolist() == [True, False, True]
    assert similar_pairs(texts, others, 1.0).tolist() == [False, False, True]
    assert similar_pairs([], others, 0.8).tolist() == []


@pytest.mark.parametrize("rows", [["x"], []])
def test_without_rows_learnt_nothing_is_left_out(rows: list[str]) -> None:
    test = table(4, 1)
    learnt = pd.DataFrame({"id": rows, "text": rows, "label": rows})

    assert measure_exposure(test, learnt, (), 0.8).fresh.all()
    assert measure_exposure(test, None, (TrainingRows("version 1", None, "gone"),), 0.8).fresh.all()
