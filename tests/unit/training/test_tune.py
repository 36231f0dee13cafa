import json
import logging
import shutil
import subprocess
import sys
from types import SimpleNamespace

import optuna
import pandas as pd
import pyarrow.parquet as pq
import pytest

import components.training.tune.objective as search_module
from components.artifacts.rows import read_rows
from components.artifacts.tuning_result import BestTrial, TunedSettings
from components.core.errors import BadParams, NotFound, RetuneError
from components.training.trainer import TrainSection
from components.training.tune import TuneParams, tuning_artifacts
from components.training.tune.run_search import sample
from components.training.tune.settings import Dimension
from components.training.tune.step import tune
from components.training.tune.storage import repair
from components.training.tune.warm_start import StudyContext, warm_start
from tests.support.learn import make_learn

TRAIN = {"learning_rate": "tuned", "batch_size": "tuned", "threads": 1, "precision": "float32"}
TUNE = {
    "trials": 3,
    "minutes": 10,
    "train_fraction": 0.2,
    "evaluations": 2,
    "initial_trial": {"learning_rate": 3e-3, "batch_size": 16},
    "space": {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "batch_size": {"type": "categorical", "choices": [8, 16]},
    },
}


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETUNE_VAR", raising=False)
    return tmp_path


def run(learn, base, out, train=TRAIN, **changes):
    params = TuneParams.parse(TUNE | changes, "tune")
    tune(learn, base, out, task="text_classification", tune=params, train=TrainSection.parse(train, "train"))
    return BestTrial.read(out)


def table(out):
    frame = pq.read_table(out / "trials.parquet").to_pandas()
    return frame.assign(params=[json.loads(text) for text in frame["params"]], points=[json.loads(text) for text in frame["intermediate"]])


def without_clock(frame):
    return frame.drop(columns=["seconds"]).to_dict("list")


@pytest.mark.slow
def test_first_trial_is_given_and_best_is_highest(learn, tiny_base, workspace):
    best = run(learn, tiny_base, workspace / "out")

    trials = table(workspace / "out")
    assert trials["params"][0] == {"learning_rate": 3e-3, "batch_size": 16}
    assert list(trials["number"]) == [0, 1, 2]
    assert best.value == trials["value"].max()
    assert best.settings == trials.set_index("number")["params"][best.number]
    assert (best.complete + best.pruned + best.failed, best.stopped_by) == (3, "trials")
    assert [path.suffix for path in (workspace / "var" / "optuna").glob("*.log")] == [".log"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_search_is_deterministic(learn, tiny_base, workspace, monkeypatch):
    run(learn, tiny_base, workspace / "one")
    monkeypatch.setenv("RETUNE_VAR", str(workspace / "elsewhere"))
    run(learn, tiny_base, workspace / "two")

    assert (workspace / "elsewhere" / "optuna").is_dir()
    assert without_clock(table(workspace / "one")) == without_clock(table(workspace / "two"))


@pytest.mark.slow
def test_finished_search_is_not_repeated(learn, tiny_base, workspace):
    one = run(learn, tiny_base, workspace / "one")
    two = run(learn, tiny_base, workspace / "two")

    assert one == two


@pytest.mark.slow
def test_grown_space_starts_with_earlier_trials(learn, tiny_base, workspace, caplog):
    first = run(learn, tiny_base, workspace / "one", trials=2)
    grown = TUNE["space"] | {"weight_decay": {"type": "float", "low": 0.0, "high": 0.1}}
    with caplog.at_level(logging.INFO):
        best = run(learn, tiny_base, workspace / "two", train=TRAIN | {"weight_decay": "tuned"}, space=grown, trials=1)

    trials, before = table(workspace / "two"), table(workspace / "one")
    assert (first.carried, best.carried, len(trials)) == (0, first.complete, first.complete + 1)
    assert trials["value"].tolist()[: best.carried] == before[before["state"] == "COMPLETE"]["value"].tolist()
    assert [params["weight_decay"] for params in trials["params"]][: best.carried] == [0.01] * best.carried
    assert best.value >= first.value
    assert set(best.settings) == set(grown)
    assert "trials of earlier searches are in this space" in caplog.text


@pytest.mark.exhaustive
@pytest.mark.slow
def test_unfreezing_and_averaging_can_be_searched(learn, tiny_base, workspace):
    train = TRAIN | {"method": "tuned", "unfreeze_every": "tuned", "swa": "tuned", "batch_size": 16}
    space = {
        "learning_rate": TUNE["space"]["learning_rate"],
        "method": {"type": "categorical", "choices": ["freeze", "full"]},
        "unfreeze_every": {"type": "float", "low": 0.25, "high": 0.5, "when": {"method": "freeze"}},
        "swa": {"type": "float", "low": 0.2, "high": 0.5},
    }
    first = {"learning_rate": 3e-3, "method": "freeze", "unfreeze_every": 0.25, "swa": 0.5}
    best = run(learn, tiny_base, workspace / "out", train=train, space=space, initial_trial=first)

    trials = table(workspace / "out")
    assert (best.complete + best.pruned, best.failed) == (3, 0)
    assert trials["params"][0] == first
    assert {"unfreeze_every", "swa"} <= set(best.settings)


@pytest.mark.parametrize(("learning_rate", "carried"), [(1e-3, 1), ("1e-3", 0), (1.0, 0)])
def test_value_of_another_type_is_not_carried_over(learning_rate, carried):
    space = {"learning_rate": Dimension(type="float", low=1e-4, high=1e-2)}
    target = StudyContext("context", {"base": "model", "learning_rate": 1e-3}, space, {"model": "digest"})
    source, study = optuna.create_study(study_name="old"), optuna.create_study(study_name="new")
    for name, value in {"context": "context", "fixed": dict(target.fixed), "bases": dict(target.bases)}.items():
        source.set_user_attr(name, value)
    settings = {"base": "model", "learning_rate": learning_rate}
    source.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"settings": settings}))

    assert warm_start(study, SimpleNamespace(others=lambda _: [source]), target) == len(study.trials) == carried


