"""Public datasets keep their class names and splits."""

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from components.artifacts.profile import Profile
from components.artifacts.rows import read_rows, read_snapshot
from components.core.errors import BadParams, BadSource
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.step import preprocess
from components.data.snapshot import SnapshotParams, take_snapshot
from components.data.snapshot.cells import as_text
from components.data.snapshot.features import apply_class_names, class_names_from_cards
from components.data.snapshot.given_splits import split_of, splits_of_files
from components.data.validate.row_ids import COPY, SHARED, SUPERSEDED, resolve_shared_ids
from components.data.validate.settings import ValidateParams
from components.data.validate.step import validate
from flows.pipeline.historical_data import read_set
from flows.project.init_params import write_params
from flows.project.params import read_params
from flows.project.workspace import Workspace
from tests.support.project import ROOT
from tests.support.sources.hub import in_cache

NAMES = ["sadness", "joy", "love", "anger", "fear", "surprise"]
SPLITS = {"train": 240, "validation": 60, "test": 90}
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})


def emotion(split: str) -> list[dict[str, Any]]:
    """Return rows of a split; the first test row is in train too."""
    texts = [f"i feel {split} {number} {NAMES[number % 6]} because of {number * 7} things" for number in range(SPLITS[split])]
    texts[0] = "i feel the same in two splits" if split != "validation" else texts[0]
    return [{"text": text, "label": number % 6} for number, text in enumerate(texts)]


def write_dataset(folder: Path) -> Path:
    """Write the layout of the hub: one Parquet file per split below `data`."""
    (folder / "data").mkdir(parents=True)
    for split in SPLITS:
        Dataset.from_list(emotion(split), features=FEATURES).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def take(root: Path, source: str, **settings: Any) -> pd.DataFrame:
    take_snapshot(root, root / "raw", snapshot=SnapshotParams.parse({"source": source, **settings}, "snapshot"))
    return read_snapshot(root / "raw").sort_values("text", ignore_index=True)


def prepare(root: Path, base: Path) -> dict[str, pd.DataFrame]:
    validate(root / "raw", root / "validated", task="text_classification", validate=ValidateParams(numeric_labels="allow"))
    settings = PreprocessParams(near_duplicate=1.0, max_length=32)
    preprocess(root / "validated", base, root / "prepared", task="text_classification", preprocess=settings)
    files = {"train": "learn/train", "validation": "learn/validation", "test": "test/test"}
    return {split: read_rows(root / "prepared" / f"{file}.parquet") for split, file in files.items()}


@pytest.mark.parametrize("source", ["emotion", "emotion/data", "emotion/**/*.parquet"])
def test_hub_layout_keeps_labels_and_splits(tmp_path: Path, tiny_base: Path, source: str) -> None:
    write_dataset(tmp_path / "emotion")
    rows = take(tmp_path, source)

    assert rows["given_split"].value_counts().to_dict() == SPLITS
    parts = prepare(tmp_path, tiny_base)

    assert list(json.loads((tmp_path / "prepared/learn/labels.json").read_text(encoding="utf-8"))) == sorted(NAMES)
    assert {split: len(part) for split, part in parts.items()} == {"train": 239, "validation": 60, "test": 90}
    for split, part in parts.items():
        expected = {row["text"]: NAMES[row["label"]] for row in emotion(split)}
        assert dict(zip(part["text"], part["label"], strict=True)).items() <= expected.items()


