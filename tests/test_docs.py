"""Run the commands and examples of the documents unchanged."""

import importlib.metadata
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
from flows.project.params import read_params
from tests.support.project import ROOT, environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*/*.yaml")) if path.name != "behaviour.yaml"]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def stage_table(text: str) -> dict[str, list[set[str]]]:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return {name: [set(re.findall(r"[\w/.]+", cell)) for cell in cells] for name, *cells in rows if name in STEPS}


def test_stage_table_matches_dvc_yaml() -> None:
    table = stage_table(ARCHITECTURE)

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


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_every_command_of_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ") if part.startswith("retune ")]
    for command in commands:
        options = [word.partition("=")[0] for word in command if word.startswith("--")]
        shown = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, [command[1], "--help"])
        assert shown.exit_code == 0, f"{command}: {shown.output}"
        for option in options:
            assert re.search(rf"{option}(?![\w-])", shown.output), f"{' '.join(command)}: no option {option}"


def test_readme_is_short_and_shows_real_output() -> None:
    (printed,) = blocks(README, "text")

    assert "PASS" in printed
    assert "@@" not in README
    assert len(README.splitlines()) <= 130
    assert len(README.split()) <= 900


def test_make_targets_of_documents_exist() -> None:
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8") + (ROOT / "docs/README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, re.MULTILINE))
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert {"run", "test", "check", "docs", "setup"} <= targets
    assert all(f"make {target} " in listed for target in targets)


def test_annotated_tree_names_what_exists() -> None:
    (tree,) = [block for block in blocks(ARCHITECTURE, "text") if "components/" in block]
    folder = ""
    for line in filter(str.strip, tree.splitlines()):
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        assert (ROOT / (folder if line.startswith(" ") else "") / name).exists(), line
    packages = {path.parent.name for path in (ROOT / "components").glob("*/__init__.py")}
    assert {f"{name}/" for name in packages} <= {line.split()[0] for line in tree.splitlines() if line.strip()}


def test_all_links_between_documents_lead_somewhere() -> None:
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md")]
    documents = [*top, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
    found = [
        (path, link) for path in documents for link in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\" ]+)", path.read_text(encoding="utf-8"))
    ]
    assert found
    for path, link in found:
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(file), f"{path.name}: {link}"


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub and MyST give to the headings of a page."""
    headings = re.findall(r"^#{1,6} (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8") + (ROOT / "docs/decisions/index.md").read_text(encoding="utf-8")
    site = (ROOT / "docs/index.rst").read_text(encoding="utf-8")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}

    assert {f"{page}.md" for page in pages} <= set(re.findall(r"[\w-]+\.md", index))
    assert pages <= set(site.split())
    assert {path.name for path in (ROOT / "docs/decisions").glob("0*.md")} <= set(re.findall(r"[\w-]+\.md", index))


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert built.returncode == 0, built.stderr
    assert (tmp_path / "searchindex.js").exists()
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?:', (tmp_path / "index.html").read_text(encoding="utf-8"))


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
def test_add_a_method_works_as_it_is_written(tmp_path: Path) -> None:
    page = (ROOT / "docs/add-a-method.md").read_text(encoding="utf-8")
    (code, test), (row,) = blocks(page, "python"), blocks(page, "markdown")
    for part in ("components", "flows", "infra", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "components/model/methods/bitfit.py").write_text(code, encoding="utf-8")
    (tmp_path / "tests/unit/model/test_bitfit.py").write_text(test, encoding="utf-8")

    settings = "from components.training.trainer import TrainParams as T; print(T(method='bitfit', bitfit_norms=True).method_settings())"
    assert "bitfit_norms=True" in in_copy(tmp_path, "-c", settings)
    assert row.startswith("| `bitfit` |")
    assert "`bitfit_norms`" in row
    in_copy(tmp_path, "-m", "pytest", "-q", "-m", "not slow", "tests/unit/model/test_bitfit.py", "tests/unit/model/test_methods.py")
    in_copy(tmp_path, "-c", "from importlinter.cli import lint_imports_command as c; c()")


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


def test_distribution_carries_the_licence() -> None:
    about = importlib.metadata.metadata("retune")

    assert (about["License-Expression"], about.get_all("License-File")) == ("Apache-2.0", ["LICENSE"])
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_example_contains_only_what_differs_from_the_defaults(path: Path) -> None:
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    params = read_params(path)
    sections = {name: getattr(params, name) for name in ("tune", "evaluate", "promotion", "retrain")}
    sections |= {"validate": params.validation, "train": params.train.fixed}
    sections |= {name: getattr(params.gates, name) for name in written["gates"]}

    for name, section in sections.items():
        stated = (written["gates"] if name in written["gates"] else written).get(name, {})
        defaults = {key: field.get_default(call_default_factory=True) for key, field in type(section).model_fields.items()}
        assert [key for key in stated if getattr(section, key) == defaults[key]] == [], name
