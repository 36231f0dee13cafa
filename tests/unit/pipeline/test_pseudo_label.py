"""Pseudo-labels: the written file, and that such rows are used for training only."""

import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from typer.testing import CliRunner

from components.artifacts.profile import Profile
from components.artifacts.rows import pseudo_labelled, read_rows, read_snapshot, write_rows
from components.artifacts.verdict import Outcome
from components.core.errors import BadData, BadInput, BadParams, BadSource, NotFound
from components.core.similarity import closest
from components.data.preprocess import pseudo_labels
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.splits import check_splits
from components.data.preprocess.step import prepare
from components.data.snapshot import SnapshotParams, read_file, take_snapshot, write_file
from components.data.validate.row_ids import SUPERSEDED, add_ids_and_groups
from components.data.validate.settings import ValidateParams
from components.data.validate.step import validate_rows
from components.model import tasks
from components.report import Run, write_card
from flows.cli import app
from flows.pipeline.evidence import learn_rows
from flows.pipeline.lineage import lineage_of
from flows.pipeline.pseudo_label import pseudo_label
from tests.support import cases, pipeline, reported
from tests.support.gate_cases import decided, text_evidence, text_rows
from tests.support.project import change
from tests.support.tickets import FILLER, TOPICS

PARAMS = PreprocessParams(test_share=0.3, validation_share=0.2, max_length=32)
TASK = tasks.load("text_classification")


def pool(rows: int, seed: int) -> pd.DataFrame:
    """Tickets without labels, each in a separate group."""
    rng = random.Random(seed)
    made = []
    for number in range(rows):
        words = rng.sample(TOPICS[rng.choice(sorted(TOPICS))], 3) + rng.sample(FILLER, 5)
        rng.shuffle(words)
        made.append({"id": f"p{number:03d}", "group": f"pg{number:03d}", "text": " ".join(words), "channel": "mail"})
    return pd.DataFrame(made, dtype="str")


def answered(rows: pd.DataFrame, seed: int = 0, by: str = "tickets/1") -> pd.DataFrame:
    """Rows as written by `pseudo_label`, with random labels."""
    rng = random.Random(seed)
    return rows.assign(label=[rng.choice(sorted(TOPICS)) for _ in range(len(rows))], pseudo=by, confidence="0.970000")


@pytest.fixture(scope="module")
def made(tmp_path_factory, forks):
    """A registered version of the tickets model, and its workspace."""
    folder = tmp_path_factory.mktemp("line")
    (folder / "base").mkdir()
    case = cases.make("text_classification", folder / "base")
    case = replace(case, rows=case.rows.assign(channel="phone"))
    place, params = pipeline.open_line(folder / "project", case, epochs=5)
    pipeline.prepare(place, params)
    pipeline.learn(place, params)
    pipeline.assess(place, params)
    uri, version = pipeline.enter(place, params)
    MlflowClient(uri).set_registered_model_alias(version.name, "champion", str(version.number))
    return place, uri, version


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    """60 input rows, two of them blank, the counts and the written file."""
    place, uri, version = made
    folder = tmp_path_factory.mktemp("written")
    rows = pool(60, seed=5)
    rows.loc[[3, 8], "text"] = ["  ", None]
    write_file(rows, folder / "pool.jsonl", SnapshotParams(source="-"))
    confidence = TASK.predictor(place.model).answer(rows.drop(index=[3, 8])).probabilities.max(axis=1)
    floor = round(float(np.median(confidence)), 3)  # a tiny model has low probabilities
    found = pseudo_label(place, uri, folder / "pool.jsonl", folder / "pseudo.jsonl", f"{version.name}@champion", floor)
    return rows, found, folder / "pseudo.jsonl"


@pytest.mark.slow
def test_counts_add_up_and_rows_are_marked(made, written):
    place, _, version = made
    rows, found, path = written
    out = read_file(path, SnapshotParams(source="-"))
    expected = TASK.predictor(place.model).answer(rows[~rows.index.isin([3, 8])])
    confident = expected.probabilities.max(axis=1) >= found.floor

    assert found.rows == 60 == sum(found.labels.values()) + found.below + found.blank
    assert found.blank == 2
    assert 0 < found.below < 58
    assert found.version == f"{version.name}/1"
    assert out["label"].value_counts().to_dict() == {label: count for label, count in found.labels.items() if count}
    assert out["id"].tolist() == rows.drop(index=[3, 8]).loc[confident, "id"].tolist()
    assert out["label"].tolist() == [label for label, kept in zip(expected.predicted, confident, strict=True) if kept]
    assert [float(cell) for cell in out["confidence"]] == pytest.approx(expected.probabilities.max(axis=1)[confident].tolist(), abs=1e-4)
    assert set(out["pseudo"]) == {found.version}
    assert list(out.columns) == ["id", "group", "text", "channel", "label", "pseudo", "confidence"]
    assert set(out["channel"]) == {"mail"}


