import json
import shutil

import numpy as np
import pytest

from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec, Training
from components.artifacts.tuning_result import TunedSettings
from components.core.errors import BadParams, NotFound
from components.core.hashing import digest_file, digest_folder
from components.model import tasks
from components.training.train import train
from components.training.trainer import TrainSection
from components.training.trainer.temperature import likelihood, scaled_logs
from tests.support.learn import make_learn

pytestmark = pytest.mark.slow

task = tasks.load("text_classification")

SECTION = {"epochs": 1, "learning_rate": "tuned", "batch_size": 16, "threads": 1, "precision": "float32"}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    TunedSettings(settings={"learning_rate": 3e-3}).write(folder)
    return folder


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(learn, base, tuned, out, **changes):
    train(learn, base, tuned, out, task="text_classification", train=TrainSection.parse(SECTION | changes, "train"))
    return Training.read(out)


def test_output_answers_raw_text_without_pickle(learn, tiny_base, tuned, workspace):
    record = run(learn, tiny_base, tuned, workspace / "out")

    assert sorted(path.name for path in (workspace / "out").iterdir()) == ["history.jsonl", "model", "training.json"]
    assert [path for path in (workspace / "out").rglob("*") if path.suffix in PICKLES] == []
    assert task.predictor(workspace / "out" / "model").probabilities(["wifi slow"]).shape == (1, 3)
    assert ModelSpec.read(workspace / "out" / "model") == ModelSpec.read(learn)
    assert record.settings["learning_rate"] == 3e-3
    assert (record.threads, record.precision, record.stopped_by, record.resumed) == (1, "float32", "epochs", 0)
    assert list((workspace / "var" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("method", ["freeze", "lora"])
def test_every_method_writes_a_plain_model(learn, tiny_base, tuned, workspace, method):
    run(learn, tiny_base, tuned, workspace / "full")
    record = run(learn, tiny_base, tuned, workspace / "out", method=method)
    models = [workspace / name / "model" for name in ("full", "out")]

    files = [sorted(path.name for path in model.iterdir()) for model in models]
    assert files[0] == files[1]
    assert (models[0] / "config.json").read_bytes() == (models[1] / "config.json").read_bytes()
    assert record.settings["method"] == method
    assert record.weights_sha256 == digest_file(models[1] / "model.safetensors") != digest_file(models[0] / "model.safetensors")
    assert task.predictor(models[1]).probabilities(["wifi slow"]).shape == (1, 3)


def test_output_does_not_depend_on_the_folder(learn, tiny_base, tuned, workspace):
    run(learn, tiny_base, tuned, workspace / "one")
    elsewhere = shutil.copytree(tiny_base, workspace / "elsewhere" / "base")
    run(shutil.copytree(learn, workspace / "elsewhere" / "learn"), elsewhere, tuned, workspace / "deep" / "two")

    assert digest_folder(workspace / "one" / "model") == digest_folder(workspace / "deep" / "two" / "model")


def test_fixed_value_wins_over_the_search(learn, tiny_base, tuned, workspace):
    assert run(learn, tiny_base, tuned, workspace / "out", learning_rate=1e-4).settings["learning_rate"] == 1e-4


def test_missing_tuned_value_is_refused(learn, tiny_base, tuned, workspace):
    with pytest.raises(BadParams, match=r"train\.batch_size is set to `tuned`"):
        run(learn, tiny_base, tuned, workspace / "out", batch_size="tuned")


def test_missing_search_result_is_reported(learn, tiny_base, workspace):
    with pytest.raises(NotFound, match=r"settings\.json is missing"):
        run(learn, tiny_base, workspace / "nowhere", workspace / "out")


def test_data_of_another_task_is_refused(learn, tiny_base, tuned, workspace):
    copy = shutil.copytree(learn, workspace / "learn")
    ModelSpec.read(learn).model_copy(update={"task": "question_answering"}).write(copy)

    with pytest.raises(NotFound, match="prepared for the task question_answering"):
        run(copy, tiny_base, tuned, workspace / "out")


@pytest.mark.exhaustive
def test_training_reads_no_test_split(learn, tiny_base, tuned, workspace):
    # Without a sibling folder `test`, and with an unreadable one, the model is the same.
    run(shutil.copytree(learn, workspace / "bare" / "learn"), tiny_base, tuned, workspace / "one")
    with_test = shutil.copytree(learn, workspace / "full" / "learn")
    (workspace / "full" / "test").mkdir()
    (workspace / "full" / "test" / "test.parquet").write_bytes(b"a reader of this would fail")
    run(with_test, tiny_base, tuned, workspace / "two")

    assert digest_folder(workspace / "one" / "model") == digest_folder(workspace / "two" / "model")


def test_history_has_one_json_object_per_line(learn, tiny_base, tuned, workspace):
    run(learn, tiny_base, tuned, workspace / "out")

    lines = [json.loads(line) for line in (workspace / "out" / "history.jsonl").read_text().splitlines()]
    assert {"step", "epoch", "seconds", "eval_loss", "eval_macro_f1", "eval_accuracy"} == set(lines[-1])


@pytest.mark.exhaustive
def test_temperature_changes_probabilities_but_no_answer(learn, tiny_base, tuned, workspace):
    plain = run(learn, tiny_base, tuned, workspace / "plain")
    scaled = run(learn, tiny_base, tuned, workspace / "scaled", calibration="temperature")
    rows = read_rows(learn / "validation.parquet")
    before, after = (task.predictor(workspace / name / "model").probabilities(rows["text"].tolist()) for name in ("plain", "scaled"))
    expected = np.array([ModelSpec.read(learn).labels.index(label) for label in rows["label"]])

    assert (plain.temperature, plain.validation_nll) == (1.0, None)
    assert ModelSpec.read(workspace / "scaled" / "model").temperature == scaled.temperature != 1.0
    assert plain.weights_sha256 == scaled.weights_sha256
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    assert after == pytest.approx(np.exp(scaled_logs(before, scaled.temperature)))
    assert scaled.validation_nll == pytest.approx([likelihood(probabilities, expected, 1.0) for probabilities in (before, after)])
    assert scaled.validation_nll[1] < scaled.validation_nll[0]


def test_spec_without_temperature_has_temperature_one(learn, workspace):
    written = json.loads((learn / "retune.json").read_text())
    del written["temperature"]
    (workspace / "retune.json").write_text(json.dumps(written))

    assert ModelSpec.read(workspace).temperature == 1.0
