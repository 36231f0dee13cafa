"""What became of the verdict: on the page, with the commands that fit."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.artifacts.metrics import Metrics
from components.artifacts.profile import Profile
from components.artifacts.tuning_result import Trial
from components.artifacts.verdict import Outcome
from components.report import Run, Standing, next_step, update_standing
from components.report.charts import parallel_coordinates, token_lengths, trial_history
from components.report.page import worst_classes
from tests.support.reported import Tree, finished_run, lineage, page, section, verdict

WAITS = Standing(run="bf904dab1afd", waits_until=datetime(2026, 12, 14, 9, 30, tzinfo=UTC))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return finished_run(tmp_path)


def test_page_of_a_champion_names_it(workspace: Path) -> None:
    words = section(page(workspace, version="2", standing=Standing(champion="2")), "verdict").words

    assert "Version 2 is the first champion." in words
    assert "retune predict --model diagnosis" in words
    assert "may become" not in words


def test_page_of_a_waiting_version_has_commands_and_expiry(workspace: Path) -> None:
    words = section(page(workspace, version="2", verdict=verdict(Outcome.INCONCLUSIVE), standing=WAITS), "verdict").words

    assert "Version 2 waits for an approval until 2026-12-14 09:30 UTC." in words
    assert 'retune approve bf904dab1afd --why "…" makes version 2 the champion' in words
    assert "retune reject bf904dab1afd" in words


def test_decision_is_written_to_the_page(workspace: Path) -> None:
    file = workspace / "reports/index.html"
    passed = verdict(Outcome.INCONCLUSIVE)
    before = page(workspace, version="2", verdict=passed, standing=WAITS)
    shows = update_standing(file, "diagnosis", passed, "2", Standing(champion="2"))
    after = Tree(file.read_text(encoding="utf-8")).root

    assert shows
    assert "Version 2 is the first champion." in section(after, "verdict").words
    assert "retune approve" not in section(after, "verdict").words
    assert [node.words for node in after.all("section")[1:]] == [node.words for node in before.all("section")[1:]]
    assert not update_standing(file, "diagnosis", passed, "3", Standing(champion="2"))


@pytest.mark.parametrize(
    ("outcome", "standing", "command"),
    [
        (Outcome.PASS, Standing(champion="2"), "retune predict"),
        (Outcome.PASS, Standing(champion="1"), "retune promote diagnosis 2`"),
        (Outcome.PASS, WAITS, "retune approve bf904dab1afd"),
        (Outcome.INCONCLUSIVE, WAITS, "retune approve bf904dab1afd"),
        (Outcome.INCONCLUSIVE, Standing(champion="1"), "retune history diagnosis"),
        (Outcome.FAIL, Standing(champion="1"), "retune why diagnosis 2"),
    ],
)
def test_next_step_fits_the_state(outcome: Outcome, standing: Standing, command: str) -> None:
    assert command in next_step("diagnosis", "2", outcome, standing)


def test_macro_f1_names_the_classes_that_it_leaves_out(workspace: Path) -> None:
    folder = workspace / "reports/evaluation"
    metrics = Metrics.read(folder)
    rare = next(iter(metrics.classes))
    metrics.model_copy(update={"left_out": (rare,)}).write(folder)
    root = page(workspace)

    assert "macro-F1 of 1 of 2 classes" in section(root, "verdict").words
    assert "macro-F1 of 1 of 2 classes" in section(root, "scores").words


def test_worst_class_comes_first_even_if_it_is_too_rare(workspace: Path) -> None:
    metrics = Metrics.read(workspace / "reports/evaluation")
    name, score = next(iter(metrics.classes.items()))
    worst = {**metrics.classes, name: score.model_copy(update={"f1": 0.1, "eligible": False})}

    assert worst_classes(metrics.model_copy(update={"classes": worst}))[0][0] == name


def test_stopped_trial_without_a_value_is_not_drawn_as_failed() -> None:
    stopped = Trial(1, "PRUNED", None, {"rate": 0.2}, 1.0, {20: 0.4, 40: 0.5})
    trials = [Trial(0, "COMPLETE", 0.6, {"rate": 0.1}, 2.0, {}), stopped, Trial(2, "FAIL", None, {"rate": 0.3}, 1.0, {})]

    assert trial_history(trials, "macro_f1").count("mark fail") == 1
    assert parallel_coordinates(trials, "macro_f1", ["rate"]).count("curve pruned") == 1


def test_line_of_the_maximum_length_is_at_the_maximum(workspace: Path) -> None:
    tokens = Profile.read(workspace / "data/prepared").tokens
    drawing = token_lengths(tokens.model_copy(update={"histogram": ((61, 5), (64, 9), (67, 1)), "max_length": 64}))
    bars, lines = re.findall(r'<rect[^>]* x="([\d.]+)%"', drawing), re.findall(r'<line[^>]*class="threshold"[^>]*>', drawing)

    assert len(lines) == 1
    assert float(re.findall(r'x1="([\d.]+)%"', lines[0])[0]) == pytest.approx(float(bars[1]), abs=0.01)  # the bar from 64 on


def test_usage_sets_the_store_and_uses_the_example(workspace: Path) -> None:
    run = Run(lineage(), verdict(), "2", example={"question": "Who?", "context": "Ada."}, tracking_uri="https://mlflow.example")

    assert 'mlflow.set_tracking_uri("https://mlflow.example")' in run.usage
    assert '[{"question": "Who?", "context": "Ada."}]' in run.usage
    assert "set_tracking_uri" in section(page(workspace, version="2"), "lineage").words
    compile(run.usage, "usage", "exec")
