import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import BadParams
from components.model import tasks

TASKS = Path(tasks.__file__).parent


def test_every_folder_is_a_task_found_by_name():
    assert set(tasks.available()) == {path.name for path in TASKS.iterdir() if path.is_dir() and not path.name.startswith("_")} != set()


@pytest.mark.parametrize("name", tasks.available())
def test_every_task_offers_what_the_protocol_asks_for(name):
    task = tasks.load(name)
    wanted = [member for member in vars(tasks.Task) if not member.startswith("_")] + list(tasks.Task.__annotations__)

    assert [member for member in wanted if not hasattr(task, member)] == []
    assert len(wanted) > 8
    assert task.columns
    assert task.validation_metrics
    assert set(task.inputs) == set(task.example)


def test_an_unknown_task_is_refused_with_the_list_and_the_nearest():
    with pytest.raises(
        BadParams, match=r"unknown task 'text_clasification'.*has: .*text_classification.*; did you mean 'text_classification'\?"
    ):
        tasks.load("text_clasification")


def test_a_setting_that_a_task_does_not_have_is_refused_by_its_place():
    with pytest.raises(BadParams, match=r"task_options\.shape is not a setting"):
        tasks.load("text_classification", {"shape": 7})


def test_a_path_is_not_a_task():
    with pytest.raises(BadParams, match="unknown task"):
        tasks.load("../errors")


def test_asking_for_the_columns_of_a_task_imports_no_torch():
    code = (
        "import sys; from components.model import tasks; [tasks.load(n).columns for n in tasks.available()];"
        "sys.exit(int('torch' in sys.modules or 'sklearn' in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
