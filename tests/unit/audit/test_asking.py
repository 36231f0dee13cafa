"""What the commands say to a person, in words that are right."""

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.cli.inspect import show_status


def test_status_says_in_words_that_nobody_is_champion(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"version": 1, "aliases": ["challenger"], "verdict": None, "run_key": "abc"}
    stands = {"fault": None, "since": None, "ledger": None, "waiting": [], "looks_used": None, "looks_allowed": None}

    show_status({"model": "tickets", "version": None, "metrics": {}, "versions": [one]}, stands)

    assert "tickets: no version is champion" in capsys.readouterr().out


def test_the_help_says_what_a_bare_date_means() -> None:
    said = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "300"}).invoke(app, ["champion", "--help"]).stdout

    assert "00:00 UTC for a date" in said
