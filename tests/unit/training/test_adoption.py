"""The step `train` takes over a training of the search, or repeats it to the same bits."""

import shutil

import numpy as np
import pytest

from components.artifacts.training import ModelSpec, Training
from components.artifacts.tuning_result import TunedSettings
from components.core.errors import BadParams
from components.core.hashing import digest_folder
from components.training.train import train
from components.training.trainer import TrainParams, TrainSection
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, fit
from components.training.trainer.identity import digest_inputs, training_identity
from components.training.trainer.state_dir import state_folder
from components.training.trainer.task_options import apply_options
from tests.support.fits import interrupt_after, same
from tests.support.learn import make_learn
from tests.support.tiers import rest_exhaustive

pytestmark = pytest.mark.slow

WRITTEN = {"batch_size": 16, "threads": 1, "precision": "float32", "patience": 0, "evaluations_per_epoch": 2}
CHOSEN = {"epochs": 2, "learning_rate": 1e-2}
OPTIONS = {"class_weights": "balanced", "pooling": "mean"}


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def search(learn, base, chosen, options, resumable=False):
    """Train one candidate as a search does; return its result and the settings file's folder."""
    settings = TrainSection.parse(WRITTEN, "train").settings(chosen)
    task, spec = apply_options("text_classification", {}, options, learn)
    data = PreparedSplits.read(learn, settings.base, spec)
    folder = state_folder("checkpoints") / training_identity(digest_inputs(learn, base), data.spec, settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return fit(task, base, data, settings, keep=CheckpointPaths(folder, folder.with_suffix(".jsonl"), resumable)), folder


def run(learn, base, out, settings=CHOSEN, options=OPTIONS, **written):
    TunedSettings(settings=settings, task_options=options).write(learn.parent)
    train(learn, base, learn.parent, out, task="text_classification", train=TrainSection.parse(WRITTEN | written, "train"))
    return Training.read(out)


def test_finished_candidate_is_adopted(learn, tiny_base, workspace):
    candidate, folder = search(learn, tiny_base, CHOSEN, OPTIONS)
    kept = [path.name for path in folder.glob("checkpoint-*/*")]
    record = run(learn, tiny_base, workspace / "out")

    assert not {"optimizer.pt", "scheduler.pt", "rng_state.pth"} & set(kept)
    assert len([name for name in kept if name == "model.safetensors"]) == 1
    assert record.resumed == record.steps == candidate.steps
    assert (record.best_value, record.best_step) == (candidate.best_value, candidate.best_step)
    assert record.examples_per_second == candidate.examples_per_second > 0
    assert not folder.exists()


def test_training_again_gives_the_adopted_bits(learn, tiny_base, workspace):
    search(learn, tiny_base, CHOSEN, OPTIONS)
    adopted = run(learn, tiny_base, workspace / "adopted")
    again = run(learn, tiny_base, workspace / "again")

    assert (again.resumed, adopted.resumed) == (0, again.steps)
    assert digest_folder(workspace / "adopted" / "model") == digest_folder(workspace / "again" / "model")
    assert again.model_dump(include={"best_value", "best_step", "stopped_by"}) == adopted.model_dump(
        include={"best_value", "best_step", "stopped_by"}
    )


def test_best_weights_alone_equal_those_of_a_resumable_training(learn, tiny_base):
    weights = search(learn, tiny_base, CHOSEN, {})[0].model.state_dict()
    shutil.rmtree("var")

    assert same(weights, search(learn, tiny_base, CHOSEN, {}, resumable=True)[0].model.state_dict())


@pytest.mark.parametrize("change", rest_exhaustive([{"learning_rate": 2e-2}, {"seed": 8}, {"method": "freeze"}], {"seed": 8}))
def test_other_settings_are_not_adopted(learn, tiny_base, workspace, change):
    search(learn, tiny_base, CHOSEN, OPTIONS)

    assert run(learn, tiny_base, workspace / "out", CHOSEN | change).resumed == 0


def test_other_task_options_are_not_adopted(learn, tiny_base, workspace):
    search(learn, tiny_base, CHOSEN, OPTIONS)

    assert run(learn, tiny_base, workspace / "out", options={"pooling": "mean"}).resumed == 0


def test_interrupted_candidate_is_trained_again(learn, tiny_base, workspace):
    settings = TrainParams.parse(WRITTEN | CHOSEN, "train")
    task, spec = apply_options("text_classification", {}, {}, learn)
    data = PreparedSplits.read(learn, "model", spec)
    keep = CheckpointPaths(workspace / "checkpoints", workspace / "history.jsonl", resumable=False)
    with pytest.raises(KeyboardInterrupt):
        fit(task, tiny_base, data, settings, keep=keep, watch=interrupt_after(2))

    assert fit(task, tiny_base, data, settings, keep=keep).resumed == 0


def test_chosen_options_reach_model_and_record(learn, tiny_base, workspace):
    record = run(learn, tiny_base, workspace / "out")
    spec = ModelSpec.read(workspace / "out" / "model")

    assert spec.options["pooling"] == "mean"
    assert set(spec.options["class_weights"]) == set(spec.labels)
    assert record.task_options == OPTIONS
    assert record.settings["learning_rate"] == 1e-2


def test_written_values_win_over_chosen_ones(learn, tiny_base, workspace):
    record = run(learn, tiny_base, workspace / "out", CHOSEN | {"batch_size": 8}, epochs=1)

    assert (record.settings["epochs"], record.settings["batch_size"], record.settings["learning_rate"]) == (1, 16, 1e-2)
    assert apply_options("text_classification", {"pooling": "cls"}, {"pooling": "mean"}, learn)[0].options.pooling == "cls"


def test_option_that_changes_rows_cannot_be_chosen(learn):
    with pytest.raises(BadParams, match=r"cannot choose task_options\.pair; .*pooling"):
        apply_options("text_classification", {}, {"pair": True}, learn)


def test_spec_without_choices_is_that_of_preprocessing(learn):
    assert apply_options("text_classification", {}, {}, learn)[1] == ModelSpec.read(learn)


def test_settings_file_of_an_earlier_release_is_read(workspace):
    (workspace / "settings.json").write_text('{"settings": {"epochs": 2}}')

    assert TunedSettings.read(workspace) == TunedSettings(settings={"epochs": 2}, task_options={}, soup=())


@pytest.mark.parametrize("resumable", [True, False])
def test_outputs_of_the_best_evaluation_are_returned(learn, tiny_base, resumable):
    task, spec = apply_options("text_classification", {}, {}, learn)
    first, _ = search(learn, tiny_base, CHOSEN, {}, resumable)
    loaded, _ = search(learn, tiny_base, CHOSEN, {}, resumable)

    for result in (first, loaded):
        assert task.validate(result.outputs.outputs, result.outputs.labels, spec)["macro_f1"] == result.best_value
    assert np.array_equal(first.outputs.outputs, loaded.outputs.outputs)
    assert (first.resumed, loaded.resumed) == (0, first.steps)


def test_outputs_are_returned_without_checkpoints(learn, tiny_base):
    task, spec = apply_options("text_classification", {}, {}, learn)
    result = fit(task, tiny_base, PreparedSplits.read(learn), TrainParams.parse(WRITTEN | CHOSEN, "train"))

    assert task.validate(result.outputs.outputs, result.outputs.labels, spec)["macro_f1"] == result.best_value
