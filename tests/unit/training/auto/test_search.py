"""The strategy `auto` with a two-layer model: candidates, selection, budget, adoption and resuming."""

import contextlib
import json
import shutil

import pytest

from components.artifacts.tuning_result import BestTrial, Leaderboard, TunedSettings, TuneProgress
from components.core.errors import BadParams
from components.core.hashing import digest_file
from components.core.section import OpenSection
from components.training.train import train
from components.training.trainer import TrainSection
from components.training.tune import TuneParams
from components.training.tune.auto import trials as trials_module
from components.training.tune.auto.budget import Budget
from components.training.tune.auto.speed import Speed
from components.training.tune.step import tune
from tests.support.learn import make_learn

pytestmark = pytest.mark.slow

FIXED = {"threads": 1, "precision": "float32"}
SHORT = {"learning_rate": 3e-3, "epochs": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    return make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETUNE_VAR", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def searched(learn, tiny_base, tmp_path_factory):
    """A folder with the state and the result of a search; a test copies it."""
    folder = tmp_path_factory.mktemp("searched")
    with contextlib.chdir(folder):
        run(learn, tiny_base, folder / "tuned", fixed=SHORT)
    return folder


@pytest.fixture
def copied(searched, workspace):
    return shutil.copytree(searched, workspace, dirs_exist_ok=True)


def run(learn, base, out, minutes=0.12, fixed=None, **changes):
    params = TuneParams.parse({"strategy": "auto", "minutes": minutes} | changes, "tune")
    tune(learn, base, out, task="text_classification", tune=params, train=TrainSection.parse({**FIXED, **(fixed or {})}, "train"))
    return Leaderboard.read(out)


def trained(learn, base, out, fixed=SHORT):
    train(learn, base, out / "tuned", out / "trained", task="text_classification", train=TrainSection.parse({**FIXED, **fixed}, "train"))
    return digest_file(out / "trained/model/model.safetensors"), json.loads((out / "trained/training.json").read_text())


def test_leaderboard_names_every_candidate_and_one_winner(searched):
    board, names = Leaderboard.read(searched / "tuned"), set()
    for candidate in board.candidates:
        names.add(candidate.name)
    assert {candidate.method for candidate in board.candidates} >= {"probe", "full", "lora"}
    assert len(names) == len(board.candidates)
    (winner,) = [candidate for candidate in board.candidates if candidate.winner]
    assert winner.reason
    assert winner.low <= winner.score <= winner.high
    assert winner.score == max(c.score for c in board.candidates if c.state == "complete" and c.holdouts == winner.holdouts)
    assert TunedSettings.read(searched / "tuned").task_options == winner.task_options
    assert BestTrial.read(searched / "tuned").number == winner.number


def test_train_adopts_the_winner_and_would_make_the_same_bits(learn, tiny_base, workspace):
    run(learn, tiny_base, workspace / "tuned", fixed=SHORT, candidates={"methods": ["full"]})
    kept = list((workspace / "var/checkpoints").iterdir())
    assert len(kept) == 1  # only the winner's

    adopted, record = trained(learn, tiny_base, workspace)
    again, _ = trained(learn, tiny_base, workspace)  # its checkpoints are gone

    assert record["resumed"] > 0
    assert again == adopted


def test_same_command_gives_the_same_result(learn, tiny_base, copied):
    before = (copied / "tuned/settings.json").read_bytes()
    first = Leaderboard.read(copied / "tuned")

    second = run(learn, tiny_base, copied / "again", fixed=SHORT)

    assert [c.number for c in second.candidates] == [c.number for c in first.candidates]
    assert (copied / "again/settings.json").read_bytes() == before
    assert BestTrial.read(copied / "again").stopped_by == BestTrial.read(copied / "tuned").stopped_by != "portfolio"


def test_too_few_minutes_say_how_many_are_needed(learn, tiny_base, workspace):
    with pytest.raises(BadParams, match=r"tune\.minutes 1e-05 are too few for one candidate.*expected at least \d"):
        run(learn, tiny_base, workspace / "tuned", minutes=1e-5)


def test_part_of_an_epoch_is_tried_if_no_more_fits(learn, tiny_base, workspace, monkeypatch):
    monkeypatch.setattr(Speed, "epochs", lambda self, settings, seconds: 0.6)
    monkeypatch.setattr(Speed, "seconds", lambda self, settings: 0.0)
    monkeypatch.setattr(Speed, "least_seconds", lambda self, settings: 0.0)
    board = run(learn, tiny_base, workspace / "tuned", minutes=0.05, fixed={"batch_size": 2}, candidates={"methods": ["full"]})

    assert board.winner.state == "complete"
    assert all("0.6 epochs" in c.name for c in board.candidates if c.state == "complete")


def test_better_training_that_the_budget_stops_is_a_candidate(learn, tiny_base, workspace, monkeypatch):
    minutes, started = 0.12, Budget.report_progress

    def report(self, **state):  # the minutes end in the first training, after its first evaluation
        started(self, **state)
        if self._state["running"].startswith("full") and state.get("step", 0) >= 12:
            monkeypatch.setattr(Budget, "left", lambda self: 0.0)

    monkeypatch.setattr(Budget, "report_progress", report)
    fixed = SHORT | {"evaluations_per_epoch": 4, "epochs": 4}
    board = run(learn, tiny_base, workspace / "tuned", minutes, fixed, candidates={"methods": ["probe", "full", "lora"]})
    adopted, record = trained(learn, tiny_base, workspace, fixed)
    again, _ = trained(learn, tiny_base, workspace, fixed)  # its checkpoints are gone

    assert board.winner.settings["stop_after_steps"] == 12
    assert {c.reason for c in board.candidates if c.method == "lora"} == {trials_module.TIME_UP}
    assert "lora" not in "".join(path.read_text(encoding="utf-8") for path in workspace.glob("var/speed/*/speed.json"))  # not measured
    assert "stop after steps 12" in board.winner.name
    assert record["resumed"] > 0
    assert record["stopped_by"] == "stop_after_steps"
    assert again == adopted


@pytest.mark.parametrize(
    ("fixed", "changes", "message"),
    [
        ({"learning_rate": "tuned"}, {}, "train.learning_rate is set to `tuned`, but tune.strategy is auto"),
        ({}, {"space": {"epochs": {}}}, "tune.space"),
    ],
)
def test_declared_search_is_refused(learn, tiny_base, workspace, fixed, changes, message):
    with pytest.raises(BadParams, match=message):
        run(learn, tiny_base, workspace / "tuned", fixed=fixed, **changes)


def test_failed_candidate_is_on_the_leaderboard_with_its_cause(learn, tiny_base, workspace):
    board = run(learn, tiny_base, workspace / "tuned", fixed={**SHORT, "learning_rate": 1.0, "max_grad_norm": 1e6, "optimizer": "sgd"})

    assert any(candidate.state == "complete" for candidate in board.candidates)
    for candidate in board.candidates:
        assert candidate.state != "failed" or candidate.reason


@pytest.mark.exhaustive
def test_interrupted_search_continues_with_the_rest(learn, tiny_base, workspace, monkeypatch):
    count = 0
    original = trials_module.Trials.run

    def interrupt(self, trial, configuration):
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return original(self, trial, configuration)

    monkeypatch.setattr(trials_module.Trials, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(learn, tiny_base, workspace / "tuned", fixed=SHORT)
    before = TuneProgress.read(next((workspace / "var/progress").iterdir()))
    assert not before.ended
    monkeypatch.setattr(trials_module.Trials, "run", original)
    board = run(learn, tiny_base, workspace / "tuned", fixed=SHORT)

    assert board.seconds > 7 - before.seconds_left
    names = [candidate.name for candidate in board.candidates]
    assert len(set(names)) == len(names)


def test_seconds_of_a_killed_process_count(workspace):
    budget = Budget("one", 1, "accuracy")
    budget._started -= 20
    with budget.running():
        pass

    assert Budget("one", 2, "accuracy").spent() == pytest.approx(20, abs=1)


def test_more_minutes_continue_the_search(learn, tiny_base, copied):
    first = Leaderboard.read(copied / "tuned")

    second = run(learn, tiny_base, copied / "tuned", minutes=0.25, fixed=SHORT)

    assert {c.number for c in first.candidates if c.state == "complete"} <= {c.number for c in second.candidates}


@pytest.mark.exhaustive
def test_candidate_without_time_is_tried_with_more_minutes(learn, tiny_base, workspace, monkeypatch):
    methods = {"methods": ["probe", "full"]}
    with monkeypatch.context() as patch:
        patch.setattr(Speed, "epochs", lambda self, settings, seconds: 0.0)
        first = run(learn, tiny_base, workspace / "tuned", fixed=SHORT, candidates=methods)
    assert {candidate.state for candidate in first.candidates if candidate.method == "full"} == {"skipped"}

    second = run(learn, tiny_base, workspace / "tuned", minutes=0.3, fixed=SHORT, candidates=methods)

    assert any(candidate.method == "full" and candidate.state == "complete" for candidate in second.candidates)


def test_train_and_tune_have_one_metric(learn, tiny_base, workspace):
    with pytest.raises(BadParams, match=r"train\.metric is accuracy and tune\.metric is macro_f1, but tune\.strategy auto has one metric"):
        run(learn, tiny_base, workspace / "tuned", fixed={"metric": "accuracy"})


def test_new_data_start_with_the_winner_of_the_old(learn, tiny_base, tickets, workspace, tmp_path_factory):
    run(learn, tiny_base, workspace / "tuned", fixed=SHORT, candidates={"methods": ["full"]})
    won = TunedSettings.read(workspace / "tuned")
    more = make_learn(tmp_path_factory.mktemp("more") / "learn", tiny_base, tickets.iloc[2:])

    board = run(more, tiny_base, workspace / "again", fixed=SHORT, candidates={"methods": ["full"]})

    first = min(board.candidates, key=lambda candidate: candidate.number)
    names = [name for name in first.settings if name in won.settings]
    assert first.method == "full"
    assert {name: first.settings[name] for name in names} == {name: won.settings[name] for name in names}
    assert any("rows changed since the last search" in note for note in board.notes)


def test_options_reach_the_model(learn, tiny_base, workspace):
    tune_params = TuneParams.parse({"strategy": "auto", "minutes": 0.3, "candidates": {"methods": ["probe"]}}, "tune")
    options = OpenSection.parse({"class_weights": "none"}, "task_options")
    tune(
        learn,
        tiny_base,
        workspace / "tuned",
        task="text_classification",
        tune=tune_params,
        train=TrainSection.parse(FIXED, "train"),
        task_options=options,
    )
    train(
        learn,
        tiny_base,
        workspace / "tuned",
        workspace / "trained",
        task="text_classification",
        train=TrainSection.parse(FIXED, "train"),
        task_options=options,
    )

    spec = json.loads((workspace / "trained/model/retune.json").read_text())
    assert spec["options"]["pooling"] == TunedSettings.read(workspace / "tuned").task_options["pooling"]
