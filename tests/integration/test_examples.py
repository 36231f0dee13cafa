"""The commands of each README in examples/, in their order: on the data they make, cut short, and with tiny base models."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from bench.tasks import commands, examples, settings_of
from tests.support.project import ROOT, change, git, retune
from tests.support.tiny import make_tiny_base
from tests.support.tiny_generators import make_gpt2

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ROWS = 400
GENTLE: dict[str, Any] = {
    "validate": {"min_rows": 50, "max_duplicate_share": 0.9},
    "preprocess": {"max_length": 48, "warn_cut_share": 1.0},
    "train": {"epochs": 1, "batch_size": 16, "precision": "float32", "threads": 1},
    "gates": {
        "floor": {"role": "informational"},
        "baseline": {"role": "informational"},
        "servability": {"rows": 5},
        "behaviour": {"role": "off", "cases": ""},  # an example's own cases have labels that are cut away
        "cost": {"role": "off"},
    },
}
NAMES = [folder.name for folder in examples(ROOT)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The repository as a user clones it, in git."""
    for part in ("components", "flows", "infra", "examples", ".dvc"):
        shutil.copytree(
            ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local", "*.jsonl")
        )
    for part in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / part, tmp_path / part)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_readme_commands_work(name: str, project: Path) -> None:
    folder = project / "examples" / name
    ran = []
    if name == "causal_lm":  # its base of 540 MB needs an extra package, so make_base.py finds an existing base
        (folder / "base").mkdir()
        make_gpt2(folder / "base", pd.read_csv(project / "examples/diagnosis/diagnosis.csv")["text"].head(2000))
    for command in commands(folder / "README.md"):
        if command[0] == "python":
            made = subprocess.run([sys.executable, *command[1:], *offline(command, project)], cwd=project, capture_output=True, text=True)
            assert made.returncode == 0, made.stderr
        elif command[0] == "retune":
            shorten(project / settings_of(command))
            done = retune(project, *command[1:], *([] if "--inline" in command else ["--inline"]), "--json")
            assert done.returncode == 0, done.stdout + done.stderr
            ran.append(json.loads(done.stdout))
            assert "</html>" in Path(ran[-1]["page"]).read_text(encoding="utf-8")
    assert ran
    assert all(result["version"] == 1 for result in ran)


def offline(command: list[str], project: Path) -> list[str]:
    """Return more arguments for a script that would download a package: an archive in the format of the package."""
    if "token_classification/make_data.py" not in command[-1]:
        return []
    path = project / "corpus.tgz"
    with tarfile.open(path, "w:gz") as files:
        for number in range(40):
            verbs = ("blamed", "praised")
            lines = [f"The/at jury/nn {verbs[line % 2]}/vbd case/nn {number * 20 + line}/cd of/in it/ppo ./." for line in range(12)]
            content = "\n".join(lines).encode()
            entry = tarfile.TarInfo(f"package/c{'ab'[number % 2]}{number:02d}")
            entry.size = len(content)
            files.addfile(entry, io.BytesIO(content))
    return ["--archive", str(path)]


def shorten(file: Path) -> None:
    """Reduce the settings of an example: the first groups of its data, one epoch, a base of two layers."""
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    data = file.parent / params["snapshot"]["source"]
    texts = cut(data)
    if params["base"]["model"].startswith("package:"):
        base = file.parent / "tiny"
        if not base.exists():
            base.mkdir()
            make_tiny_base(
                base, sorted({word for text in texts for word in text.lower().split() if word.isalpha() and len(word) > 1})[:2000]
            )
        params["base"]["model"] = "tiny"
    params = change(params, GENTLE)
    file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def cut(data: Path) -> list[str]:
    """Keep whole groups of about `ROWS` rows, spread over the file, and return all cells as texts."""
    table = pd.read_json(data, lines=True, dtype=False) if data.suffix == ".jsonl" else pd.read_csv(data, dtype=str, keep_default_na=False)
    if len(table) < 3000:  # few labels as they are
        return texts_of(table)
    if "label" in table:  # each class needs its share
        table = table[table["label"].isin(table["label"].value_counts().index[:3])]
    groups = table["group"].unique()
    kept = table[table["group"].isin(groups[:: max(1, len(table) // ROWS)])]
    if data.suffix == ".jsonl":
        kept.to_json(data, orient="records", lines=True, force_ascii=False)
    else:
        kept.to_csv(data, index=False)
    return texts_of(kept)


def texts_of(table: pd.DataFrame) -> list[str]:
    return [str(cell) for name in table.columns for cell in table[name]]