@pytest.mark.slow
def test_incomparable_trials_are_not_carried_over(learn, tiny_base, workspace):
    run(learn, tiny_base, workspace / "one", trials=1)
    narrow = TUNE["space"] | {"learning_rate": {"type": "float", "low": 1e-3, "high": 2e-3}}
    narrowed = {"initial_trial": {"learning_rate": 1.5e-3}, "space": narrow}

    assert run(learn, tiny_base, workspace / "two", trials=1, **narrowed).carried == 0
    assert run(learn, tiny_base, workspace / "three", trials=1, train_fraction=0.3).carried == 0


@pytest.mark.exhaustive
@pytest.mark.slow
def test_larger_budget_continues_the_search(learn, tiny_base, workspace, monkeypatch):
    run(learn, tiny_base, workspace / "out", trials=2)
    run(learn, tiny_base, workspace / "out", trials=4)
    monkeypatch.setenv("RETUNE_VAR", str(workspace / "elsewhere"))
    run(learn, tiny_base, workspace / "at_once", trials=4)

    assert without_clock(table(workspace / "out")) == without_clock(table(workspace / "at_once"))


def test_settings_file_does_not_depend_on_the_budget(tmp_path):
    short = BestTrial(
        study="s",
        number=0,
        metric="macro_f1",
        value=0.5,
        settings={"learning_rate": 3e-3, "batch_size": 16},
        complete=1,
        pruned=0,
        failed=0,
        seconds=1.0,
        importance={},
        stopped_by="trials",
    )
    long = short.model_copy(update={"settings": dict(reversed(short.settings.items())), "complete": 9, "seconds": 60.0})
    files = []
    for name, best in (("short", short), ("long", long)):
        (tmp_path / name).mkdir()
        tuning_artifacts.write(tmp_path / name, best, [])
        files.append((tmp_path / name / "settings.json").read_bytes())

    assert files[0] == files[1]
    assert TunedSettings.read(tmp_path / "long").settings == short.settings == BestTrial.read(tmp_path / "short").settings


@pytest.mark.slow
def test_fixed_value_is_not_searched(learn, tiny_base, workspace, caplog):
    with caplog.at_level(logging.WARNING):
        best = run(learn, tiny_base, workspace / "out", train=TRAIN | {"learning_rate": 1e-3}, trials=1)

    assert best.settings == {"batch_size": 16}
    assert "tune.space.learning_rate is not searched: train.learning_rate is fixed to 0.001" in caplog.text


