"""What the documents tell a reader to do is done here as it stands."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from components.artifacts.rows import write_rows
from components.artifacts.validation import ValidationReport
from components.data.base_model import BaseParams
from components.data.snapshot import SnapshotParams, sources
from components.model import methods
from components.steps import STEPS
from components.training.trainer import TrainParams, TrainSection
from components.training.tune.settings import TuneParams, searched
from flows.cli import app
from tests.support.project import ROOT, environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def stage_table(text: str) -> dict[str, list[set[str]]]:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return {name: [set(re.findall(r"[\w/.]+", cell)) for cell in cells] for name, *cells in rows if name in STEPS}


@pytest.mark.parametrize("document", [README, ARCHITECTURE], ids=["README", "architecture"])
def test_the_stage_table_is_that_of_dvc_yaml(document: str) -> None:
    table = stage_table(document)

    assert tuple(table) == tuple(STEPS)
    for stage, (reads, writes, sees) in table.items():
        command = PIPELINE[stage]["cmd"].split()
        assert reads == set(command[5:-1]), stage
        assert writes == {command[-1]}, stage
        assert sees == set(PIPELINE[stage]["params"]), stage


def test_every_field_of_train_is_explained_and_the_examples_are_searches() -> None:
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    examples = [yaml.safe_load(block) for block in blocks(text, "yaml")]

    assert len(examples) >= 2
    for example in examples:
        space = searched(TuneParams.parse(example["tune"], "tune").space, TrainSection.parse(example["train"], "train"))
        assert set(space) == set(example["train"])
        BaseParams.parse(example.get("base"), "base")
    assert set(TrainParams.model_fields) <= set(re.findall(r"`(\w+)`", text))
    assert set(methods.available()) <= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


SCORING = (ROOT / "docs/scoring.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("document", "at_least"), [(README, 8), (SCORING, 6)], ids=["README", "scoring"])
def test_every_command_of_a_document_exists(document: str, at_least: int) -> None:
    lines = [line for block in blocks(document, "bash") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("retune ")]
    assert len(commands) >= at_least
    for command in commands:
        options = [word for word in command if word.startswith("--")]
        shown = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, [command[1], "--help"])
        assert shown.exit_code == 0, f"{command}: {shown.output}"
        for option in options:
            assert option in shown.output, f"{' '.join(command)}: no option {option}"


def test_the_readme_shows_what_a_run_printed() -> None:
    (printed,) = [block for block in blocks(README, "text") if "components/" not in block]

    assert "PASS" in printed
    assert "@@" not in README


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", README, re.MULTILINE))
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert {"run", "test", "check", "ui", "help"} <= targets
    assert all(f"make {target} " in listed for target in targets)


def test_the_annotated_tree_names_what_is_there() -> None:
    (tree,) = [block for block in blocks(README, "text") if "components/" in block]
    named = [line.split()[0] for line in tree.splitlines() if line.strip()]
    folder = ""
    for line, name in zip(filter(str.strip, tree.splitlines()), named, strict=True):
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            assert (ROOT / name).exists(), name
        else:
            assert (ROOT / folder / name).exists(), folder + name


def test_all_links_between_documents_lead_somewhere() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
    links = [(path, link) for path in documents for link in re.findall(r"\]\(([^)#]+?)(?:#.*?)?\)", path.read_text(encoding="utf-8"))]
    assert links
    for path, link in links:
        assert link.startswith("https://") or (path.parent / link).exists(), f"{path.name}: {link}"


@pytest.mark.slow
def test_add_a_step_works_as_it_is_written(tmp_path: Path, tickets: pd.DataFrame) -> None:
    page = (ROOT / "docs/add-a-step.md").read_text(encoding="utf-8")
    (code, entry), (section, stage) = blocks(page, "python"), blocks(page, "yaml")
    for part in ("components", "flows", "infra", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / part, tmp_path / part)
    (tmp_path / "components/data/lengths.py").write_text(code, encoding="utf-8")
    last = '    "evaluate": "components.evaluation.evaluate",\n'
    edit(tmp_path / "components/steps.py", last, last + entry)
    edit(
        tmp_path / "flows/project/params.py",
        "from components.training.trainer",
        "from components.data.lengths import LengthsParams\nfrom components.training.trainer",
    )
    edit(tmp_path / "flows/project/params.py", "    gates: GatesParams", "    gates: GatesParams\n    lengths: LengthsParams")
    append(tmp_path / "params.yaml", section)
    append(tmp_path / "dvc.yaml", stage)
    validated = tmp_path / "data/validated"
    validated.mkdir(parents=True)
    write_rows(tickets, validated / "kept.parquet")
    counts = {"rows_in": 240, "kept": 240, "quarantined": 0}
    ValidationReport(snapshot="", accepted=True, reasons={}, checks=(), **counts).write(validated)

    run = [sys.executable, "-m", "components", "lengths", "data/validated", "reports/lengths"]
    done = subprocess.run(run, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"mean": 8.0' in (tmp_path / "reports/lengths/words.json").read_text(encoding="utf-8")
    whole = "from pathlib import Path; from flows.project.params import read_params; print(read_params(Path('params.yaml')).lengths)"
    for check in (
        ["-c", whole],
        ["-m", "pytest", "-q", "tests/test_wiring.py"],
        ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
    ):
        checked = subprocess.run([sys.executable, *check], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n") + "\n\n" + text, encoding="utf-8")


@pytest.mark.slow
def test_add_a_gate_works_as_it_is_written(tmp_path: Path) -> None:
    page = (ROOT / "docs/add-a-gate.md").read_text(encoding="utf-8")
    (code, test), (section,) = blocks(page, "python"), blocks(page, "yaml")
    for part in ("components", "flows", "infra", "tests", "examples"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "params.yaml"):
        shutil.copy(ROOT / part, tmp_path / part)
    (tmp_path / "components/gates/churn.py").write_text(code, encoding="utf-8")
    (tmp_path / "tests/unit/gates/test_churn.py").write_text(test, encoding="utf-8")
    edit(tmp_path / "params.yaml", "\ngates:", f"\ngates:\n{section}#")

    asked = "from pathlib import Path; from flows.project.params import read_params; print(read_params(Path('params.yaml')).gates.churn)"
    said = [
        in_copy(tmp_path, *command)
        for command in (
            ["-c", asked],
            ["-m", "pytest", "-q", "tests/unit/gates/test_churn.py"],
            ["-m", "tests.support.mutants", "gates.churn", "tests/unit/gates/test_churn.py"],
            ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
        )
    ]

    assert "at_most=0.25" in said[0]
    assert '"survivors": []' in said[2]


@pytest.mark.slow
def test_a_source_is_one_file_as_it_is_written(tmp_path: Path) -> None:
    code, case = blocks((ROOT / "docs/sources.md").read_text(encoding="utf-8"), "python")
    for part in ("components", "flows", "infra", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "components/data/snapshot/sources/zip.py").write_text(code, encoding="utf-8")
    (tmp_path / "tests/support/sources/zip.py").write_text(case, encoding="utf-8")

    said = in_copy(tmp_path, "-m", "pytest", "-q", "-k", "zip or found_by_name", "tests/unit/data/test_sources.py")

    assert "6 passed" in said
    in_copy(tmp_path, "-c", "from importlinter.cli import lint_imports_command as c; c()")


def test_the_sources_of_the_table_and_of_params_are_those_that_there_are() -> None:
    page = (ROOT / "docs/sources.md").read_text(encoding="utf-8")
    settings = [SnapshotParams.parse(yaml.safe_load(block)["snapshot"], "snapshot") for block in blocks(page, "yaml")]

    table = set(re.findall(r"^\| `(\w+)://", page, re.MULTILINE))
    assert table == set(sources.available()) - {sources.NO_SCHEME} == {each.scheme for each in settings} != set()
    for text in (
        README,
        (ROOT / "params.yaml").read_text(encoding="utf-8"),
        (ROOT / "flows/project/params.yaml.j2").read_text(encoding="utf-8"),
    ):
        assert all(f"{name}://" in text for name in table)


@pytest.mark.exhaustive
def test_add_a_task_works_as_it_is_written(tmp_path: Path) -> None:
    page = (ROOT / "docs/add-a-task.md").read_text(encoding="utf-8")
    code, case, test = blocks(page, "python")
    for part in ("components", "flows", "infra", "tests", "examples"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / part, tmp_path / part)
    written = {"components/model/tasks/multiple_choice/__init__.py": code, "tests/support/cases/multiple_choice.py": case}
    for name, text in (written | {"tests/unit/model/test_multiple_choice.py": test}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    in_copy(
        tmp_path, "-m", "pytest", "-q", "tests/unit/model/test_multiple_choice.py", "tests/unit/model/test_tasks.py", "tests/test_wiring.py"
    )
    in_copy(tmp_path, "-m", "pytest", "-q", "-k", "multiple_choice", "tests/integration/test_tasks.py")
    in_copy(tmp_path, "-c", "from importlinter.cli import lint_imports_command as c; c()")


def in_copy(copy: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=copy, env=environment(copy), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
