"""Noisy copies: of training rows only, marked, deterministic, at the given rate, and never similar to test rows."""

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
from components.data.preprocess.augment import add_noisy_copies
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.step import prepare, preprocess
from components.evaluation.evaluate import EvaluateParams, evaluate
from components.mlflow_store.tracking.rows import write_rows as list_rows
from components.model import tasks
from components.training.trainer.data import PreparedSplits
from flows.project.params import read_params
from tests.support.labelled import KINDS, paired, relabelled
from tests.support.preprocessed import PARAMS, run_preprocess
from tests.support.project import ROOT, change

NOISY = PARAMS.model_copy(update={"augment_copies": 2})
TASK = tasks.load("text_classification")


def training_rows(rows, params=NOISY, task=TASK):
    """Return the training rows with their copies, and the other rows."""
    kept, _ = prepare(task.read(rows)[0], params, task)
    train = kept[kept["split"] == "train"].drop(columns="split").reset_index(drop=True)
    unseen = kept[kept["split"] != "train"]
    return add_noisy_copies(train, unseen, params, task), unseen


def distance(first, second):
    """Return the Levenshtein distance."""
    before = list(range(len(second) + 1))
    for row, letter in enumerate(first, 1):
        now = [row]
        for column, other in enumerate(second, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (letter != other)))
        before = now
    return before[-1]


@pytest.fixture(scope="module")
def noisy(tickets):
    return training_rows(tickets)


def test_copy_has_label_group_and_mark_of_its_row(noisy):
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


def test_share_of_changed_characters_matches_the_setting(noisy):
    rows, _ = noisy
    origin = rows[rows[AUGMENTED].isna()].set_index("id")["text"]
    copies = rows[rows[AUGMENTED].notna()]
    changed = sum(distance(origin[row], text) for row, text in zip(copies[AUGMENTED], copies["text"], strict=True))
    characters = sum(len(origin[row]) for row in copies[AUGMENTED])

    # About 13,000 characters: a standard deviation of 0.002; copies without any change are left out, which adds a little.
    assert changed / characters == pytest.approx(0.05, abs=0.01)


@pytest.mark.slow
def test_same_seed_gives_the_same_copies(tickets, noisy):
    again, _ = training_rows(tickets.sample(frac=1, random_state=4))
    other, _ = training_rows(tickets, NOISY.model_copy(update={"augment_seed": 8}))
    fewer, _ = training_rows(tickets.iloc[:200])
    rows = noisy[0].set_index("id")["text"]
    shared = [name for name in fewer["id"] if name in rows]

    pd.testing.assert_frame_equal(again, noisy[0])
    assert other["text"].tolist() != noisy[0]["text"].tolist()
    assert len(shared) > 150
    assert fewer.set_index("id")["text"][shared].tolist() == rows[shared].tolist()


def test_copies_similar_to_test_rows_are_dropped(tickets):
    """Test rows equal to copies of training rows: exactly these copies are dropped."""
    rows, unseen = training_rows(tickets)
    made = rows[rows[AUGMENTED].notna()].head(12)
    train = rows[rows[AUGMENTED].isna()].drop(columns=AUGMENTED).reset_index(drop=True)
    similar = made.drop(columns=AUGMENTED).assign(text=[*made["text"].head(6), *(f"{text} x" for text in made["text"].tail(6))])
    again = add_noisy_copies(train, pd.concat([unseen, similar]), NOISY, TASK)

    assert not set(made["id"]) & set(again["id"])
    assert not closest(again.loc[again[AUGMENTED].notna(), "text"].tolist(), similar["text"].tolist(), NOISY.near_duplicate)
    assert len(again) >= len(rows) - 16


@pytest.mark.slow
def test_step_writes_copies_to_training_rows_only(tmp_path, tiny_base, tickets):
    plain, noisy, again = (
        run_preprocess(tmp_path, tiny_base, tickets, *args) for args in ((PARAMS, "plain"), (NOISY, "noisy"), (NOISY, "again"))
    )
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
    assert [encoded.spec.labels[encoded.train[index]["labels"]] for index in range(len(train))] == train["label"].tolist()


