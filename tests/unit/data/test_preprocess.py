import json
import logging
from collections import Counter

import pandas as pd
import pytest

from components.artifacts.profile import Profile
from components.artifacts.rows import read_rows, write_rows
from components.artifacts.training import ModelSpec
from components.core.errors import BadData, BadModel, BadParams, NotFound
from components.core.hashing import digest_folder
from components.data.preprocess import duplicates
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.splits import assign_splits, hash_fraction
from components.data.preprocess.step import prepare, preprocess, split_by
from components.data.snapshot import SnapshotParams, take_snapshot
from components.data.validate.row_ids import add_ids_and_groups
from components.data.validate.settings import ValidateParams
from components.data.validate.step import validate
from components.model import tasks
from components.training.trainer.data import PreparedSplits
from tests.support.preprocessed import PARAMS, run_preprocess, write_validated
from tests.support.project import ROOT


def frame(*rows):
    """Return rows of (id, text, label, split)."""
    return pd.DataFrame(rows, columns=["id", "text", "label", "split"]).sort_values("id", ignore_index=True)


def splits_of(out):
    files = {"test": out / "test", "train": out / "learn", "validation": out / "learn"}
    return {name: split for split, folder in files.items() for name in read_rows(folder / f"{split}.parquet")["id"]}


def test_every_row_is_kept_or_removed(tmp_path, tiny_base, tickets):
    out = run_preprocess(tmp_path, tiny_base, tickets)

    profile, removed = Profile.read(out), read_rows(out / "removed.parquet")
    assert profile.rows_in == 240 == len(splits_of(out)) + len(removed)
    assert profile.kept == sum(split.rows for split in profile.splits.values()) == len(splits_of(out))
    assert profile.exact_duplicates + profile.near_duplicates + profile.conflicting == len(removed)
    assert {name: split.rows for name, split in profile.splits.items()} == Counter(splits_of(out).values())
    assert list(removed.columns) == ["id", "reason", "duplicate_of", "split", "text", "label"]
    assert json.loads((out / "learn" / "labels.json").read_text()) == {"billing": 0, "device": 1, "network": 2}
    assert ModelSpec.read(out / "learn").labels == profile.labels


def test_order_of_rows_does_not_change_the_bytes(tmp_path, tiny_base, tickets):
    one = run_preprocess(tmp_path, tiny_base, tickets, name="one")
    other = run_preprocess(tmp_path, tiny_base, tickets.sample(frac=1, random_state=3), name="other")

    assert digest_folder(one) == digest_folder(other)


