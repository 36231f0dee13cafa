"""Noisy copies: of training rows only, marked, deterministic, at the rate asked for, and never near what tests."""

import builtins
import json

import numpy as np
import pandas as pd
import pytest
import yaml

from components.artifacts.predictions import Predictions
from components.artifacts.profile import Profile
from components.artifacts.rows import AUGMENTED, read_rows, write_rows
from components.core.errors import BadData, BadParams
from components.core.hashing import digest_folder
from components.core.similarity import closest
from components.data.preprocess import PreprocessParams
from components.data.preprocess.augment import with_copies
from components.data.preprocess.step import prepare, preprocess
from components.evaluation.evaluate import EvaluateParams, evaluate
from components.mlflow_store.tracking.rows import write_rows as list_rows
from components.model import tasks
from components.training.trainer.data import PreparedSplits
from flows.project.params import read_params
from tests.support.labelled import KINDS, paired, relabelled
from tests.support.project import ROOT, change
from tests.unit.data.test_preprocess import run

PLAIN = PreprocessParams(test_share=0.3, validation_share=0.2, max_length=32)
NOISY = PLAIN.model_copy(update={"augment_copies": 2})
TASK = tasks.load("text_classification")


def learnt(rows, params=NOISY, task=TASK):
    """The training rows with their copies, and the rows that are not trained on."""
    kept, _ = prepare(task.read(rows)[0], params, task)
    train = kept[kept["split"] == "train"].drop(columns="split").reset_index(drop=True)
    unseen = kept[kept["split"] != "train"]
    return with_copies(train, unseen, params, task), unseen


def distance(one, other):
    """Levenshtein's."""
    before = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        now = [place]
        for at, each in enumerate(other, 1):
            now.append(min(before[at] + 1, now[-1] + 1, before[at - 1] + (letter != each)))
        before = now
    return before[-1]


@pytest.fixture(scope="module")
def noisy(tickets):
    return learnt(tickets)


def test_a_copy_has_label_group_and_the_mark_of_its_row(noisy):
    rows, _ = noisy
    origin = rows[rows[AUGMENTED].isna()].set_index("id")
    copies = rows[rows[AUGMENTED].notna()]
    theirs = origin.loc[copies[AUGMENTED]]

    assert len(copies) > 1.7 * len(origin)
    assert rows["id"].is_unique
    assert copies["id"].tolist() == [f"{row}~{name[-1]}" for row, name in zip(copies[AUGMENTED], copies["id"], strict=True)]
    assert copies["label"].tolist() == theirs["label"].tolist()
    assert copies["group"].tolist() == theirs["group"].tolist()
    assert not (copies["text"].to_numpy() == theirs["text"].to_numpy()).any()


def test_the_share_of_changed_characters_is_the_one_asked_for(noisy):
    rows, _ = noisy
    origin = rows[rows[AUGMENTED].isna()].set_index("id")["text"]
    copies = rows[rows[AUGMENTED].notna()]
    changed = sum(distance(origin[row], text) for row, text in zip(copies[AUGMENTED], copies["text"], strict=True))
    characters = sum(len(origin[row]) for row in copies[AUGMENTED])

    # About 13,000 characters: a standard deviation of 0.002; copies without any change are left out, which adds a little.
    assert changed / characters == pytest.approx(0.05, abs=0.01)


def test_the_same_seed_gives_the_same_copies_and_a_row_keeps_its_own(tickets, noisy):
    again, _ = learnt(tickets.sample(frac=1, random_state=4))
    other, _ = learnt(tickets, NOISY.model_copy(update={"augment_seed": 8}))
    fewer, _ = learnt(tickets.iloc[:200])
    rows = noisy[0].set_index("id")["text"]
    shared = [name for name in fewer["id"] if name in rows]

    pd.testing.assert_frame_equal(again, noisy[0])
    assert other["text"].tolist() != noisy[0]["text"].tolist()
    assert len(shared) > 150
    assert fewer.set_index("id")["text"][shared].tolist() == rows[shared].tolist()


