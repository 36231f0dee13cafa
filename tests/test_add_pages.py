"""Follow the "add a …" pages in a copy of the project, with their files unchanged."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from components.artifacts.rows import write_rows
from components.artifacts.validation import ValidationReport
from tests.support.pages import blocks
from tests.support.project import ROOT, environment, git

LINT_IMPORTS = ("-c", "from importlinter.cli import lint_imports_command as c; c()")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone of the project with its uncommitted files."""
    names = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def page(name: str, language: str) -> list[str]:
    return blocks((ROOT / "docs" / name).read_text(encoding="utf-8"), language)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n") + "\n\n" + text, encoding="utf-8")


def add_row(path: Path, header: str, row: str) -> None:
    """Add `row` to the end of the table whose first line starts with `header`."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if line.startswith(header))
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    path.write_text("".join([*lines[:end], row, *lines[end:]]), encoding="utf-8")


def python(project: Path, *command: str) -> str:
    variables = {name: value for name, value in environment(project).items() if not name.startswith("RETUNE_")}
    done = subprocess.run([sys.executable, *command], cwd=project, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def setting(project: Path, name: str) -> str:
    code = f"from pathlib import Path; from flows.project.params import read_params; print(read_params(Path('params.yaml')).{name})"
    return python(project, "-c", code)


def add_gate(project: Path) -> None:
    (code, test), (section,) = page("add-a-gate.md", "python"), page("add-a-gate.md", "yaml")
    write(project / "components/gates/churn.py", code)
    write(project / "tests/unit/gates/test_churn.py", test)
    for name in ("params.yaml", "flows/project/params.yaml.j2"):
        edit(project / name, "\npromotion:", f"{section}\npromotion:")


def add_method(project: Path) -> None:
    (code, test), (row,) = page("add-a-method.md", "python"), page("add-a-method.md", "markdown")
    write(project / "components/model/methods/bitfit.py", code)
    write(project / "tests/unit/model/test_bitfit.py", test)
    add_row(project / "docs/training.md", "| `method` |", row)


def add_source(project: Path) -> None:
    (code, case), (row,) = page("sources.md", "python"), page("sources.md", "markdown")
    write(project / "components/data/snapshot/sources/zip.py", code)
    write(project / "tests/support/sources/zip.py", case)
    add_row(project / "docs/sources.md", "| `snapshot.source` |", row)


def add_step(project: Path) -> None:
    (code, entry, field, test), (section, stage) = page("add-a-step.md", "python"), page("add-a-step.md", "yaml")
    (row,) = page("add-a-step.md", "markdown")
    write(project / "components/data/lengths.py", code)
    last = '    "evaluate": "components.evaluation.evaluate",\n'
    edit(project / "components/steps.py", last, last + entry)
    params, first = project / "flows/project/params.py", "from components.training.trainer"
    edit(params, first, f"from components.data.lengths import LengthsParams\n{first}")
    edit(params, "    retrain: RetrainParams", f"{field}    retrain: RetrainParams")
    for name in ("params.yaml", "flows/project/params.yaml.j2"):
        append(project / name, section)
    append(project / "dvc.yaml", stage)
    add_row(project / "docs/architecture.md", "| stage |", row)
    write(project / "tests/unit/data/test_lengths.py", test)


def add_task(project: Path) -> None:
    code, case, test = page("add-a-task.md", "python")
    write(project / "components/model/tasks/multiple_choice/__init__.py", code)
    write(project / "tests/support/cases/multiple_choice.py", case)
    write(project / "tests/unit/model/test_multiple_choice.py", test)
    headers = ("| `task` | served", "| `task` | `task_options`", "| `task` | option", "| `task` | families")
    (rows,) = page("add-a-task.md", "markdown")
    for header, row in zip(headers, rows.splitlines(keepends=True), strict=True):
        add_row(project / "docs/tasks.md", header, row)


ADDITIONS: list[Callable[[Path], None]] = [add_gate, add_method, add_source, add_step, add_task]


@pytest.mark.exhaustive
def test_add_a_step_works_as_it_is_written(project: Path, tickets: pd.DataFrame) -> None:
    add_step(project)
    validated = project / "data/validated"
    validated.mkdir(parents=True)
    write_rows(tickets, validated / "kept.parquet")
    counts = {"rows_in": 240, "kept": 240, "quarantined": 0}
    ValidationReport(snapshot="", accepted=True, reasons={}, checks=(), **counts).write(validated)
    python(project, "-m", "components", "lengths", "data/validated", "reports/lengths")

    assert '"mean": 8.0' in (project / "reports/lengths/words.json").read_text(encoding="utf-8")
    assert "longest=500" in setting(project, "lengths")
    python(project, "-m", "pytest", "-q", "tests/test_wiring.py", "tests/unit/data/test_lengths.py")
    python(project, *LINT_IMPORTS)


@pytest.mark.slow
def test_add_a_gate_works_as_it_is_written(project: Path) -> None:
    add_gate(project)

    assert "at_most=0.25" in setting(project, "gates.churn")
    python(project, "-m", "pytest", "-q", "tests/unit/gates/test_churn.py")
    assert '"survivors": []' in python(project, "-m", "tests.support.mutants", "gates.churn", "tests/unit/gates/test_churn.py")
    python(project, *LINT_IMPORTS)


@pytest.mark.exhaustive
def test_add_a_method_works_as_it_is_written(project: Path) -> None:
    add_method(project)
    settings = "from components.training.trainer import TrainParams as T; print(T(method='bitfit', bitfit_norms=True).method_settings())"

    assert "bitfit_norms=True" in python(project, "-c", settings)
    python(project, "-m", "pytest", "-q", "-m", "not slow", "tests/unit/model/test_bitfit.py", "tests/unit/model/test_methods.py")
    python(project, *LINT_IMPORTS)


@pytest.mark.exhaustive
def test_a_source_is_one_file_as_it_is_written(project: Path) -> None:
    add_source(project)

    assert "6 passed" in python(project, "-m", "pytest", "-q", "-k", "zip or found_by_name", "tests/unit/data/test_sources.py")
    python(project, *LINT_IMPORTS)


@pytest.mark.exhaustive
def test_add_a_task_works_as_it_is_written(project: Path) -> None:
    add_task(project)

    unit = ["tests/unit/model/test_multiple_choice.py", "tests/unit/model/test_tasks.py", "tests/test_wiring.py"]
    python(project, "-m", "pytest", "-q", *unit)
    described = "import json; from flows.cli.tasks import describe_task; print(json.dumps(describe_task('multiple_choice', {})))"
    assert '"baselines": ["first", "longest"]' in python(project, "-c", described)
    python(project, "-m", "pytest", "-q", "-k", "multiple_choice", "tests/integration/test_tasks.py")
    python(project, *LINT_IMPORTS)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_the_fast_suite_is_green_after_all_additions(project: Path) -> None:
    for add in ADDITIONS:
        add(project)
    python(project, "-m", "flows.cli.reference")
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "Add a gate, a method, a source, a step and a task")

    python(project, *LINT_IMPORTS)
    suite = python(project, "-m", "pytest", "-q", "-n", "2", "-m", "not slow and not exhaustive and not stack")
    assert " passed" in suite
    for name in ("unit/gates/test_churn", "unit/model/test_bitfit", "unit/data/test_lengths", "unit/model/test_multiple_choice"):
        assert (project / f"tests/{name}.py").exists()