def test_leaks_between_given_splits_are_reported(tmp_path: Path, tiny_base: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_dataset(tmp_path / "emotion")
    take(tmp_path, "emotion")
    prepare(tmp_path, tiny_base)

    leak = "the given splits leak: 1 rows of train were removed because test has the same or a similar text"
    assert leak in Profile.read(tmp_path / "prepared").warnings
    assert leak in caplog.text


def test_group_in_several_given_splits_is_reported(tmp_path: Path, tiny_base: Path) -> None:
    frame = pd.concat([pd.DataFrame(emotion(split)).assign(fold=split) for split in SPLITS], ignore_index=True)
    frame.assign(group=[f"g{number % 30}" for number in range(len(frame))]).to_csv(tmp_path / "rows.csv", index=False)
    take(tmp_path, "rows.csv", split_column="fold")
    prepare(tmp_path, tiny_base)

    assert any("30 of 30 groups have rows in several splits" in warning for warning in Profile.read(tmp_path / "prepared").warnings)


def test_split_column_is_used(tmp_path: Path, tiny_base: Path) -> None:
    words = {"train": "training", "validation": " Dev", "test": "TEST"}
    frame = pd.concat([pd.DataFrame(emotion(split)).assign(split=words[split]) for split in SPLITS], ignore_index=True)
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)

    rows = take(tmp_path, "rows.jsonl", split_column="split")

    assert rows["given_split"].value_counts().to_dict() == SPLITS
    assert "split" not in rows
    assert {split: len(part) for split, part in prepare(tmp_path, tiny_base).items()} == {**SPLITS, "train": 239}


def test_missing_split_is_taken_from_training_rows(tmp_path: Path, tiny_base: Path) -> None:
    frame = pd.concat([pd.DataFrame(emotion(split)).assign(fold=split) for split in ("train", "test")], ignore_index=True)
    more = pd.DataFrame([{"text": f"a later row about {number} matters", "label": number % 6, "fold": None} for number in range(90)])
    pd.concat([frame, more], ignore_index=True).to_parquet(tmp_path / "rows.parquet")
    take(tmp_path, "rows.parquet", split_column="fold")

    parts = prepare(tmp_path, tiny_base)

    assert set(parts["test"]["text"]) == {row["text"] for row in emotion("test")}
    assert 10 < len(parts["validation"]) < 70
    assert set(parts["validation"]["text"]).isdisjoint(parts["test"]["text"])
    assert len(parts["train"]) + len(parts["validation"]) == 239 + 90


def test_unused_split_column_is_kept_with_a_warning(tmp_path: Path, tiny_base: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.concat([pd.DataFrame(emotion(split)).assign(split=split) for split in SPLITS], ignore_index=True)
    frame.to_csv(tmp_path / "rows.csv", index=False)

    take(tmp_path, "rows.csv")
    parts = prepare(tmp_path, tiny_base)

    assert (
        "the column 'split' is kept but not used, and rows get new splits; set snapshot.split_column: split to use its splits"
        in caplog.text
    )
    assert any(
        "the column 'split' (test, train, validation) is kept" in warning for warning in Profile.read(tmp_path / "prepared").warnings
    )
    for part in parts.values():
        assert set(part["split"]) == set(SPLITS)
        assert all(split in text for split, text in zip(part["split"], part["text"], strict=True) if "same" not in text)


def test_invalid_split_is_reported_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,fold\na,train\nb,fold-2\n", encoding="utf-8")

    with pytest.raises(BadSource, match=r"rows\.csv: row 2: 'fold': 'fold-2' is not a split: expected train, validation or test"):
        take(tmp_path, "rows.csv", split_column="fold")
    with pytest.raises(BadSource, match=r"column 'flod' of snapshot\.split_column is missing; did you mean 'fold'"):
        take(tmp_path, "rows.csv", split_column="flod")
    with pytest.raises(BadParams, match=r"split_column: 'fold' is already used in snapshot\.columns"):
        SnapshotParams.parse({"source": "a", "columns": {"label": "fold"}, "split_column": "fold"}, "snapshot")


def test_splits_of_files_can_be_ignored(tmp_path: Path) -> None:
    write_dataset(tmp_path / "emotion")

    assert "given_split" not in take(tmp_path, "emotion", split_files=False)
    assert "given_split" not in take(tmp_path, "emotion/data/train-*.parquet")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["d/train.csv", "d/test.csv"], ["train", "test"]),
        (["d/train-00000-of-00002.parquet", "d/train-00001-of-00002.parquet", "d/dev.parquet"], ["train", "train", "validation"]),
        (["x/test/a.csv", "x/train/a.csv", "x/valid/a.csv"], ["test", "train", "validation"]),
        (["en.train.csv", "en.test.csv"], ["train", "test"]),
        (["s3://b/k/tickets_train.jsonl", "s3://b/k/tickets_eval.jsonl"], ["train", "test"]),
        (["train/a.csv", "train/b.csv"], [None, None]),
        (["d/train.csv"], [None]),
        (["test/train/a.csv", "test/validation/b.csv"], ["train", "validation"]),
        (["d/train.csv", "d/test.csv", "d/more.csv"], ["train", "test", None]),
        (["d/train_test.csv", "d/contest.csv"], [None, None]),
        (["d/test.csv", "d/validation.csv"], [None, None]),
    ],
)
def test_splits_are_read_from_file_names(names: list[str], expected: list[str | None]) -> None:
    assert splits_of_files(names) == expected


