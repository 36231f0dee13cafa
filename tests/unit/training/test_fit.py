import json
import math
import platform
import shutil

import pytest
import torch

from components.core.errors import BadParams, NotFound, RetuneError
from components.core.hashing import digest_file
from components.model import tasks
from components.training.trainer import TrainParams, TrainSection, checkpoints, hardware
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, fit
from tests.support.fits import same, weights
from tests.support.learn import make_learn

pytestmark = pytest.mark.slow

task = tasks.load("text_classification")

QUICK = TrainParams(epochs=3, learning_rate=3e-3, batch_size=16, threads=1, precision="float32", patience=0)


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return PreparedSplits.read(make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets))


@pytest.fixture
def keep(tmp_path):
    (tmp_path / "out").mkdir()
    return CheckpointPaths(tmp_path / "checkpoints", tmp_path / "out" / "history.jsonl")


def test_fixed_values_win_over_the_search():
    section = TrainSection.parse({"epochs": 1, "learning_rate": "tuned", "seed": 3}, "train")

    settings = section.settings({"learning_rate": 1e-3, "epochs": 9})
    assert (section.tuned, settings.epochs, settings.learning_rate, settings.seed) == (("learning_rate",), 1, 1e-3, 3)


def test_tuned_field_without_a_value_is_refused():
    with pytest.raises(BadParams, match=r"train\.batch_size is set to `tuned`"):
        TrainSection.parse({"batch_size": "tuned"}, "train").settings({})


def test_all_errors_of_the_section_are_reported():
    with pytest.raises(BadParams) as caught:
        TrainSection.parse({"learning_rat": 1e-3, "epochs": 0, "warmup": "tuned"}, "train")

    assert "train.learning_rat is not a setting; did you mean 'learning_rate'?" in str(caught.value)
    assert "train.epochs: " in str(caught.value)


def test_section_that_is_not_a_mapping_is_refused():
    with pytest.raises(BadParams, match=r"params\.yaml: train: "):
        TrainSection.parse("fast", "train")


def test_section_can_be_nested():
    section = TrainSection.model_validate({"epochs": 2, "batch_size": "tuned"})

    assert section == TrainSection.parse({"epochs": 2, "batch_size": "tuned"}, "train")


def test_unknown_metric_gets_a_suggestion(tiny_base, learn):
    with pytest.raises(BadParams, match="did you mean 'macro_f1'"):
        fit(task, tiny_base, learn, QUICK.model_copy(update={"metric": "macro_f"}))


def test_missing_learn_folder_is_reported(tmp_path):
    with pytest.raises(NotFound, match="is missing"):
        PreparedSplits.read(tmp_path)


def test_loss_falls_and_the_best_checkpoint_is_kept(tiny_base, learn, keep):
    result = fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 8, "learning_rate": 1e-2}), keep=keep)

    lines = [json.loads(line) for line in keep.history.read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    scores = {line["step"]: line["eval_macro_f1"] for line in lines if "eval_macro_f1" in line}
    assert losses[-1] < 0.7 * losses[0]
    assert len(scores) == 8
    assert all({"step", "epoch", "seconds"} <= line.keys() for line in lines)
    assert all("learning_rate" in line for line in lines if "loss" in line)
    assert (result.steps, result.epochs, result.stopped_by, result.resumed) == (96, 8.0, "epochs", 0)
    assert scores[result.best_step] == max(scores.values()) == result.best_value
    assert digest_file(keep.checkpoints / f"checkpoint-{result.best_step}" / "model.safetensors")


def test_weights_of_the_best_checkpoint_are_returned(tiny_base, learn, keep, tmp_path):
    # A rate at which the metric goes up and down: the best is not the last.
    result = fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 4, "learning_rate": 5e-2}), keep=keep)
    result.model.save_pretrained(tmp_path / "model")

    best = keep.checkpoints / f"checkpoint-{result.best_step}" / "model.safetensors"
    assert result.best_step < result.steps
    assert digest_file(tmp_path / "model" / "model.safetensors") == digest_file(best)


def test_two_runs_give_identical_weights(tiny_base, learn):
    first, second = (weights(fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 1})).model) for _ in range(2))

    assert same(first, second)


def test_different_seed_gives_different_weights(tiny_base, learn):
    first, second = (weights(fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 1, "seed": seed})).model) for seed in (1, 2))

    assert not same(first, second)


