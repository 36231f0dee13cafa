"""`retune tasks`: every task, and every option with its meaning."""

import json

import pytest
from typer.testing import CliRunner

from components.core.errors import BadParams
from components.model import tasks
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


def shown(*words: str) -> dict[str, object]:
    (found,) = json.loads(RUNNER.invoke(app, ["tasks", *words, "--json"], catch_exceptions=False).stdout)
    return found


def test_options_change_what_is_shown_as_they_change_the_task() -> None:
    plain, options = shown("text_classification"), "{kind: regression, pair: true}"
    found = shown("text_classification", "--options", options)

    assert found["columns"] == ["text_a", "text_b", "label"]
    assert found["metrics"] == list(found["measures"]) == ["r2", "spearman", "neg_mse", "neg_mae", "pearson"]
    assert (plain["metrics"], plain["baselines"], found["baselines"]) == (
        ["accuracy", "macro_f1"],
        ["majority", "tfidf"],
        ["mean", "tfidf"],
    )
    assert (plain["validation"], found["validation"][0]) == (["macro_f1", "accuracy"], "r2")
    assert shown("causal_lm", "--options", "{data: chat}")["slices"] == ["answer_length", "turns", "prompt_length"]
    assert "label_smoothing" in shown("token_classification", "--options", "head: crf")["refuses"]
    said = RUNNER.invoke(app, ["tasks", "text_classification", "--options", options]).stdout
    assert "text_a, text_b, label" in said
    assert all(text in said for measure in found["measures"].items() for text in measure)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["text_classification", "--options", "{kind: multy}"], r"task_options\.kind: input should be 'single'.*found 'multy'"),
        (["causal_lm", "--options", "{dta: chat}"], r"task_options\.dta is not a setting; did you mean 'data'\?"),
        (["causal_lm", "--options", "{data"], "--options is not YAML: "),
        (["causal_lm", "--options", "[chat]"], r"--options: expected settings, as {kind: multi}, found '\[chat\]'"),
        (["--options", "{data: chat}"], "--options are those of one task: name it"),
    ],
)
def test_options_that_do_not_fit_are_one_clear_error(words: list[str], message: str) -> None:
    with pytest.raises(BadParams, match=message) as caught:
        RUNNER.invoke(app, ["tasks", *words], catch_exceptions=False)

    assert len(str(caught.value).splitlines()) == 1