def test_no_copy_comes_near_what_tests(tickets):
    """Test rows that are what noise made of training rows: just those copies are left out."""
    rows, unseen = learnt(tickets)
    made = rows[rows[AUGMENTED].notna()].head(12)
    train = rows[rows[AUGMENTED].isna()].drop(columns=AUGMENTED).reset_index(drop=True)
    known = made.drop(columns=AUGMENTED).assign(text=[*made["text"].head(6), *(f"{text} x" for text in made["text"].tail(6))])
    again = with_copies(train, pd.concat([unseen, known]), NOISY, TASK)

    assert not set(made["id"]) & set(again["id"])
    assert not closest(again.loc[again[AUGMENTED].notna(), "text"].tolist(), known["text"].tolist(), NOISY.near_duplicate)
    assert len(again) >= len(rows) - 16


def test_the_step_writes_them_into_what_is_learnt_from_and_nowhere_else(tmp_path, tiny_base, tickets):
    plain, noisy, again = (run(tmp_path, tiny_base, tickets, *each) for each in ((PLAIN, "plain"), (NOISY, "noisy"), (NOISY, "again")))
    before, after = Profile.read(plain), Profile.read(noisy)
    train = read_rows(noisy / "learn" / "train.parquet")
    copies = int(train[AUGMENTED].notna().sum())
    encoded = PreparedSplits.read(noisy / "learn")

    assert digest_folder(noisy) == digest_folder(again)
    assert digest_folder(plain / "test") == digest_folder(noisy / "test")
    assert (plain / "learn" / "validation.parquet").read_bytes() == (noisy / "learn" / "validation.parquet").read_bytes()
    assert after.augmented == copies > before.splits["train"].rows
    assert before.augmented == 0
    assert after.splits == before.splits
    assert (after.kept, after.test_digest, after.tokens) == (before.kept, before.test_digest, before.tokens)
    assert after.learn_digest != before.learn_digest
    assert len(encoded.train) == len(train) == copies + before.splits["train"].rows
    assert [encoded.spec.labels[encoded.train[place]["labels"]] for place in range(len(train))] == train["label"].tolist()