@pytest.mark.exhaustive
@pytest.mark.parametrize("stop_at", [2, 3])
def test_resumed_run_equals_an_uninterrupted_run(tiny_base, learn, tmp_path, stop_at):
    settings = QUICK.model_copy(update={"epochs": 2, "evaluations_per_epoch": 2})
    whole, broken = (CheckpointPaths(tmp_path / name / "checkpoints", tmp_path / name / "history.jsonl") for name in ("whole", "broken"))
    for keep in (whole, broken):
        keep.history.parent.mkdir()
    expected = fit(task, tiny_base, learn, settings, keep=whole)

    def interrupt(number, value):
        if number == stop_at + 1:  # checkpoint `stop_at` is complete, the next one is not written
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(task, tiny_base, learn, settings, keep=broken, watch=interrupt)
    broken.history.write_text("lost with the output folder\n")
    resumed = fit(task, tiny_base, learn, settings, keep=broken)

    steps = [[json.loads(line)["step"] for line in keep.history.read_text().splitlines()] for keep in (whole, broken)]
    assert resumed.resumed == 6 * stop_at
    assert steps[0] == steps[1]
    assert (resumed.best_step, resumed.best_value, resumed.steps) == (expected.best_step, expected.best_value, expected.steps)
    assert same(weights(resumed.model), weights(expected.model))


def test_finished_training_is_not_repeated(tiny_base, learn, keep):
    settings = QUICK.model_copy(update={"epochs": 4, "learning_rate": 5e-2, "patience": 1})
    first = fit(task, tiny_base, learn, settings, keep=keep)
    again = fit(task, tiny_base, learn, settings, keep=keep)

    assert first.stopped_by == again.stopped_by == "patience"
    assert (first.steps, first.best_step) == (again.steps, again.best_step)
    assert again.resumed == first.steps
    assert same(weights(first.model), weights(again.model))


def test_damaged_checkpoint_is_deleted(tiny_base, learn, keep):
    fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 2}), keep=keep)
    older, newer = (keep.checkpoints / f"checkpoint-{step}" for step in (12, 24))
    assert checkpoints.newest(keep.checkpoints)[0] == newer

    (newer / "optimizer.pt").unlink()  # Trainer itself would resume without it

    assert checkpoints.newest(keep.checkpoints)[0] == older
    assert not newer.exists()


def test_checkpoint_with_a_damaged_best_is_invalid(tiny_base, learn, keep):
    fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 2}), keep=keep)
    newer = keep.checkpoints / "checkpoint-24"
    best = checkpoints.best(newer)
    shutil.rmtree(best)

    assert checkpoints.newest(keep.checkpoints) is None or best == newer


def test_time_limit_stops_cleanly(tiny_base, learn, keep):
    result = fit(task, tiny_base, learn, QUICK.model_copy(update={"max_minutes": 1e-6}), keep=keep)

    assert (result.stopped_by, result.steps, result.best_step) == ("max_minutes", 1, 1)
    assert (keep.checkpoints / "checkpoint-1" / "whole.json").exists()


def test_training_stops_after_steps_of_a_longer_schedule(tiny_base, learn, keep):
    settings = QUICK.model_copy(update={"epochs": 2, "stop_after_steps": 15})
    result = fit(task, tiny_base, learn, settings, keep=keep)

    assert (result.stopped_by, result.steps) == ("stop_after_steps", 15)
    points = [json.loads(line) for line in keep.history.read_text(encoding="utf-8").splitlines()]
    assert [point["learning_rate"] for point in points if "learning_rate" in point][-1] > 0  # it would be 0 at the end of a schedule


@pytest.mark.exhaustive
def test_time_of_earlier_processes_counts(tiny_base, learn, keep):
    settings = QUICK.model_copy(update={"epochs": 1, "evaluations_per_epoch": 2})

    def interrupt(number, value):
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(task, tiny_base, learn, settings, keep=keep, watch=interrupt)
    folder, whole = checkpoints.newest(keep.checkpoints)
    whole.model_copy(update={"seconds": 4000.0}).write(folder)

    assert fit(task, tiny_base, learn, settings, keep=keep).stopped_by == "max_minutes"


def test_evaluations_are_spread_over_the_training(tiny_base, learn):
    seen = []
    fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 1}), evaluations=3, watch=lambda number, value: seen.append(number))

    assert seen == [1, 2, 3]


def test_nan_loss_names_the_setting(tiny_base, learn, monkeypatch):
    build = task.build_model

    def broken(base, spec):
        model = build(base, spec)
        with torch.no_grad():
            model.classifier.bias.fill_(math.nan)
        return model

    monkeypatch.setattr(task, "build_model", broken)
    with pytest.raises(RetuneError, match=r"lower train\.learning_rate"):
        fit(task, tiny_base, learn, QUICK)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_every_schedule_warms_up(tiny_base, learn, keep, schedule):
    fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 1, "schedule": schedule, "warmup": 0.5}), keep=keep)

    rates = [json.loads(line)["learning_rate"] for line in keep.history.read_text().splitlines() if "learning_rate" in line]
    assert rates[0] < QUICK.learning_rate / 3
    assert max(rates) == pytest.approx(QUICK.learning_rate)


def test_bfloat16_is_recorded(tiny_base, learn):
    result = fit(task, tiny_base, learn, QUICK.model_copy(update={"epochs": 1, "precision": "bfloat16"}))

    assert (result.precision, result.threads, result.device) == ("bfloat16", 1, "cpu")
    assert next(result.model.parameters()).dtype is torch.float32


def test_freed_memory_is_kept_with_glibc():
    assert hardware.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
