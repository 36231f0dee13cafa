import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import BadParams
from components.model import tasks

TASKS = Path(tasks.__file__).parent


def test_every_folder_is_a_task():
    assert set(tasks.available()) == {path.name for path in TASKS.iterdir() if path.is_dir() and not path.name.startswith("_")} != set()


@pytest.mark.parametrize("name", tasks.available())
def test_every_task_implements_the_protocol(name):
    task = tasks.load(name)
    members = [member for member in vars(tasks.Task) if not member.startswith("_")] + list(tasks.Task.__annotations__)

    assert [member for member in members if not hasattr(task, member)] == []
    assert len(members) > 8
    assert task.columns
    assert task.validation_metrics
    assert set(task.inputs) == set(task.example)


def test_unknown_task_suggests_the_nearest_name():
    with pytest.raises(
        BadParams, match=r"unknown task 'text_clasification'.*has: .*text_classification.*; did you mean 'text_classification'\?"
    ):
        tasks.load("text_clasification")


def test_unknown_option_is_rejected():
    with pytest.raises(BadParams, match=r"task_options\.shape is not a setting"):
        tasks.load("text_classification", {"shape": 7})


def test_path_is_not_a_task():
    with pytest.raises(BadParams, match="unknown task"):
        tasks.load("../errors")


@pytest.mark.slow
def test_loading_tasks_does_not_import_torch():
    code = (
        "import sys; from components.model import tasks; [tasks.load(n).columns for n in tasks.available()];"
        "sys.exit(int('torch' in sys.modules or 'sklearn' in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