def test_nothing_to_tune_runs_no_trial(tiny_base, workspace):
    best = run(workspace / "needs no data", tiny_base, workspace / "out", train={"learning_rate": 1e-3})

    assert (best.settings, best.complete, best.stopped_by) == ({}, 0, "nothing to tune")
    assert table(workspace / "out").empty
    assert not (workspace / "var").exists()


def test_tuned_field_without_a_dimension_is_refused(learn, tiny_base, workspace):
    with pytest.raises(BadParams, match=r"train\.warmup is set to `tuned`, but tune\.space has no such dimension"):
        run(learn, tiny_base, workspace / "out", train=TRAIN | {"warmup": "tuned"})


@pytest.mark.exhaustive
@pytest.mark.slow
def test_bad_trials_are_pruned(learn, tiny_base, workspace):
    # The initial trial learns; nearly all random rates from this range are too low to match it.
    space = {"learning_rate": {"type": "float", "low": 1e-9, "high": 1e-2, "log": True}}
    settings = {
        "train_fraction": 1.0,
        "epochs": 5,
        "evaluations": 3,
        "prune_after": 1,
        "initial_trial": {"learning_rate": 1e-2},
        "space": space,
    }
    best = run(learn, tiny_base, workspace / "out", train=TRAIN | {"batch_size": 8}, **settings)

    trials = table(workspace / "out")
    stopped = trials[trials["state"] == "PRUNED"]
    assert len(stopped) == best.pruned >= 1
    assert all(len(points) < 3 for points in stopped["points"])
    assert all(len(points) == 3 for points in trials.loc[trials["state"] == "COMPLETE", "points"])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_condition_selects_the_searched_fields(learn, tiny_base, workspace):
    space = {
        "warmup": {"type": "float", "low": 0.1, "high": 0.5, "when": {"schedule": "linear"}},
        "schedule": {"type": "categorical", "choices": ["linear", "constant"]},
    }
    train = {"warmup": "tuned", "schedule": "tuned", "threads": 1, "precision": "float32"}
    run(learn, tiny_base, workspace / "out", train=train, trials=6, train_fraction=0.2, evaluations=1, initial_trial={}, space=space)

    chosen = table(workspace / "out")["params"].tolist()
    assert {settings["schedule"] for settings in chosen} == {"linear", "constant"}
    assert {settings["warmup"] for settings in chosen if settings["schedule"] == "constant"} == {0.1}
    assert len({settings["warmup"] for settings in chosen if settings["schedule"] == "linear"}) > 1


@pytest.mark.exhaustive
@pytest.mark.slow
def test_method_can_be_searched(learn, tiny_base, workspace):
    space = {
        "lora_rank": {"type": "int", "low": 2, "high": 6, "when": {"method": "lora"}},
        "frozen_layers": {"type": "categorical", "choices": [0, 1, -1], "when": {"method": "freeze"}},
        "dropout": {"type": "categorical", "choices": [None, 0.2], "when": {"method": "full"}},
        "method": {"type": "categorical", "choices": ["full", "freeze", "lora"]},
    }
    train = {**dict.fromkeys(space, "tuned"), "threads": 1, "precision": "float32"}
    best = run(learn, tiny_base, workspace / "out", train=train, trials=8, explore=8, evaluations=1, initial_trial={}, space=space)

    chosen = table(workspace / "out")["params"].tolist()
    assert {settings["method"] for settings in chosen} == {"full", "freeze", "lora"}
    assert {settings["lora_rank"] for settings in chosen if settings["method"] != "lora"} == {8}
    assert {settings["frozen_layers"] for settings in chosen if settings["method"] != "freeze"} == {0}
    assert all(2 <= settings["lora_rank"] <= 6 for settings in chosen if settings["method"] == "lora")
    assert best.complete == 8
    assert TrainSection.parse(train, "train").settings(TunedSettings.read(workspace / "out").settings).method == best.settings["method"]


def test_failure_of_all_trials_is_explained(learn, tiny_base, workspace, monkeypatch):
    def diverge(*args, **kwargs):
        raise RetuneError("the loss is nan after step 3")

    monkeypatch.setattr(search_module, "fit_within_memory", diverge)

    with pytest.raises(RetuneError, match="none of 3 trials completed: 3 failed and 0 were pruned: the loss is nan after step 3"):
        run(learn, tiny_base, workspace / "out")


