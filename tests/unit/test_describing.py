"""`retune tasks`: every task, and every option with its meaning."""

import json

import pytest
from typer.testing import CliRunner

from components import tasks
from flows.cli import app

RUNNER = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def test_every_task_is_listed_with_its_columns_and_baselines() -> None:
    said = RUNNER.invoke(app, ["tasks", "--json"]).stdout

    for name in tasks.available():
        assert name in said
    found = {one["task"]: one for one in json.loads(said)}
    assert list(found["question_answering"]["columns"]) == ["question", "context", "answers"]
    assert RUNNER.invoke(app, ["tasks"]).exit_code == 0


@pytest.mark.parametrize("name", tasks.available())
def test_every_option_of_a_task_is_told_with_a_meaning(name: str) -> None:
    (found,) = json.loads(RUNNER.invoke(app, ["tasks", name, "--json"]).stdout)

    assert [one["name"] for one in found["options"]] == list(tasks.load(name).Options.model_fields)
    assert all(len(one["meaning"]) > 10 for one in found["options"])
    assert RUNNER.invoke(app, ["tasks", name]).exit_code == 0


def test_an_unknown_task_is_refused_with_the_list() -> None:
    assert "unknown task" in str(RUNNER.invoke(app, ["tasks", "translation"]).exception)