def splits_without_ids(tmp_path, base, rows, name):
    """Return the split of every text after validation and preprocessing of rows without id and group."""
    folder = tmp_path / name
    folder.mkdir()
    write_rows(rows.drop(columns=["id", "group"], errors="ignore"), folder / "rows.parquet")
    take_snapshot(folder, folder / "raw", snapshot=SnapshotParams(source="rows.parquet"))
    validate(folder / "raw", folder / "validated", task="text_classification", validate=ValidateParams())
    exact_only = PARAMS.model_copy(update={"near_duplicate": 1.0})
    preprocess(folder / "validated", base, folder / "prepared", task="text_classification", preprocess=exact_only)
    files = {"test": "test/test", "train": "learn/train", "validation": "learn/validation"}
    return {text: split for split, file in files.items() for text in read_rows(folder / "prepared" / f"{file}.parquet")["text"]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")  # Great Expectations imports them
def test_text_decides_the_split_without_ids(tmp_path, tiny_base, tickets):
    before = splits_without_ids(tmp_path, tiny_base, tickets, "before")
    unique = set(tickets["text"].drop_duplicates(keep=False))
    learnt = next(text for text in tickets["text"] if text in unique and before[text] == "train")
    label = "billing" if tickets.set_index("text")["label"][learnt] != "billing" else "device"
    corrected = tickets.assign(label=tickets["label"].where(tickets["text"] != learnt, label))
    more = tickets.head(200).assign(text=[f"number {number} {text}" for number, text in enumerate(tickets["text"].head(200))])
    spaced = tickets.assign(text="  " + tickets["text"].str.replace(" ", "\u00a0 "))
    changes = {
        "column": tickets.assign(channel="mail"),
        "label": corrected,
        "appended": pd.concat([more, tickets]),
        "copied": pd.concat([tickets, tickets.head(50)]),
        "spaced": spaced.sample(frac=1, random_state=3),
    }

    assert len(before) >= 230
    assert before[learnt] == "train"
    for name, rows in changes.items():
        after = splits_without_ids(tmp_path, tiny_base, rows, name)
        assert {text: after[text] for text in before} == before, name


@pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")
def test_order_does_not_matter_without_ids(tmp_path, tiny_base, tickets):
    rows = tickets.assign(kind=[str(number % 2) for number in range(240)])
    rows = pd.concat([rows, rows.head(3).assign(kind="z")])
    splits_without_ids(tmp_path, tiny_base, rows, "one")
    splits_without_ids(tmp_path, tiny_base, rows.sample(frac=1, random_state=3), "other")

    assert digest_folder(tmp_path / "one" / "prepared") == digest_folder(tmp_path / "other" / "prepared")
    assert Profile.read(tmp_path / "one" / "prepared").exact_duplicates == 3


def test_appended_rows_move_no_existing_row(tmp_path, tiny_base, tickets):
    exact_only = PARAMS.model_copy(update={"near_duplicate": 1.0})
    more = tickets.assign(
        id="n" + tickets["id"],
        group="n" + tickets["group"],
        text=[f"number {n} {text}" for n, text in enumerate(tickets["text"])],
    )
    before = splits_of(run_preprocess(tmp_path, tiny_base, tickets, exact_only, name="before"))
    after = splits_of(run_preprocess(tmp_path, tiny_base, pd.concat([more.head(200), tickets]), exact_only, name="after"))

    assert len(before) >= 230
    assert {name: after[name] for name in before} == before


EXACT = PreprocessParams(test_share=0.3, validation_share=0.2, near_duplicate=1.0)


def split_by_text(rows, params=EXACT):
    """Return the split of every text of rows with ids and without groups."""
    kept, _ = prepare(add_ids_and_groups(rows.drop(columns="group", errors="ignore"), ["text"]), params, tasks.load("text_classification"))
    return dict(zip(kept["text"], kept["split"], strict=True))


def test_text_with_a_new_id_stays_in_its_split(tickets):
    before = split_by_text(tickets)
    renamed = tickets.assign(id=[f"again {number}" for number in range(240)], text="  " + tickets["text"].str.replace(" ", "\u00a0 "))

    assert split_by_text(renamed.sample(frac=1, random_state=1)) == before
    assert len(set(before.values())) == 3


def test_old_projects_can_split_by_id(tickets):
    by_id = EXACT.model_copy(update={"split_by": "id"})
    kept, _ = prepare(add_ids_and_groups(tickets.drop(columns="group"), ["text"]), by_id, tasks.load("text_classification"))

    assert kept["split"].tolist() == assign_splits(kept["id"], EXACT.split_seed, 0.3, 0.2)
    assert kept["group"].tolist() == kept["id"].tolist()
    assert split_by_text(tickets.assign(id=[f"again {number}" for number in range(240)]), by_id) != split_by_text(tickets, by_id)


@pytest.mark.parametrize("ids", [True, False])
def test_given_groups_override_the_setting(tickets, ids):
    rows = add_ids_and_groups(tickets if ids else tickets.drop(columns="id"), ["text"])
    results = [prepare(rows, EXACT.model_copy(update={"split_by": name}), tasks.load("text_classification"))[0] for name in ("text", "id")]

    assert split_by(rows, EXACT) == "group"
    pd.testing.assert_frame_equal(*results)


def test_single_row_groups_stay_groups(tmp_path, tiny_base, tickets):
    rows, results = tickets.assign(group=tickets["id"]), []
    more = pd.concat([rows, rows.tail(1).assign(id="reply", text="something quite unlike all that was said before")], ignore_index=True)
    for name, table in (("one", rows), ("two", more)):
        out = tmp_path / name / "prepared"
        folder = write_validated(tmp_path / name / "validated", table, grouped=True)
        preprocess(folder, tiny_base, out, task="text_classification", preprocess=PARAMS)
        results.append(splits_of(out))

    assert results[1].pop("reply") == results[1][rows["id"].iloc[-1]]
    assert results[0] == results[1]


def test_example_keeps_its_splits():
    rows = pd.read_csv(ROOT / "examples/diagnosis/diagnosis.csv", dtype=str, keep_default_na=False)

    assert split_by(rows, PreprocessParams()) == "group"
    assert Counter(assign_splits(rows["group"], 20261121, 0.2, 0.1)) == {"train": 7014, "test": 2189, "validation": 979}


CHAT = '[{{"role": "user", "content": "a {}"}}, {{"role": "assistant", "content": "{other}"}}]'


@pytest.mark.parametrize(
    ("task", "options", "columns"),
    [
        ("text_classification", {"pair": True}, {"text_a": "one two {}", "text_b": "three", "label": "{other}"}),
        ("text_classification", {"kind": "multi"}, {"text": "one two {}", "label": "{other};b"}),
        ("token_classification", {}, {"tokens": "one two {}", "tags": "O O B-{other}"}),
        ("token_classification", {"data": "spans"}, {"text": "one two {}", "spans": '[[0, 3, "{other}"]]'}),
        ("sequence_to_sequence", {}, {"source": "one two {}", "target": "three {other}"}),
        ("causal_lm", {"data": "completion"}, {"prompt": "one two {}", "completion": "three {other}"}),
        (
            "causal_lm",
            {"data": "chat"},
            {"messages": '[{{"role": "user", "content": "a {}"}}, {{"role": "assistant", "content": "{other}"}}]'},
        ),
        ("contrastive", {}, {"anchor": "one two {}", "positive": "three {other}"}),
        ("question_answering", {}, {"question": "who is {other}?", "context": "one two {}", "answers": '["two"]'}),
        ("masked_lm", {}, {"text": "one two {}"}),
    ],
)
def test_split_depends_on_inputs_not_on_answers(task, options, columns):
    plugin = tasks.load(task, options)
    results = []
    for other in ("x", "y"):
        rows = pd.DataFrame({name: [cell.format(number, other=other) for number in range(30)] for name, cell in columns.items()})
        rows, faults = plugin.read(add_ids_and_groups(rows.assign(id=[f"{other}{number}" for number in range(30)]), list(columns)))
        assert not faults
        results.append(prepare(rows, EXACT, plugin)[0].set_index("text" if task != "question_answering" else "context")["split"].to_dict())

    assert results[0] == results[1]
    assert len(set(results[0].values())) == 3


def test_group_stays_in_one_split(tmp_path, tiny_base, tickets):
    splits = splits_of(run_preprocess(tmp_path, tiny_base, tickets))

    where = {}
    for row in tickets.itertuples():
        if row.id in splits:
            where.setdefault(row.group, set()).add(splits[row.id])
    assert len(where) == 80
    assert all(len(splits) == 1 for splits in where.values())


def test_shares_are_met_over_many_groups():
    counts = Counter(assign_splits([f"g{number}" for number in range(20_000)], 5, 0.2, 0.1))

    # 4 standard deviations of a binomial share over 20,000 groups are 1.1 points.
    assert counts["test"] / 20_000 == pytest.approx(0.2, abs=0.012)
    assert counts["validation"] / 20_000 == pytest.approx(0.1, abs=0.009)


def test_split_of_a_group_never_changes():
    # These numbers must never change: another hash would put training rows of champions into the test set.
    assert (round(hash_fraction(20261121, "A00"), 6), round(hash_fraction(7, "g"), 6)) == (0.18862, 0.90192)


def test_conflicting_labels_remove_every_copy():
    rows = frame(("1", "same", "x", "train"), ("2", "same", "y", "test"), ("3", "same", "x", "test"), ("4", "other", "x", "test"))

    assert duplicates.conflicting(rows).to_dict("list") == {
        "id": ["1", "2", "3"],
        "reason": ["conflicting labels"] * 3,
        "duplicate_of": ["2", "1", "2"],
    }


def test_exact_copy_in_test_is_kept():
    rows = frame(("1", "same", "x", "train"), ("2", "same", "x", "validation"), ("3", "same", "x", "test"), ("4", "same", "x", "test"))

    assert duplicates.exact(rows)[["id", "duplicate_of"]].to_dict("list") == {"id": ["1", "2", "4"], "duplicate_of": ["3"] * 3}


def test_near_copies_are_removed_from_train_first():
    base = "acute fracture of the upper end of the left arm bone initial encounter"
    rows = frame(
        ("1", base + " today", "x", "train"),
        ("2", base + " again", "x", "train"),
        ("3", base, "x", "test"),
        ("4", base + " later", "x", "validation"),
        ("5", base + " twice", "x", "test"),
        ("6", "something else entirely about cholera", "x", "train"),
    )

    removed = duplicates.near(rows, 0.8)
    assert removed["id"].tolist() == ["1", "2", "4"]
    assert set(removed["duplicate_of"]) == {"3"}


def test_near_copy_of_a_removed_row_is_kept():
    # The validation row resembles the test row and is removed; the training row resembles only the validation row.
    words = [f"w{number}" for number in range(40)]
    rows = frame(
        ("1", " ".join(words), "x", "test"),
        ("2", " ".join(words[3:]), "x", "validation"),
        ("3", " ".join(words[6:]), "x", "train"),
    )

    assert duplicates.near(rows, 0.9)["id"].tolist() == ["2"]


def test_training_row_removes_no_given_test_row():
    rows = frame(("1", "same", "x", "train"), ("2", "same", "y", "test"), ("3", "other", "x", "train"), ("4", "more", "y", "validation"))
    rows = rows.rename(columns={"split": "given_split"}).assign(group=rows["id"])

    kept, removed = prepare(rows, PARAMS, tasks.load("text_classification"))

    assert dict(zip(kept["id"], kept["split"], strict=True)) == {"2": "test", "3": "train", "4": "validation"}
    assert removed[["id", "duplicate_of"]].to_dict("list") == {"id": ["1"], "duplicate_of": ["2"]}


def test_scripts_without_spaces_are_compared_by_characters():
    rows = frame(
        ("1", "今天天气很好我们一起去公园散步然后回家吃饭看电视睡觉", "x", "test"),
        ("2", "今天天气很好我们一起去公园散步然后回家吃饭看电视睡觉吧", "x", "train"),
        ("3", "这部电影非常无聊我看了一半就离开了电影院", "x", "train"),
    )

    assert duplicates.near(rows, 0.8)["id"].tolist() == ["2"]


@pytest.mark.slow
def test_texts_are_normalised_before_comparison(tickets):
    rows = pd.concat([tickets, tickets.head(1).assign(id="copy", group="copy", text="  " + tickets["text"][0].replace(" ", "\u00a0 "))])

    _, removed = prepare(rows, PARAMS, tasks.load("text_classification"))
    assert "exact duplicate" in set(removed.loc[removed["text"] == tickets["text"][0], "reason"])


def test_encoded_rows_match_the_tables(tmp_path, tiny_base, tickets):
    out = run_preprocess(tmp_path, tiny_base, tickets)

    learn = PreparedSplits.read(out / "learn")
    rows = read_rows(out / "learn" / "train.parquet")
    assert [learn.spec.labels[row["labels"]] for row in (learn.train[number] for number in range(len(rows)))] == rows["label"].tolist()
    assert len(learn.validation) == Profile.read(out).splits["validation"].rows
    assert sorted(path.name for path in (out / "test").iterdir()) == ["test.parquet"]


def test_other_columns_stay_with_their_row(tmp_path, tiny_base, tickets):
    out = run_preprocess(tmp_path, tiny_base, tickets.assign(kind=tickets["id"].where(tickets.index % 2 == 0, None)))

    rows = read_rows(out / "test" / "test.parquet")
    assert list(rows.columns) == ["id", "group", "text", "label", "kind"]
    assert 0 < rows["kind"].isna().sum() < len(rows)
    assert (rows["kind"].dropna() == rows.loc[rows["kind"].notna(), "id"]).all()


def test_truncated_texts_are_counted_and_reported(tmp_path, tiny_base, tickets, caplog):
    with caplog.at_level(logging.WARNING):
        out = run_preprocess(tmp_path, tiny_base, tickets, PARAMS.model_copy(update={"max_length": 8}))

    profile = Profile.read(out)
    assert (profile.tokens.cut_share, profile.tokens.cut_token_share, profile.tokens.mean) == (1.0, pytest.approx(0.2), 10.0)
    assert profile.tokens.quantiles["max"] == 10
    assert sum(count for _, count in profile.tokens.histogram) == profile.kept
    assert any("raise preprocess.max_length" in warning for warning in profile.warnings)
    assert "100.0% of the rows are cut at 8 tokens" in caplog.text


def test_digests_depend_only_on_their_rows(tmp_path, tiny_base, tickets):
    one = Profile.read(run_preprocess(tmp_path, tiny_base, tickets, name="one"))
    train_row = read_rows(tmp_path / "one" / "prepared" / "learn" / "train.parquet")["id"][0]
    changed = tickets.assign(text=tickets["text"].where(tickets["id"] != train_row, "wholly other words that resemble nothing else here"))
    other = Profile.read(run_preprocess(tmp_path, tiny_base, changed, name="other"))

    assert one.snapshot == "s"
    assert one.test_digest == other.test_digest
    assert one.learn_digest != other.learn_digest


def test_class_with_too_few_groups_is_refused(tmp_path, tiny_base, tickets):
    rare = tickets.head(2).assign(label="rare", id=["r1", "r2"], group=["r1", "r2"], text=["first rare thing", "second odd matter"])

    with pytest.raises(BadData, match=r"'rare' has 2 groups \(2 rows\), expected at least 3.*To fix it"):
        run_preprocess(tmp_path, tiny_base, pd.concat([tickets, rare]))


def test_class_missing_in_test_is_refused(tmp_path, tiny_base, tickets):
    groups = [name for name in (f"x{number}" for number in range(99)) if assign_splits([name], PARAMS.split_seed, 0.3, 0.2) != ["test"]][:5]
    rare = pd.DataFrame({"id": groups, "group": groups, "text": [f"lonely {name} matter {name}{name}" for name in groups], "label": "rare"})

    with pytest.raises(BadData, match=r"'rare' has 5 groups \(5 rows\), none of them in test"):
        run_preprocess(tmp_path, tiny_base, pd.concat([tickets, rare]))


def test_single_class_is_refused(tmp_path, tiny_base, tickets):
    with pytest.raises(BadData, match="only the label 'device'"):
        run_preprocess(tmp_path, tiny_base, tickets[tickets["label"] == "device"])


def test_only_conflicting_labels_are_refused(tmp_path, tiny_base, tickets):
    with pytest.raises(BadData, match=r"no rows remain \(240 conflicting labels\)"):
        run_preprocess(tmp_path, tiny_base, tickets.assign(text="same"))


def test_empty_data_is_refused(tmp_path, tiny_base, tickets):
    with pytest.raises(BadData, match="no rows remain"):
        run_preprocess(tmp_path, tiny_base, tickets.head(0))


def test_missing_column_error_suggests_similar_names(tmp_path, tiny_base, tickets):
    with pytest.raises(BadData, match="'label'; did you mean 'labels'"):
        run_preprocess(tmp_path, tiny_base, tickets.rename(columns={"label": "labels"}))


def test_rejected_data_is_refused(tmp_path, tiny_base, tickets):
    folder = write_validated(tmp_path / "validated", tickets, accepted=False)

    with pytest.raises(BadData, match=r"rejected the snapshot \(labels\)"):
        preprocess(folder, tiny_base, tmp_path / "out", task="text_classification", preprocess=PARAMS)
    assert not (tmp_path / "out").exists()


def test_validation_must_have_run(tmp_path, tiny_base):
    with pytest.raises(NotFound, match=r"report\.json is missing"):
        preprocess(tmp_path, tiny_base, tmp_path / "out", task="text_classification", preprocess=PARAMS)


def test_folder_without_a_tokenizer_is_refused(tmp_path, tickets):
    (tmp_path / "base").mkdir()

    with pytest.raises(BadModel):
        run_preprocess(tmp_path, tmp_path / "base", tickets)


def test_max_length_above_the_model_is_refused(tmp_path, tiny_base, tickets):
    with pytest.raises(BadParams, match=r"max_length is 65, but the base model in .* reads at most 64"):
        run_preprocess(tmp_path, tiny_base, tickets, PARAMS.model_copy(update={"max_length": 65}))


def test_shares_without_training_rows_are_refused():
    with pytest.raises(BadParams, match="must sum to less than 1"):
        PreprocessParams.parse({"test_share": 0.5, "validation_share": 0.5}, "preprocess")