def test_empty_cell_has_no_split() -> None:
    assert split_of(None) is split_of(" ") is None


def test_regression_set_needs_no_split(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("text,label\na text,x\n", encoding="utf-8")
    params = read_params(ROOT / "params.yaml")
    params = params.model_copy(update={"snapshot": params.snapshot.model_copy(update={"split_column": "fold"})})
    workspace = Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")

    assert read_set(workspace, params, "r.csv")["text"].tolist() == ["a text"]
    with pytest.raises(BadParams, match="found an empty text"):
        read_set(workspace, params, "")


# Class names


def test_nested_classes_get_their_names(tmp_path: Path) -> None:
    inner = ClassLabel(names=["O", "B"])
    features = Features({"tokens": Sequence(Value("string")), "tags": Sequence(inner), "one": {"kind": inner}, "many": [{"kind": inner}]})
    row = {"tokens": ["a", "b"], "tags": [0, 1], "one": {"kind": 1}, "many": [{"kind": 0}, {"kind": None}]}
    Dataset.from_list([row], features=features).to_parquet(tmp_path / "rows.parquet")
    take_snapshot(tmp_path, tmp_path / "raw", snapshot=SnapshotParams(source="rows.parquet"))

    row = read_snapshot(tmp_path / "raw").iloc[0]
    assert json.loads(row["tags"]) == ["O", "B"]
    assert json.loads(row["one"]) == {"kind": "B"}
    assert json.loads(row["many"]) == [{"kind": "O"}, {"kind": None}]


def test_class_numbers_can_be_kept(tmp_path: Path) -> None:
    write_dataset(tmp_path / "emotion")

    assert set(take(tmp_path, "emotion", class_labels="numbers")["label"]) == set("012345")


CARDS = {
    "README.md": "---\n" + yaml.safe_dump({"dataset_info": {"features": FEATURES._to_yaml_list()}}) + "---\n# Emotion\n",
    "dataset_infos.json": json.dumps({"default": {"features": FEATURES.to_dict()}}),
}


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])
def test_class_names_come_from_the_card_next_to_the_files(tmp_path: Path, card: str, extension: str) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "set" / card).write_text(CARDS[card], encoding="utf-8")
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [0, 5, -1]})
    path = tmp_path / "set" / "data" / f"rows.{extension}"
    if extension == "csv":
        frame.to_csv(path, index=False)
    elif extension == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path, index=False)

    labels = take(tmp_path, f"set/data/rows.{extension}")["label"]

    assert labels.tolist()[:2] == ["sadness", "surprise"]
    assert pd.isna(labels[2])


def test_hub_card_is_read(tmp_path: Path) -> None:
    files = {"data/a.csv": b"text,label\na,1\n", "README.md": CARDS["README.md"].encode()}
    in_cache(tmp_path / "hub", files)
    settings, environment = SnapshotParams(source="hub://acme/tickets@main"), {"HF_HUB_CACHE": str(tmp_path / "hub")}

    take_snapshot(tmp_path, tmp_path / "raw", snapshot=settings, environment=environment)

    assert read_snapshot(tmp_path / "raw")["label"].tolist() == ["joy"]


