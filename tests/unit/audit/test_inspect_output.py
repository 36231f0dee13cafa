"""Texts of `retune status` and `retune champion`."""

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.cli.inspect import show_status


def test_status_reports_missing_champion(capsys: pytest.CaptureFixture[str]) -> None:
    version = {"version": 1, "aliases": ["challenger"], "verdict": None, "run_key": "abc"}
    status = {"fault": None, "since": None, "ledger": None, "waiting": [], "looks_used": None, "looks_allowed": None}

    show_status({"model": "tickets", "version": None, "metrics": {}, "versions": [version]}, status)

    assert "tickets: no version is champion" in capsys.readouterr().out


def test_champion_help_explains_bare_date() -> None:
    output = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "300"}).invoke(app, ["champion", "--help"]).stdout

    assert "00:00 UTC for a date" in output
