"""No model is compared on a training row of any compared model."""

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
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.step import prepare
from components.data.validate.row_ids import add_ids_and_groups
from components.gates import GatesParams
from components.gates.support.evidence import Evidence, ReferenceModel, TrainingRows
from components.gates.support.learned_rows import measure_exposure, without_learned_rows
from components.model import tasks
from tests.support.gate_cases import LABELS, against, answered, gate, text_evidence, text_rows, verdict

KIND = tasks.load("text_classification")
WORDS = [f"word{number}" for number in range(400)]
CHANGES = ("append", "ids", "groups", "ungroup", "edit", "copy", "reorder", "remove")


def start(seed: int) -> pd.DataFrame:
    texts = [" ".join(row) for row in np.random.default_rng(seed).choice(WORDS, (24, 8))]
    return pd.DataFrame({"id": [f"r{seed}-{at}" for at in range(24)], "text": texts, "label": [LABELS[at % 3] for at in range(24)]})


def changed(rows: pd.DataFrame, change: str, seed: int) -> pd.DataFrame:
    """Return the snapshot after one kind of change."""
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


def split(kept: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the training and the test rows of a snapshot."""
    test = kept["split"] == "test"
    return kept[~test].reset_index(drop=True), kept[test].sort_values("id", ignore_index=True)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    history=st.lists(st.lists(st.sampled_from(CHANGES), max_size=3), min_size=1, max_size=2),
    split_by=st.sampled_from(["text", "id"]),
)
def test_no_compared_row_is_a_training_row(seed: int, history: list[list[str]], split_by: str) -> None:
    rows, learned = start(seed), list[pd.DataFrame]()
    params = PreprocessParams(test_share=0.35, validation_share=0.15, split_by=split_by)
    for step, changes in enumerate([[], *history]):
        for number, change in enumerate(changes):
            rows = changed(rows, change, seed + 100 * step + number)
        kept, _ = prepare(add_ids_and_groups(rows, ["text"]), params, KIND)
        train, test = split(kept)
        learned.append(train)
        others = (
            [TrainingRows("champion", learned[max(0, step - 1)]), TrainingRows("best champion", learned[0], by="best_champion")]
            if step
            else []
        )
        candidate = dataclasses.replace(answered(np.ones(len(test), bool)), ids=test["id"].to_numpy(dtype=np.str_))
        whole = against(
            candidate, candidate, rows=test, train=train, best_champion=ReferenceModel("1", candidate), baselines={"tfidf": candidate}
        )
        exposure = measure_exposure(test, train, others, 0.8)
        result = without_learned_rows(whole, exposure)
        if exposure.unseen.any():
            known = [text for rows in (train, *(other.rows for other in others)) for text in rows["text"]]
            texts, wordings = {normalise(text, "NFC") for text in known}, {shingles(text) for text in known}
            for text in result.rows["text"]:
                assert normalise(text, "NFC") not in texts
                assert shingles(text) not in wordings
            assert result.candidate.ids.tolist() == result.champion.predictions.ids.tolist() == result.rows["id"].tolist()
            assert all(
                one.ids.tolist() == result.rows["id"].tolist() for one in (result.best_champion.predictions, *result.baselines.values())
            )
        assert len(exposure.left_out) + int(exposure.unseen.sum()) == len(test)


def exposed(copies: int) -> tuple[Evidence, Any]:
    """Return the evidence on 400 test rows, of which `copies` are training rows of the champion."""
    whole = text_evidence(champion=True)
    learned = pd.concat([text_rows(50, 8), whole.rows.head(copies)], ignore_index=True)
    others = (TrainingRows("champion version 4", learned),)
    exposure = measure_exposure(whole.rows, whole.train, others, 0.8)
    result = without_learned_rows(dataclasses.replace(whole, training_rows=others), exposure)
    return result, exposure


def test_training_rows_are_excluded_from_the_evidence() -> None:
    result, exposure = exposed(12)

    assert (
        len(result.candidate.ids) == len(result.champion.predictions.ids) == len(result.baselines["tfidf"].ids) == len(result.rows) == 388
    )
    assert exposure.left_out == tuple(f"r{at:06d}" for at in range(12))
    assert result.units.count == 388


def test_verdict_lists_excluded_rows() -> None:
    whole = text_evidence(champion=True)
    others = (TrainingRows("champion version 4", whole.rows.head(30)),)
    exposure = measure_exposure(whole.rows, whole.train, others, 0.8)
    taken = without_learned_rows(dataclasses.replace(whole, training_rows=others), exposure)
    more = {name: getattr(taken, name) for name in ("rows", "train", "training_rows", "exposure", "baselines")}
    result = verdict(taken.candidate, taken.champion.predictions, params=GatesParams(), **more)

    assert result.left_out == exposure.left_out
    assert len(result.left_out) == 30
    assert result.outcome is Outcome.INCONCLUSIVE
    assert "30 of 400 test rows (7.50 %) are training rows of a compared model" in gate(result, "leakage").reason
    assert gate(result, "champion").n == 370


@pytest.mark.parametrize("copies", [399, 400])
def test_no_pass_with_hardly_any_row_remaining(copies: int) -> None:
    result, _ = exposed(copies)
    more = {name: getattr(result, name) for name in ("rows", "train", "training_rows", "exposure", "baselines")}
    decided = verdict(result.candidate, None if result.champion.predictions is None else result.champion.predictions, **more)

    assert decided.outcome is not Outcome.PASS
    assert (result.champion.predictions is None) is (copies == 400)
    assert (result.baselines == {}) is (copies == 400)


def test_near_copies_count_as_training_rows() -> None:
    texts = ["the router in room five drops the connection every morning", "no dial tone at all", "Größe falsch"]
    others = ["The router, in room five, drops the connection every morning!", "Gro\u0308ße  falsch"]

    assert similar_pairs(texts, others, 0.8).tolist() == [True, False, True]
    assert similar_pairs(texts, others, 1.0).tolist() == [False, False, True]
    assert similar_pairs([], others, 0.8).tolist() == []


@pytest.mark.parametrize("rows", [["x"], []])
def test_nothing_is_excluded_without_training_rows(rows: list[str]) -> None:
    test = text_rows(4, 1)
    learned = pd.DataFrame({"id": rows, "text": rows, "label": rows})

    assert measure_exposure(test, learned, (), 0.8).unseen.all()
    assert measure_exposure(test, None, (TrainingRows("version 1", None, "gone"),), 0.8).unseen.all()