@pytest.mark.slow
def test_invalid_input_is_refused(made, tmp_path):
    place, uri, version = made
    source = SnapshotParams(source="-")
    files = {
        "good": pool(4, seed=1),
        "labelled": pool(4, seed=1).assign(label=["billing", None, None, " "]),
        "marked": pool(4, seed=1).assign(pseudo="x/1"),
        "other": pool(4, seed=1).rename(columns={"text": "texts"}),
        "blank": pool(2, seed=1).assign(text=" "),
    }
    for name, rows in files.items():
        write_file(rows, tmp_path / f"{name}.csv", source)
    (tmp_path / "there.csv").write_text("x\n")

    def label(name, out="out.csv", model=f"{version.name}/1", floor=0.5):
        return pseudo_label(place, uri, tmp_path / f"{name}.csv", tmp_path / out, model, floor)

    with pytest.raises(BadInput, match=r"there\.csv exists"):
        label("good", out="there.csv")
    with pytest.raises(BadSource, match=r"unknown extension '\.txt'"):
        label("good", out="out.txt")
    with pytest.raises(BadData, match=r"no row has a probability of at least --min-probability 0\.9999; the highest of 4 is 0\."):
        label("good", floor=0.9999)
    with pytest.raises(BadData, match="1 of 4 rows already have a label"):
        label("labelled")
    with pytest.raises(BadData, match="has a column 'pseudo'"):
        label("marked")
    with pytest.raises(BadSource, match="there is no column 'text'; did you mean 'texts'"):
        label("other")
    with pytest.raises(BadData, match="none of 2 rows has a text"):
        label("blank")
    with pytest.raises(BadSource, match=r"missing\.csv: no such file"):
        label("missing")
    with pytest.raises(NotFound, match="version 7"):
        label("good", model=f"{version.name}/7")
    with pytest.raises(BadParams, match=r"--min-probability 0: expected a probability"):
        label("good", floor=0.0)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_task_without_class_probabilities_is_refused(made, tmp_path):
    place, uri, version = made
    settings = yaml.safe_load(place.params.read_text())
    gates = {name: {"role": "off"} for name in ("floor", "baseline", "champion", "best_champion", "calibration", "behaviour", "fairness")}
    own = {"task_options": {"kind": "regression"}, "train": {"metric": "r2"}, "tune": {"metric": "r2"}, "gates": gates}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(change(settings, own)))
    other = type(place)(place.root, place.project, tmp_path / "params.yaml")

    with pytest.raises(BadParams, match="has no probability per class"):
        pseudo_label(other, uri, tmp_path / "pool.csv", tmp_path / "out.csv", version.name, 0.9)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_command_prints_the_count_per_label(made, written, tmp_path, monkeypatch):
    place, uri, version = made
    _, found, path = written
    monkeypatch.setattr("flows.project.stores.store", lambda _: uri)
    monkeypatch.setattr("flows.cli.pipeline.open_model", lambda *_: place)
    result = CliRunner().invoke(
        app, ["pseudo-label", str(path.with_name("pool.jsonl")), str(tmp_path / "out.csv"), "--min-probability", str(found.floor)]
    )

    assert result.exit_code == 0, result.output
    assert (
        f"{sum(found.labels.values())} of 60 rows, labelled by {version.name}/1 with a probability of at least {found.floor:g}"
        in result.output
    )
    assert all(f"{count:6,} {label}" in result.output for label, count in found.labels.items())
    assert f"{found.below} below the minimum probability; 2 without a text" in result.output
    assert len(read_file(tmp_path / "out.csv", SnapshotParams(source="-"))) == sum(found.labels.values())


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_written_file_can_be_read_with_labelled_files(tmp_path, tickets, ending):
    rows = answered(pool(6, seed=2)).drop(columns="channel")
    rows.loc[0, "text"] = 'a "quoted", text\nof two lines; ünï'
    source = SnapshotParams(source=".", columns={"text": "description", "label": "chapter"})
    named = {"text": "description", "label": "chapter"}
    write_file(rows.rename(columns=named), tmp_path / f"b.{ending}", source)
    write_file(tickets.rename(columns=named), tmp_path / f"a.{ending}", source)
    take_snapshot(tmp_path, tmp_path / "raw", snapshot=source, required=TASK.columns)
    found = read_snapshot(tmp_path / "raw")

    pd.testing.assert_frame_equal(read_file(tmp_path / f"b.{ending}", source), rows.rename(columns=named), check_dtype=False)
    assert len(found) == 246
    assert pseudo_labelled(found).sum() == 6
    assert found.loc[pseudo_labelled(found), "id"].isin(rows["id"]).all()
    assert set(found.loc[~pseudo_labelled(found), "confidence"].isna()) == {True}


@pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")
def test_carriage_return_survives_writing(tmp_path):
    rows = pd.DataFrame({"id": ["a", "b"], "text": ["one\rtwo", 'with "quotes"\nand a line']}, dtype="str")
    write_file(rows, tmp_path / "out.csv", SnapshotParams(source="out.csv"))

    assert read_file(tmp_path / "out.csv", SnapshotParams(source="out.csv"))["text"].tolist() == rows["text"].tolist()


def test_label_wins_over_pseudo_label_of_the_same_id(tickets):
    copies = answered(tickets.head(30), by="tickets/3")
    judged = validate_rows(pd.concat([tickets, copies], ignore_index=True), TASK, ValidateParams(max_quarantined_share=0.0))

    assert [one.name for one in judged.checks if one.scope == "suite" and not one.passed] == []
    assert judged.reasons == {SUPERSEDED: 30}
    assert not pseudo_labelled(judged.kept).any()
    assert len(judged.kept) == len(tickets)


@pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")
def test_pseudo_labels_do_not_count_for_min_rows_per_class(tickets):
    few = pd.concat([tickets[tickets["label"] != "device"], tickets[tickets["label"] == "device"].head(3)])
    more = answered(pool(60, seed=3)).assign(label="device").drop(columns="channel")
    judged = validate_rows(pd.concat([few, more], ignore_index=True), TASK, ValidateParams())
    failed = {one.name: one.observed for one in judged.checks if one.scope == "suite" and not one.passed}

    assert failed == {"min_rows_per_class": "1 of 3 labels fail: 'device' (3)"}
    assert len(judged.kept) == len(few) + 60


def test_pseudo_labelled_rows_keep_generated_ids(tickets):
    rows = tickets[["text", "label"]].assign(pseudo=None, confidence=None)
    copies = rows.head(20).assign(label="aaa", pseudo="tickets/1", confidence="0.99")
    alone, together = add_ids_and_groups(rows, ["text"]), add_ids_and_groups(pd.concat([copies, rows], ignore_index=True), ["text"])

    true = together[~pseudo_labelled(together)]
    assert dict(zip(true["text"], true["id"], strict=True)) == dict(zip(alone["text"], alone["id"], strict=True))
    assert together["id"].is_unique


