"""Multi-label texts through the whole pipeline: the served answer contains the predicted labels and each probability."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.artifacts.predictions import Predictions, probabilities_of
from components.mlflow_store.registry import predict, probe_server
from tests.support import cases, pipeline

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


def test_served_answer_has_probabilities(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    single = cases.make("text_classification", tmp_path / "base")
    rows = single.rows[~single.rows["id"].str.startswith("bad")]
    labels = [json.dumps([label] if workspace % 3 else [label, "urgent"]) for workspace, label in enumerate(rows["label"])]
    case = replace(
        single,
        rows=rows.assign(label=labels),
        metric="micro_f1",
        measure="micro_f1",
        options={"kind": "multi"},
        changes={},
    )
    workspace, params = pipeline.open_line(tmp_path / "project", case, epochs=4)
    pipeline.prepare(workspace, params)
    pipeline.learn(workspace, params)
    pipeline.assess(workspace, params)
    uri, version = pipeline.enter(workspace, params)
    rows, evaluated = pipeline.tested_rows(workspace).head(6), Predictions.read(workspace.predictions / "candidate.parquet")

    served = probe_server(uri, version.name, version.number, rows, example=params.made_task.example)
    assert served.fault is None
    expected = dict(zip(evaluated.ids.tolist(), evaluated.predicted.tolist(), strict=True))
    assert [one.label for one in served.answers] == [expected[one.id] for one in served.answers]

    answers = predict(uri, "text_classification/1", rows)
    probabilities = probabilities_of(evaluated.measured)
    assert set(probabilities) == {"billing", "device", "network", "urgent"}
    for name, answer, row in zip(rows["id"], answers["answer"], answers["probabilities"], strict=True):
        at = evaluated.ids.tolist().index(name)
        assert row == pytest.approx({label: values[at] for label, values in probabilities.items()}, abs=1e-5)
        assert set(json.loads(answer)) <= set(row)
