"""The examples made from the ICD-10-CM tabular list: generated data and parameter files."""

import csv
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from components.data.preprocess.splits import split_of
from flows.project.params import read_params

EXAMPLES = Path(__file__).parents[3] / "examples"

pytestmark = pytest.mark.skipif(find_spec("simple_icd_10_cm") is None, reason="the example extra is not installed")


def make(folder: Path, example: str) -> dict[str, list[dict[str, str]]]:
    """Run the script of an example in a copy of its folder; return the rows of each written file."""
    for name in ("diagnosis", example):
        shutil.copytree(EXAMPLES / name, folder / "examples" / name, ignore=shutil.ignore_patterns("*.pyc", "__pycache__"))
    (folder / "components").symlink_to(EXAMPLES.parent / "components")
    subprocess.run([sys.executable, folder / "examples" / example / "make_data.py"], check=True, capture_output=True)
    rows = {}
    for path in (folder / "examples" / example).glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows[path.name] = list(csv.DictReader(file))
    return rows


@pytest.mark.slow
def test_every_synonym_has_its_code_title(tmp_path: Path) -> None:
    rows = make(tmp_path, "synonyms")["synonyms.csv"]

    assert len(rows) == 12_569
    assert {
        "id": "A00.1-1",
        "group": "A00",
        "anchor": "Cholera eltor",
        "positive": "Cholera due to Vibrio cholerae 01, biovar eltor",
    } in rows
    assert all(row["id"].startswith(row["group"]) for row in rows)


@pytest.mark.slow
def test_pretraining_texts_exclude_test_texts(tmp_path: Path) -> None:
    files = make(tmp_path, "domain_pretraining")
    splits = {
        name: read_params(EXAMPLES / f"domain_pretraining/{name}.yaml").preprocess for name in ("adapt", "classify", "classify_alone")
    }
    adapt = splits["adapt"]

    assert all(
        (split_settings.split_seed, split_settings.test_share, split_settings.validation_share)
        == (adapt.split_seed, adapt.test_share, adapt.validation_share)
        for split_settings in splits.values()
    )
    split = {
        row["group"]: split_of(adapt.split_seed, row["group"], adapt.test_share, adapt.validation_share) for row in files["labelled.csv"]
    }
    learnt = {
        row["text"]
        for row in files["titles.csv"]
        if split_of(adapt.split_seed, row["group"], adapt.test_share, adapt.validation_share) == "train"
    }
    tested = {row["text"] for row in files["labelled.csv"] if split[row["group"]] == "test"}
    assert len(learnt) > 10_000
    assert len(tested) > 1_500
    assert len(learnt & tested) < 0.01 * len(tested)  # "Other specified…" occurs in several categories
    assert sum(split[row["group"]] == "train" for row in files["labelled.csv"]) <= 21 * 12


def test_classifiers_differ_only_in_name_and_base() -> None:
    adapted, alone = (read_params(EXAMPLES / f"domain_pretraining/{name}.yaml").model_dump() for name in ("classify", "classify_alone"))

    assert {name for name in adapted if adapted[name] != alone[name]} == {"name", "base"}
    assert adapted["base"]["model"] == f"models:/{read_params(EXAMPLES / 'domain_pretraining/adapt.yaml').name}@champion"
