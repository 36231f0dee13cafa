"""What DVC is asked before the stages: which of them stand, and whether data and base are those that it knows."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.dvc import STAGES, changed
from flows.effects import put_under_dvc
from flows.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A pipeline of five stages, each a copy of the one before; a stage of the user's own writes what `preprocess` reads."""
    root = tmp_path_factory.mktemp("pipeline")
    for name in ("data/raw", "data/base", "code", "models"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text(name, encoding="utf-8")
    stages = {"words": {"cmd": "cp code/words models/words", "deps": ["code/words"], "outs": ["models/words"]}}
    (root / "code/words").write_text("words", encoding="utf-8")
    before = "data/raw/file"
    for stage in STAGES:
        (root / "code" / stage).write_text(stage, encoding="utf-8")
        deps = [before, f"code/{stage}", *(["models/words"] if stage == "preprocess" else []), *(["data/base"] if stage == "train" else [])]
        stages[stage] = {"cmd": f"cat {' '.join(deps[:2])} > models/{stage}", "deps": deps, "outs": [f"models/{stage}"]}
        before = f"models/{stage}"
    stages["after"] = {"cmd": "cp models/evaluate models/after", "deps": ["models/evaluate"], "outs": ["models/after"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    dvc(root, "init", "--no-scm", "-q")
    found = Workspace(root, root, root / "params.yaml")
    assert put_under_dvc(found) == frozenset()
    dvc(root, "repro", "-q", "evaluate")
    return found


def dvc(root: Path, *command: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *command], cwd=root, check=True, capture_output=True)


def test_all_stand_where_nothing_changed_and_what_comes_after_them_is_not_asked(place: Workspace) -> None:
    assert changed(place.root) == frozenset()
    assert put_under_dvc(place) == frozenset(STAGES)


@pytest.mark.parametrize(
    ("file", "standing"),
    [
        ("code/train", {"validate", "preprocess", "tune"}),
        ("code/validate", set()),
        ("models/tune", {"validate", "preprocess"}),  # what a stage wrote is other than it was
        ("code/words", set()),  # a stage of the user's own, before ours
    ],
)
def test_stages_stand_up_to_the_first_that_changed(place: Workspace, file: str, standing: set[str]) -> None:
    path = place.root / file
    before = path.read_text(encoding="utf-8")
    path.unlink()  # it may be a link into DVC's cache
    path.write_text(before + " edited", encoding="utf-8")
    try:
        assert put_under_dvc(place) == standing
    finally:
        path.write_text(before, encoding="utf-8")


@pytest.mark.parametrize(("folder", "standing"), [("raw", set()), ("base", {"validate", "preprocess", "tune"})])
def test_other_data_or_another_base_is_known_to_dvc_afterwards(place: Workspace, folder: str, standing: set[str]) -> None:
    path = place.root / "data" / folder / "file"
    before = path.read_text(encoding="utf-8")
    path.unlink()
    path.write_text("other", encoding="utf-8")

    assert put_under_dvc(place) == standing
    assert f"data/{folder}.dvc" not in changed(place.root)

    path.unlink()
    path.write_text(before, encoding="utf-8")
    assert put_under_dvc(place) == frozenset(STAGES)


def test_a_folder_that_dvc_has_forgotten_is_added_again(place: Workspace) -> None:
    (place.root / "data/raw.dvc").unlink()

    assert put_under_dvc(place) == frozenset(STAGES)
    assert (place.root / "data/raw.dvc").exists()