def mixed(tickets: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Tickets and pseudo-labelled rows: new ones, copies, near copies, rows of known groups, repeated and unknown ones."""
    rng = random.Random(seed)
    some = tickets.sample(40, random_state=seed)
    new = pool(80, seed=seed + 100).drop(columns="channel")
    parts = [
        new,
        some.head(15).drop(columns="label").assign(id="c" + some["id"].head(15), group="c" + some["id"].head(15)),
        some.iloc[15:30].drop(columns="label").assign(id="n" + some["id"], group="n" + some["id"], text=some["text"] + " again"),
        new.head(10).assign(id=[f"g{n}" for n in range(10)], group=some["group"].tail(10).to_numpy(), text=pool(10, seed + 200)["text"]),
        new.tail(5).assign(id=[f"r{n}" for n in range(5)]),
    ]
    found = answered(pd.concat(parts, ignore_index=True), seed, by=rng.choice(["tickets/1", "tickets/2"]))
    found.loc[:9, "label"] = "an old label"
    return pd.concat([tickets, found], ignore_index=True).sample(frac=1, random_state=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_pseudo_labelled_rows_are_in_train_only(tickets, seed):
    params = PARAMS.model_copy(update={"split_seed": seed})
    rows = mixed(tickets, seed)
    kept, removed = prepare(rows, params, TASK)
    plain, gone = prepare(tickets, params, TASK)
    marked, unseen = kept[pseudo_labelled(kept)], kept[kept["split"] != "train"]

    assert set(marked["split"]) == {"train"}
    assert len(marked) > 20
    assert not set(marked["group"]) & set(unseen["group"])
    assert not set(marked["text"]) & set(tickets["text"])
    assert not closest(marked["text"].tolist(), unseen["text"].tolist(), params.near_duplicate)
    assert set(marked["label"]) <= set(TOPICS)
    assert len(kept) + len(removed) == len(rows)
    assert set(pseudo_labels.REASONS) <= set(removed["reason"])
    # Labelled rows are unchanged.
    columns = ["id", "group", "text", "label", "split"]
    pd.testing.assert_frame_equal(kept.loc[~pseudo_labelled(kept), columns].reset_index(drop=True), plain[columns])
    assert set(gone["id"]) == set(removed["id"]) & set(tickets["id"])


def test_class_needs_true_labels_in_every_split(tickets):
    rare = tickets.head(6).assign(label="rare", id=[f"r{n}" for n in range(6)], group=[f"r{n}" for n in range(6)])
    rows = pd.concat([tickets.iloc[6:], rare.head(2), answered(rare.tail(4)).assign(label="rare")], ignore_index=True)
    kept, removed = prepare(rows, PARAMS, TASK)

    with pytest.raises(BadData, match=r"'rare' has 2 groups \(2 rows\), expected at least 3"):
        check_splits(kept[~pseudo_labelled(kept)], removed)


def test_pseudo_label_without_true_rows_is_removed(tickets):
    true = tickets.head(2).assign(id=["c1", "c2"], group=["c1", "c2"], text="one text twice", label=["rare", "billing"])
    rows = pd.concat([tickets, true, answered(pool(40, 3)).assign(label="rare")], ignore_index=True)
    kept, removed = prepare(rows, PARAMS, TASK)

    assert "rare" not in set(kept["label"])
    assert (removed["reason"] == pseudo_labels.UNKNOWN).any()


def test_label_set_with_an_unknown_label_is_removed(tickets):
    several = tasks.load("text_classification", {"kind": "multi"})
    rows = pd.concat([tickets, answered(pool(40, 3)).assign(label=["billing", "strange"] * 20)], ignore_index=True)
    rows, faults = several.read(rows.assign(label=[f'["{label}"]' for label in rows["label"]]))
    kept, _ = prepare(rows, PARAMS, several)

    assert not faults
    assert "strange" not in several.labels_of(kept)
    assert pseudo_labelled(kept).any()


def test_rows_without_marks_are_unchanged(tickets):
    plain = prepare(tickets, PARAMS, TASK)
    marked = prepare(tickets.assign(pseudo=None, confidence=" "), PARAMS, TASK)

    for one, other in zip(plain, marked, strict=True):
        pd.testing.assert_frame_equal(one, other[one.columns])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_pseudo_labels_from_snapshot_to_report(made, written, tmp_path):
    """Profile, report, card and lineage name the pseudo-labels."""
    place, _, _ = made
    _, found, path = written
    before = Profile.read(place.root / "data/prepared")
    case = cases.make("text_classification", tmp_path)
    case = replace(case, rows=case.rows.assign(channel="phone"))
    there, params = pipeline.open_line(tmp_path / "project", case)
    (there.root / "source").mkdir()
    (there.root / "rows.jsonl").rename(there.root / "source" / "rows.jsonl")
    (there.root / "source" / "pseudo.jsonl").write_bytes(path.read_bytes())
    params = params.model_copy(update={"snapshot": SnapshotParams(source="source")})
    pipeline.prepare(there, params)
    pipeline.learn(there, params)
    pipeline.assess(there, params)
    profile, prepared = Profile.read(there.root / "data/prepared"), there.root / "data/prepared"
    train = read_rows(prepared / "learn" / "train.parquet")

    used = int(pseudo_labelled(train).sum())
    assert profile.pseudo == {found.version: used}
    assert 0 < used < sum(found.labels.values())
    assert profile.test_digest == before.test_digest
    assert profile.splits["validation"] == before.splits["validation"]
    assert profile.splits["train"].rows == before.splits["train"].rows + used
    lost = profile.exact_duplicates + profile.near_duplicates + profile.conflicting + sum(profile.pseudo_removed.values())
    assert profile.rows_in == 240 + sum(found.labels.values()) == profile.kept + lost

    lineage = lineage_of(there, params.name, "c" * 64)
    assert lineage.pseudo == {found.version: used}

    shown = reported.page(there.root, lineage=lineage)
    assert (
        f"{used} of {profile.splits['train'].rows} training rows have pseudo-labels from {found.version}"
        in reported.section(shown, "data").words
    )
    assert "All rows are accounted for" in reported.section(shown, "data").words
    assert f"pseudo-labels {used} of {found.version}" in reported.section(shown, "lineage").words
    card, _ = write_card(there.root, tmp_path / "card", Run(lineage, reported.verdict()))
    assert f"training rows have pseudo-labels from `{found.version}`" in card.read_text(encoding="utf-8")


def test_leakage_gate_checks_pseudo_labelled_rows(tmp_path):
    train, test = text_rows(1_200, 2).assign(pseudo=None), text_evidence().rows
    planted = train.head(1).assign(id="planted", text=test["text"].iat[0], label=test["label"].iat[0], pseudo="tickets/1")
    for name, rows in {"clean": train, "leaky": pd.concat([train, planted], ignore_index=True)}.items():
        (tmp_path / name).mkdir()
        write_rows(rows, tmp_path / name / "train.parquet")
        write_rows(train.head(0), tmp_path / name / "validation.parquet")
    caught = decided("leakage", text_evidence(train=learn_rows(tmp_path / "leaky")))

    assert decided("leakage", text_evidence(train=learn_rows(tmp_path / "clean"))).outcome is Outcome.PASS
    assert caught.outcome is Outcome.FAIL
    assert "planted" in str(caught.tables[1].rows)