def test_class_without_a_name_is_refused(tmp_path: Path) -> None:
    schema = pa.schema(
        [("text", pa.string()), ("label", pa.int64())], {"huggingface": json.dumps({"info": {"features": FEATURES.to_dict()}})}
    )
    pq.write_table(pa.table({"text": ["a"], "label": [6]}, schema=schema), tmp_path / "rows.parquet")

    with pytest.raises(
        BadSource, match=r"class 6 has no name: the dataset names 0 \(sadness\) to 5 \(surprise\); set snapshot\.class_labels"
    ):
        take(tmp_path, "rows.parquet")


@pytest.mark.parametrize("cell", ["joy", "a word", 1, 1.0, "1", "1.0"])
def test_class_name_or_other_text_stays(cell: Any) -> None:
    assert apply_class_names(cell, ("sadness", "joy")) == (cell if cell == "a word" else "joy")


def test_nan_is_a_missing_class() -> None:
    assert as_text(apply_class_names(float("nan"), ("sadness", "joy"))) is None


def test_ambiguous_class_number_is_refused() -> None:
    stars = ("1", "2", "3")
    assert [apply_class_names(cell, stars) for cell in (0, 1, 2, "1", "3")] == ["1", "2", "3", "1", "3"]
    with pytest.raises(ValueError, match=r"0 may be a class number or a class name.* 1, 2, 3.*snapshot\.class_labels: numbers"):
        apply_class_names("0", stars)
    assert apply_class_names("1", ("0", "1")) == "1"


def test_copy_of_a_given_test_row_is_removed() -> None:
    rows = pd.DataFrame(
        [("7", "a", "x", "train"), ("7", "a", "x", "test"), ("8", "b", "x", "validation"), ("8", "c", "x", "train")],
        columns=["id", "text", "label", "given_split"],
        dtype="str",
    )
    assert resolve_shared_ids(rows) == {COPY: [0], SHARED: [2, 3], SUPERSEDED: []}


def test_conflicting_or_broken_cards_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    (tmp_path / "dataset_infos.json").write_text(
        json.dumps({name: {"features": features.to_dict()} for name, features in (("a", FEATURES), ("b", other))}), encoding="utf-8"
    )
    with caplog.at_level(logging.WARNING):
        assert class_names_from_cards([tmp_path], ["text", "label"]) == {}
    assert "conflicting class names" in caplog.text
    (tmp_path / "README.md").write_text("---\ndataset_info: [\n---\n", encoding="utf-8")
    (tmp_path / "dataset_infos.json").write_text("{", encoding="utf-8")
    assert class_names_from_cards([tmp_path], ["text", "label"]) == {}
    assert "README.md cannot be read" in caplog.text


# `retune init`


def test_card_with_a_repeated_key_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "README.md").write_text("---\ndataset_info: {}\nlicense: mit\ndataset_info: {}\n---\n", encoding="utf-8")

    assert class_names_from_cards([tmp_path], ["text", "label"]) == {}
    assert "the key 'dataset_info' is in line 2 and again in line 4" in caplog.text


def test_init_detects_class_names_and_splits(tmp_path: Path) -> None:
    write_dataset(tmp_path / "emotion")
    guess = write_params(tmp_path / "emotion", tmp_path / "params.yaml", name=None, force=False)

    params = read_params(tmp_path / "params.yaml")
    assert (guess.classes, params.validation.numeric_labels) == (6, "refuse")
    assert (params.snapshot.source, params.snapshot.split_column, params.snapshot.split_files) == ("emotion", None, True)
    assert "splits by the files' names" in str(guess)


def test_init_detects_the_split_column(tmp_path: Path) -> None:
    frame = pd.concat([pd.DataFrame(emotion(split)).assign(fold=split) for split in SPLITS], ignore_index=True)
    frame.assign(label=[NAMES[number] for number in frame["label"]]).to_csv(tmp_path / "rows.csv", index=False)
    guess = write_params(tmp_path / "rows.csv", tmp_path / "params.yaml", name=None, force=False)

    assert read_params(tmp_path / "params.yaml").snapshot.split_column == "fold"
    assert guess.columns == {"text": "text", "label": "label"}
