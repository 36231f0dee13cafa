"""Run the commands and examples of the documents unchanged."""

import importlib.metadata
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.data.base_model import BaseParams
from components.data.snapshot import SnapshotParams, sources
from components.model import methods
from components.steps import STEPS
from components.training.trainer import TrainParams, TrainSection
from components.training.tune.settings import TuneParams, searched
from flows.cli import app
from flows.project.params import read_params
from tests.support.pages import blocks
from tests.support.project import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*/*.yaml")) if path.name != "behaviour.yaml"]
WRAPPED = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted((ROOT / "docs").glob("*.md"))]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


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


def test_training_page_has_every_field_and_valid_examples() -> None:
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


@pytest.mark.parametrize("path", WRAPPED, ids=lambda path: path.name)
def test_lines_are_wrapped(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    prose = re.sub(r"(?ms)^```.*?^```", lambda block: "\n" * block[0].count("\n"), text)
    long = [number for number, line in enumerate(prose.splitlines(), 1) if len(line) > 150 and not line.startswith(("|", "#"))]

    assert long == [], f"{path.name}: wrap these lines at about 120 characters"


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


def test_page_of_sources_lists_every_source() -> None:
    page = (ROOT / "docs/sources.md").read_text(encoding="utf-8")
    settings = [SnapshotParams.parse(yaml.safe_load(block)["snapshot"], "snapshot") for block in blocks(page, "yaml")]

    table = set(re.findall(r"^\| `(\w+)://", page.partition("## Add a source")[0], re.MULTILINE))
    assert table == set(sources.available()) - {sources.NO_SCHEME}
    assert {each.scheme for each in settings} == {"sql", "s3", "hub"} <= table
    for name in ("params.yaml", "flows/project/params.yaml.j2"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert all(f"{scheme}://" in text for scheme in ("sql", "s3", "hub")), name


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