@pytest.mark.slow
def test_one_failed_trial_does_not_end_the_search(learn, tiny_base, workspace, monkeypatch):
    fit, calls = search_module.fit_within_memory, []

    def fail_once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise RetuneError("the loss is nan")
        return fit(*args, **kwargs)

    monkeypatch.setattr(search_module, "fit_within_memory", fail_once)
    best = run(learn, tiny_base, workspace / "out")

    assert (best.failed, best.complete + best.pruned) == (1, 2)
    assert table(workspace / "out")["note"][1] == "the loss is nan"


@pytest.mark.slow
def test_time_budget_ends_the_search(learn, tiny_base, workspace):
    best = run(learn, tiny_base, workspace / "out", trials=50, minutes=0.002)

    assert best.stopped_by == "minutes"
    assert best.complete >= 1
    assert best.complete + best.pruned < 10


@pytest.mark.slow
def test_interrupted_search_resumes_exactly(learn, tiny_base, workspace, monkeypatch):
    run(learn, tiny_base, workspace / "whole", trials=4)
    monkeypatch.setenv("RETUNE_VAR", str(workspace / "elsewhere"))
    fit, calls = search_module.fit_within_memory, []

    def interrupt(*args, **kwargs):
        calls.append(1)
        if len(calls) in (1, 4):  # in the initial trial, and in a trial of the sampler
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(search_module, "fit_within_memory", interrupt)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(learn, tiny_base, workspace / "broken", trials=4)
    run(learn, tiny_base, workspace / "broken", trials=4)

    whole, broken = table(workspace / "whole"), table(workspace / "broken")
    kept = broken[broken["note"] != "interrupted"].reset_index(drop=True)
    assert list(broken["number"][broken["note"] == "interrupted"]) == [0, 3]
    assert without_clock(whole.drop(columns="number")) == without_clock(kept.drop(columns="number"))


@pytest.mark.slow
def test_incomplete_journal_entry_is_cut_off(learn, tiny_base, workspace, caplog):
    run(learn, tiny_base, workspace / "out", trials=2)
    journal = next((workspace / "var" / "optuna").glob("*.log"))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines) + lines[-1][:20])

    with caplog.at_level(logging.WARNING):
        best = run(learn, tiny_base, workspace / "out", trials=3)

    assert best.complete + best.pruned == 3
    assert "incomplete entry; cutting off 20 bytes" in caplog.text


def test_complete_journal_is_unchanged(tmp_path):
    path = tmp_path / "journal.log"
    path.write_bytes(b'{"a":1}\n{"b":2}\n')
    before = path.stat().st_mtime_ns
    repair(path)

    assert (path.read_bytes(), path.stat().st_mtime_ns) == (b'{"a":1}\n{"b":2}\n', before)


@pytest.mark.slow
def test_stale_lock_does_not_block(learn, tiny_base, workspace):
    run(learn, tiny_base, workspace / "out", trials=1)
    journal = next((workspace / "var" / "optuna").glob("*.log"))
    journal.with_name(journal.name + ".lock").symlink_to(journal)

    assert run(learn, tiny_base, workspace / "out", trials=2).seconds < 25


@pytest.mark.slow
def test_search_reads_no_test_split(learn, tiny_base, workspace):
    shutil.copytree(learn, workspace / "bare" / "learn")  # no sibling `test` at all
    run(workspace / "bare" / "learn", tiny_base, workspace / "one", trials=1)
    shutil.copytree(learn, workspace / "full" / "learn")
    (workspace / "full" / "test").mkdir()
    (workspace / "full" / "test" / "test.parquet").write_bytes(b"a reader of this would fail")
    best = run(workspace / "full" / "learn", tiny_base, workspace / "two", trials=1)

    assert best == BestTrial.read(workspace / "one")  # the same study, because its name depends on `learn` only


def test_sample_is_stable_and_has_every_class(learn):
    rows = read_rows(learn / "train.parquet")
    rare = pd.concat([rows, pd.DataFrame([{"id": "r1", "group": "r", "text": "x", "label": "rare"}])], ignore_index=True)
    chosen = set(rare.loc[sample(rare, 0.1), "id"])
    shuffled = rare.sample(frac=1, random_state=1).reset_index(drop=True)

    assert set(shuffled.loc[sample(shuffled, 0.1), "id"]) == chosen
    assert "r1" in chosen
    assert len(chosen) == 19
    assert chosen < set(rare.loc[sample(rare, 0.5), "id"])