def test_row_list_marks_copies(tmp_path):
    (tmp_path / "data/prepared/learn").mkdir(parents=True)
    rows = pd.DataFrame(
        {"id": ["a", "a~1", "b"], "text": "t", "pseudo": [None, None, "tickets/2"], AUGMENTED: [None, "a", None]}, dtype="str"
    )
    write_rows(rows, tmp_path / "data/prepared/learn/train.parquet")
    result = read_rows(list_rows(tmp_path, tmp_path))

    assert result["split"].tolist() == ["trained on", "trained on: noisy copy of a", "trained on: pseudo-label of tickets/2"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", [False, True])
def test_labels_of_every_type_are_kept(tickets, kind, pair):
    task = tasks.load("text_classification", {**KINDS[kind], "pair": pair})
    rows = relabelled(tickets, kind)
    result, _ = training_rows(paired(rows) if pair else rows, task=task)
    labels = result[result[AUGMENTED].isna()].set_index("id")["label"]
    copies = result[result[AUGMENTED].notna()]

    assert len(copies) > 150
    assert copies["label"].tolist() == labels[copies[AUGMENTED]].tolist()
    if pair:
        joined = task.read(copies)[0]["text"].tolist()
        assert copies["text"].tolist() == [" ".join(text.split()) for text in joined]


@pytest.mark.parametrize("data", ["pairs", "triplets", "texts"])
def test_only_anchors_of_embeddings_are_changed(tickets, data):
    task = tasks.load("contrastive", {"data": data})
    texts = tickets["text"]
    columns = {"anchor": texts, "positive": "yes " + texts, "negative": "no " + texts} if data != "texts" else {"text": texts}
    rows = pd.DataFrame({"id": tickets["id"], "group": tickets["group"], **{name: columns[name] for name in task.columns}})
    result, _ = training_rows(rows, task=task)
    copies, origin = result[result[AUGMENTED].notna()], result[result[AUGMENTED].isna()].set_index("id")

    assert len(copies) > 150
    for name in task.columns[1:]:
        assert copies[name].tolist() == origin.loc[copies[AUGMENTED], name].tolist()
    assert copies["text"].tolist() == copies[task.columns[0]].tolist() != origin.loc[copies[AUGMENTED], "text"].tolist()


def test_every_task_refuses_copies_or_names_columns():
    made = {name: tasks.load(name) for name in tasks.available()}
    scored = tasks.load("contrastive", {"data": "scored"})

    assert {name for name, task in made.items() if task.augmentable_columns} == {"text_classification", "contrastive"}
    assert all(bool(task.augmentable_columns) != ("augment_copies" in task.unsupported_settings) for task in [*made.values(), scored])
    assert scored.augmentable_columns == ()


def test_task_that_refuses_copies_gives_the_reason(tmp_path, tiny_base):
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    metric = {"metric": "log_likelihood"}
    own = {"task": "masked_lm", "preprocess": {"augment_copies": 1}, "train": metric, "tune": metric}
    (tmp_path / "params.yaml").write_text(json.dumps(change(settings, own)), encoding="utf-8")
    reason = r"preprocess\.augment_copies is set, but the task refuses it: the model would learn to fill in the noise"

    with pytest.raises(BadParams, match=reason):
        read_params(tmp_path / "params.yaml")
    with pytest.raises(BadParams, match=reason):
        preprocess(tmp_path / "nothing", tiny_base, tmp_path / "out", task="masked_lm", preprocess=NOISY)


def test_unused_setting_and_reserved_column_are_refused(tickets):
    with pytest.raises(BadParams, match=r"augment_noise needs augment_copies above 0, found 0\.1 with augment_copies 0"):
        PreprocessParams.parse({"augment_noise": 0.1}, "preprocess")
    with pytest.raises(BadData, match="the data has a column 'augmented', which marks noisy copies"):
        training_rows(tickets.assign(**{AUGMENTED: "no"}))


def test_missing_package_error_names_the_extra(tickets, monkeypatch):
    real = builtins.__import__

    def bare(name, *rest, **named):
        if name.startswith("textnoisr"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", bare)
    with pytest.raises(BadParams, match=r"needs the package textnoisr: python -m pip install 'retune\[augment\]'"):
        training_rows(tickets)


def test_texts_without_letters_are_handled():
    rows = pd.DataFrame({"id": ["a", "b"], "group": ["a", "b"], "text": ["7", "12 34 56 78 90"], "label": ["x", "y"]})
    most = NOISY.model_copy(update={"augment_noise": 0.3, "augment_copies": 20})
    result = add_noisy_copies(rows, rows.head(0), most, TASK)

    assert set(rows["id"]) <= set(result["id"])
    assert all(text.strip() for text in result["text"])
    assert set("".join(result["text"])) <= set("0123456789 ")


@pytest.mark.slow
def test_baselines_are_trained_without_copies(tmp_path, tiny_base, tickets):
    outs = {}
    for name, params in (("plain", PARAMS), ("noisy", NOISY)):
        prepared = run_preprocess(tmp_path, tiny_base, tickets, params, name)
        model = tmp_path / name / "model"
        spec = PreparedSplits.read(prepared / "learn").spec
        TASK.build_model(tiny_base, spec).save_pretrained(model)
        TASK.load_tokenizer(tiny_base).save_pretrained(model)
        spec.write(model)
        outs[name] = tmp_path / name / "evaluation"
        evaluate(model, prepared, tiny_base, outs[name], task="text_classification", evaluate=EvaluateParams())
    result = [Predictions.read(out / "predictions" / "tfidf.parquet").probabilities for out in outs.values()]

    np.testing.assert_array_equal(*result)


def test_id_of_a_copy_is_refused(tickets):
    train = tickets.head(20).copy()
    train.loc[train.index[0], "id"] = f"{train['id'].iloc[1]}~1"
    with pytest.raises(BadData, match=r"the id '.*~1' of a row is also the id of a noisy copy"):
        add_noisy_copies(train, tickets.tail(5), NOISY, TASK)
