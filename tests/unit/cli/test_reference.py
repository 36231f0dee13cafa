"""docs/cli.md and docs/settings.md are those that the code generates."""

import subprocess
import sys

import pytest

from components.training.trainer import TrainParams
from flows.cli import app
from flows.cli.reference import pages
from flows.settings import Settings
from tests.support.project import ROOT

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_up_to_date(name: str) -> None:
    message = "run `python -m flows.cli.reference`"

    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == PAGES[name], message


def test_every_command_and_setting_is_on_its_page() -> None:
    commands = [command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback]

    assert all(f"### `retune {name}" in PAGES["cli.md"] for name in commands)
    assert "--floor" not in PAGES["cli.md"]
    assert all(f"| `RETUNE_{name.upper()}` |" in PAGES["settings.md"] for name in Settings.model_fields)
    assert all(f"| `{name}` |" in PAGES["settings.md"] for name in TrainParams.model_fields)


@pytest.mark.slow
def test_command_line_imports_lazily() -> None:
    code = "import sys, flows.cli; print([name for name in ('torch', 'mlflow', 'prefect', 'flows.cli.reference') if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"
