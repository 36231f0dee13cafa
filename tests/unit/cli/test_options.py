"""The options of the application, the groups of the help, and renamed options."""

import json
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.core import section
from flows.cli import app
from flows.cli.init import model_option
from flows.cli.options import chosen_version, print_json
from flows.cli.serve import chosen_model

RUNNER = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
WITHOUT_RESULT = {"serve"}


@pytest.fixture(autouse=True)
def _fresh_warnings() -> Iterator[None]:
    section.warn_once.cache_clear()
    yield
    section.warn_once.cache_clear()
    for package in ("components", "flows"):
        logging.getLogger(package).setLevel(logging.NOTSET)


def test_help_has_a_line_per_command_in_groups() -> None:
    output = RUNNER.invoke(app, ["--help"]).output

    groups = re.findall(r"╭─ (\w+) ─", output)
    assert groups == ["Options", "Start", "Pipeline", "Promote", "Inspect", "Serve", "Schedule", "Maintain"]
    lines = [line for line in output.split("Start", 1)[1].splitlines() if line.startswith("│")]
    assert len(lines) == len(app.registered_commands)


def test_version_is_printed() -> None:
    assert re.fullmatch(r"retune \d+\.\d+\S*\n", RUNNER.invoke(app, ["--version"]).output)


@pytest.mark.parametrize(("option", "level"), [("--quiet", logging.WARNING), ("--verbose", logging.DEBUG)])
def test_log_level_is_set(option: str, level: int) -> None:
    RUNNER.invoke(app, [option, "tasks", "--json"])

    assert logging.getLogger("flows.run").getEffectiveLevel() == level


def test_quiet_and_verbose_exclude_each_other() -> None:
    assert RUNNER.invoke(app, ["--quiet", "--verbose", "tasks"]).exit_code == 2


@pytest.mark.parametrize("command", app.registered_commands, ids=lambda command: command.callback.__name__)
def test_every_result_is_available_as_json(command: Any) -> None:
    options = command.callback.__annotations__

    assert ("as_json" in options) is (command.callback.__name__ not in WITHOUT_RESULT)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, Path | None]]:
    calls: list[tuple[str | None, Path | None]] = []
    monkeypatch.setattr("flows.cli.serve.open_model", lambda name, params: calls.append((name, params)))
    return calls


@pytest.mark.parametrize(
    ("model", "version", "expected", "warning"),
    [
        (None, None, (None, "champion"), ""),
        ("tickets", None, ("tickets", "champion"), ""),
        ("tickets", "3", ("tickets", "3"), ""),
        ("3", None, (None, "3"), "--model 3 is now --version 3"),
        ("challenger", None, (None, "challenger"), "--model challenger is now --version challenger"),
    ],
)
def test_predict_chooses_model_and_version(
    model: str | None,
    version: str | None,
    expected: tuple[str | None, str],
    warning: str,
    opened: list[tuple[str | None, Path | None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, chosen = chosen_model(None, model, version)

    assert (opened[0][0], chosen) == expected
    assert caplog.text.count("is now") == bool(warning)
    assert warning in caplog.text


@pytest.mark.parametrize("command", ["score", "pseudo-label"])
def test_old_name_of_model_version_warns(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    RUNNER.invoke(app, [command, "rows.csv", "out.csv", "--model", "tickets@champion"])

    assert "--model is now --model-version; the old name works in this release only" in caplog.text


def test_old_and_new_name_together_are_refused() -> None:
    assert RUNNER.invoke(app, ["score", "rows.csv", "out", "--model", "a@b", "--model-version", "c@d"]).exit_code == 2


@pytest.mark.parametrize(
    ("model", "version", "expected"),
    [
        (None, "", (None, "")),
        ("tickets", "", ("tickets", "")),
        ("tickets", "mails@champion", ("tickets", "mails@champion")),
        ("tickets/3", "", (None, "tickets/3")),
    ],
)
def test_model_and_version_are_separate_options(model: str | None, version: str, expected: tuple[str | None, str]) -> None:
    assert chosen_version(model, version) == expected


@pytest.mark.parametrize(
    ("params", "option"),
    [
        ("params.yaml", ""),
        ("models/tickets/params.yaml", " --model tickets"),
        ("models/tickets/other.yaml", " --params models/tickets/other.yaml"),
        ("new tickets/params.yaml", " --params 'new tickets/params.yaml'"),
    ],
)
def test_hint_of_init_selects_the_new_model(params: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert model_option(Path(params)) == option


def test_nan_is_printed_as_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"value": math.nan, "gates": [{"low": -math.inf, "reason": "NaN"}]})

    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"value": None, "gates": [{"low": None, "reason": "NaN"}]}


def test_why_needs_a_version() -> None:
    assert RUNNER.invoke(app, ["why", "tickets"]).exit_code == 2


def test_usage_has_single_brackets() -> None:
    for command in ("verify", "lineage", "retrain"):
        assert "[[" not in RUNNER.invoke(app, [command, "--help"]).output


def test_old_floor_of_pseudo_label_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    RUNNER.invoke(app, ["pseudo-label", "rows.csv", "out.csv", "--floor", "0.9"])

    assert "--floor is now --min-probability" in caplog.text
