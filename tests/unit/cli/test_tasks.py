"""`retune tasks`: every task and every option is described."""

import json

import pytest
from typer.testing import CliRunner

from components.core.errors import BadParams
from components.model import tasks
from flows.cli import app

RUNNER = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def test_every_task_is_listed() -> None:
    output = RUNNER.invoke(app, ["tasks", "--json"]).stdout

    for name in tasks.available():
        assert name in output
    listed = {task["task"]: task for task in json.loads(output)}
    assert list(listed["question_answering"]["columns"]) == ["question", "context", "answers"]
    assert RUNNER.invoke(app, ["tasks"]).exit_code == 0


@pytest.mark.parametrize("name", tasks.available())
def test_every_option_of_a_task_is_described(name: str) -> None:
    (task,) = json.loads(RUNNER.invoke(app, ["tasks", name, "--json"]).stdout)

    assert [option["name"] for option in task["options"]] == list(tasks.load(name).Options.model_fields)
    assert all(len(option["meaning"]) > 10 for option in task["options"])
    assert RUNNER.invoke(app, ["tasks", name]).exit_code == 0


def test_unknown_task_is_an_error() -> None:
    assert "unknown task" in str(RUNNER.invoke(app, ["tasks", "translation"]).exception)


def described(*arguments: str) -> dict[str, object]:
    (task,) = json.loads(RUNNER.invoke(app, ["tasks", *arguments, "--json"], catch_exceptions=False).stdout)
    return task


def test_options_change_the_description() -> None:
    plain, options = described("text_classification"), "{kind: regression, pair: true}"
    task = described("text_classification", "--options", options)

    assert task["columns"] == ["text_a", "text_b", "label"]
    assert task["metrics"] == list(task["measures"]) == ["r2", "spearman", "neg_mse", "neg_mae", "pearson"]
    assert (plain["metrics"], plain["baselines"], task["baselines"]) == (
        ["accuracy", "macro_f1"],
        ["majority", "tfidf", "probe"],
        ["mean", "tfidf", "probe"],
    )
    assert (plain["validation"], task["validation"][0]) == (["macro_f1", "accuracy"], "r2")
    assert described("causal_lm", "--options", "{data: chat}")["slices"] == ["answer_length", "turns", "prompt_length"]
    assert "label_smoothing" in described("token_classification", "--options", "head: crf")["refuses"]
    output = RUNNER.invoke(app, ["tasks", "text_classification", "--options", options]).stdout
    assert "text_a, text_b, label" in output
    assert all(text in output for measure in task["measures"].items() for text in measure)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text_classification", "--options", "{kind: multy}"], r"task_options\.kind: input should be 'single'.*found 'multy'"),
        (["causal_lm", "--options", "{dta: chat}"], r"task_options\.dta is not a setting; did you mean 'data'\?"),
        (["causal_lm", "--options", "{data"], "--options is not YAML: "),
        (["causal_lm", "--options", "[chat]"], r"--options: expected a mapping, e\.g\. {kind: multi}, found '\[chat\]'"),
        (["--options", "{data: chat}"], "--options needs a task"),
    ],
)
def test_invalid_options_are_one_error(arguments: list[str], message: str) -> None:
    with pytest.raises(BadParams, match=message) as caught:
        RUNNER.invoke(app, ["tasks", *arguments], catch_exceptions=False)

    assert len(str(caught.value).splitlines()) == 1