def test_missing_training_data_is_reported(tiny_base, workspace):
    with pytest.raises(NotFound, match="is missing"):
        run(workspace / "nowhere", tiny_base, workspace / "out")


def test_unknown_metric_gets_a_suggestion(learn, tiny_base, workspace):
    with pytest.raises(BadParams, match="did you mean 'accuracy'"):
        run(learn, tiny_base, workspace / "out", metric="acuracy")


@pytest.mark.slow
def test_metrics_are_checked_against_the_task_without_torch():
    code = """
import sys
from components.model import tasks
from components.core.errors import BadParams
from components.training.trainer import TrainSection
from components.training.tune import TuneParams, check_metrics
measured = tasks.load("text_classification").validation_metrics
check_metrics(measured, TrainSection.parse({}, "train"), TuneParams())
for train, tune in (({"metric": "f1"}, {}), ({}, {"metric": "f1"})):
    try:
        check_metrics(measured, TrainSection.parse(train, "train"), TuneParams.parse(tune, "tune"))
    except BadParams as error:
        print(error)
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    first, second = done.stdout.splitlines()
    assert first.startswith("params.yaml: train.metric 'f1' is not measured by the task")
    assert second.startswith("params.yaml: tune.metric 'f1' is not measured by the task")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, r"tune\.trials: input should be greater than or equal to 1, found 0"),
        ({"space": {"learning_rat": {"type": "float", "low": 1, "high": 2}}}, "did you mean 'learning_rate'"),
        ({"space": {"epochs": {"type": "float", "low": 1, "high": 2}}}, r"space\.epochs cannot be searched"),
        ({"space": {"warmup": {"type": "float", "low": 0.2, "high": 0.1}}}, "needs low below high"),
        ({"space": {"weight_decay": {"type": "float", "low": 0, "high": 0.1, "log": True}}}, "log needs low above 0"),
        (
            {"space": {"weight_decay": {"type": "float", "low": 0, "high": 20}}},
            r"train\.weight_decay: input should be less than",
        ),
        ({"space": {"schedule": {"type": "categorical", "choices": ["linear", "cubic"]}}}, "'linear', 'cosine', 'constant'"),
        ({"space": {"batch_size": {"type": "int", "low": 1.5, "high": 8}}}, "whole numbers"),
        ({"space": {"batch_size": {"type": "categorical"}}}, "needs choices"),
        ({"space": {"warmup": {"type": "float", "low": 0, "high": 0.5, "step": 0.1, "log": True}}}, "log needs low above 0"),
        ({"space": {"warmup": {"type": "float", "low": 0, "high": 0.5, "when": {"shedule": "linear"}}}}, "did you mean 'schedule'"),
        ({"initial_trial": {"learning_rate": 1.0}}, "outside the range"),
        ({"initial_trial": {"warmup": 0.1}}, r"initial_trial\.warmup is not in the space"),
        (
            {
                "initial_trial": {},
                "space": {
                    "warmup": {"type": "float", "low": 0, "high": 0.5, "when": {"weight_decay": 0.1}},
                    "weight_decay": {"type": "float", "low": 0, "high": 0.5, "when": {"warmup": 0.1}},
                },
            },
            "are circular",
        ),
    ],
)
def test_contradictory_tune_settings_are_refused(changes, message):
    with pytest.raises(BadParams, match=message):
        TuneParams.parse(TUNE | {"initial_trial": {}} | changes, "tune")


@pytest.mark.parametrize(
    ("settings", "unread"),
    [
        ({"strategy": "auto", "trials": 8, "explore": 2}, "strategy auto does not read trials, explore: remove, or set strategy search"),
        ({"strategy": "auto", "space": {}}, "strategy auto does not read space"),
        ({"candidates": {"methods": ["lora"]}}, "strategy search does not read candidates: remove, or set strategy auto"),
        ({"strategy": "none", "candidates": {}}, "strategy none does not read candidates"),
    ],
)
def test_settings_that_the_strategy_does_not_read_are_refused(settings, unread):
    with pytest.raises(BadParams, match=unread):
        TuneParams.parse(settings, "tune")


def test_search_that_is_switched_off_keeps_its_settings():
    assert TuneParams.parse(TUNE | {"strategy": "none"}, "tune").space