def test_the_list_of_rows_names_them(tmp_path):
    (tmp_path / "data/prepared/learn").mkdir(parents=True)
    rows = pd.DataFrame(
        {"id": ["a", "a~1", "b"], "text": "t", "pseudo": [None, None, "tickets/2"], AUGMENTED: [None, "a", None]}, dtype="str"
    )
    write_rows(rows, tmp_path / "data/prepared/learn/train.parquet")
    found = read_rows(list_rows(tmp_path, tmp_path))

    assert found["split"].tolist() == ["trained on", "trained on: noisy copy of a", "trained on: pseudo-label of tickets/2"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", [False, True])
def test_every_kind_of_label_survives(tickets, kind, pair):
    task = tasks.load("text_classification", {**KINDS[kind], "pair": pair})
    rows = relabelled(tickets, kind)
    found, _ = learnt(paired(rows) if pair else rows, task=task)
    labels = found[found[AUGMENTED].isna()].set_index("id")["label"]
    copies = found[found[AUGMENTED].notna()]

    assert len(copies) > 150
    assert copies["label"].tolist() == labels[copies[AUGMENTED]].tolist()
    if pair:
        joined = task.read(copies)[0]["text"].tolist()
        assert copies["text"].tolist() == [" ".join(text.split()) for text in joined]


@pytest.mark.parametrize("data", ["pairs", "triplets", "texts"])
def test_anchors_of_embeddings_are_changed_and_nothing_else(tickets, data):
    task = tasks.load("contrastive", {"data": data})
    texts = tickets["text"]
    columns = {"anchor": texts, "positive": "yes " + texts, "negative": "no " + texts} if data != "texts" else {"text": texts}
    rows = pd.DataFrame({"id": tickets["id"], "group": tickets["group"], **{name: columns[name] for name in task.columns}})
    found, _ = learnt(rows, task=task)
    copies, origin = found[found[AUGMENTED].notna()], found[found[AUGMENTED].isna()].set_index("id")

    assert len(copies) > 150
    for name in task.columns[1:]:
        assert copies[name].tolist() == origin.loc[copies[AUGMENTED], name].tolist()
    assert copies["text"].tolist() == copies[task.columns[0]].tolist() != origin.loc[copies[AUGMENTED], "text"].tolist()


def test_every_task_refuses_them_or_says_which_columns():
    made = [tasks.load(name) for name in tasks.available()]
    scored = tasks.load("contrastive", {"data": "scored"})

    assert {task.__class__.__module__.rpartition(".")[2] for task in made if task.augmentable_columns} == {
        "text_classification",
        "contrastive",
    }
    assert all(bool(task.augmentable_columns) != ("augment_copies" in task.unsupported_settings) for task in [*made, scored])
    assert scored.augmentable_columns == ()


def test_a_task_that_refuses_them_says_why_before_any_work(tmp_path, tiny_base):
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    metric = {"metric": "log_likelihood"}
    own = {"task": "masked_lm", "preprocess": {"augment_copies": 1}, "train": metric, "tune": metric}
    (tmp_path / "params.yaml").write_text(json.dumps(change(settings, own)), encoding="utf-8")
    reason = r"preprocess\.augment_copies is set, and the task refuses it: the model would learn to fill in the noise"

    with pytest.raises(BadParams, match=reason):
        read_params(tmp_path / "params.yaml")
    with pytest.raises(BadParams, match=reason):
        preprocess(tmp_path / "nothing", tiny_base, tmp_path / "out", task="masked_lm", preprocess=NOISY)


def test_a_setting_that_nothing_reads_and_a_column_that_is_taken_are_refused(tickets):
    with pytest.raises(BadParams, match=r"augment_noise is read where augment_copies is above 0, found 0\.1 with augment_copies 0"):
        PreprocessParams.parse({"augment_noise": 0.1}, "preprocess")
    with pytest.raises(BadData, match="the data has a column 'augmented', which marks noisy copies"):
        learnt(tickets.assign(**{AUGMENTED: "no"}))


def test_without_the_package_the_extra_is_named(tickets, monkeypatch):
    real = builtins.__import__

    def bare(name, *rest, **named):
        if name.startswith("textnoisr"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", bare)
    with pytest.raises(BadParams, match=r"needs the package textnoisr: python -m pip install 'retune\[augment\]'"):
        learnt(tickets)


def test_texts_without_letters_and_texts_that_vanish_do_no_harm():
    rows = pd.DataFrame({"id": ["a", "b"], "group": ["a", "b"], "text": ["7", "12 34 56 78 90"], "label": ["x", "y"]})
    most = NOISY.model_copy(update={"augment_noise": 0.3, "augment_copies": 20})
    found = with_copies(rows, rows.head(0), most, TASK)

    assert set(rows["id"]) <= set(found["id"])
    assert all(text.strip() for text in found["text"])
    assert set("".join(found["text"])) <= set("0123456789 ")


def test_baselines_learn_from_the_rows_without_their_copies(tmp_path, tiny_base, tickets):
    outs = {}
    for name, params in (("plain", PLAIN), ("noisy", NOISY)):
        prepared = run(tmp_path, tiny_base, tickets, params, name)
        model = tmp_path / name / "model"
        spec = PreparedSplits.read(prepared / "learn").spec
        TASK.build_model(tiny_base, spec).save_pretrained(model)
        TASK.load_tokenizer(tiny_base).save_pretrained(model)
        spec.write(model)
        outs[name] = tmp_path / name / "evaluation"
        evaluate(model, prepared, tiny_base, outs[name], task="text_classification", evaluate=EvaluateParams())
    found = [Predictions.read(out / "predictions" / "tfidf.parquet").probabilities for out in outs.values()]

    np.testing.assert_array_equal(*found)


def test_an_id_that_a_copy_would_have_is_refused(tickets):
    train = tickets.head(20).copy()
    train.loc[train.index[0], "id"] = f"{train['id'].iloc[1]}~1"
    with pytest.raises(BadData, match=r"the id '.*~1' is that of a row and would be that of a noisy copy"):
        with_copies(train, tickets.tail(5), NOISY, TASK)
