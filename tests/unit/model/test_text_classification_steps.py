"""Validation, preprocessing and training stages on raw rows of every label kind."""

import json

import pandas as pd
import pytest

from components.artifacts.profile import Profile
from components.artifacts.rows import read_rows, write_rows
from components.artifacts.training import ModelSpec
from components.artifacts.tuning_result import TunedSettings
from components.artifacts.validation import ValidationReport
from components.core.section import OpenSection
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.step import preprocess
from components.data.snapshot import SnapshotParams, take_snapshot
from components.data.validate.settings import ValidateParams
from components.data.validate.step import validate
from components.model import tasks
from components.training.train import train
from components.training.trainer import TrainSection
from tests.support.labelled import KINDS, METRIC, paired, relabelled
from tests.support.tiers import rest_exhaustive

BAD = {
    "multi": ('["billing"', "label is not a valid JSON list"),
    "ordinal": ("worst", "label is not in task_options.levels"),
    "regression": ("dear", "label is not a number"),
}
TRAIN = {"epochs": 1, "threads": 1, "precision": "float32", "learning_rate": 1e-2, "batch_size": 16}


@pytest.mark.slow
@pytest.mark.parametrize("pair", [False, True], ids=["text", "pair"])
@pytest.mark.parametrize("kind", rest_exhaustive(KINDS, "single", "multi"))
def test_raw_rows_become_a_trained_model(tiny_base, tickets, tmp_path, monkeypatch, kind, pair):
    monkeypatch.chdir(tmp_path)
    options = OpenSection(**KINDS[kind], pair=pair)
    task = tasks.load("text_classification", options.fields)
    bad, reason = BAD.get(kind, ("", "label is empty"))
    rows = relabelled(tickets, kind)
    rows = pd.concat([rows, rows.head(1).assign(id="bad", text="nothing of that kind at all", label=bad)], ignore_index=True)
    write_rows(paired(rows) if pair else rows, tmp_path / "rows.parquet")

    take_snapshot(tmp_path, tmp_path / "raw", snapshot=SnapshotParams(source="rows.parquet"))
    validate(tmp_path / "raw", tmp_path / "validated", task="text_classification", validate=ValidateParams(), task_options=options)
    report = ValidationReport.read(tmp_path / "validated")
    assert (report.kept, report.quarantined) == (240, 1)
    assert next(iter(report.reasons)).startswith(reason)

    shares = PreprocessParams(test_share=0.3, validation_share=0.2, max_length=32)
    folders = (tmp_path / "validated", tiny_base, tmp_path / "prepared")
    preprocess(*folders, task="text_classification", preprocess=shares, task_options=options)
    profile, spec = Profile.read(tmp_path / "prepared"), ModelSpec.read(tmp_path / "prepared" / "learn")
    assert profile.rows_in == 240
    assert (spec.options["kind"], spec.options["pair"]) == (kind, pair)
    assert (spec.options["centre"] is not None) == (kind == "regression")

    (tmp_path / "tuned").mkdir()
    TunedSettings(settings={}).write(tmp_path / "tuned")
    section = TrainSection.parse(TRAIN | {"metric": METRIC[kind]}, "train")
    learn, out = tmp_path / "prepared" / "learn", tmp_path / "trained"
    train(learn, tiny_base, tmp_path / "tuned", out, task="text_classification", train=section, task_options=options)
    predictor = task.predictor(out / "model")
    test = read_rows(tmp_path / "prepared" / "test" / "test.parquet")
    raw = test[list(task.inputs)]
    assert predictor.answer(raw).predicted == predictor.answer(test).predicted
    assert set(predictor.spec.options["thresholds"]) == (set(spec.labels) if kind == "multi" else set())
    if kind == "multi":
        assert all(set(json.loads(answer)) <= set(spec.labels) for answer in predictor.answer(raw).predicted)
