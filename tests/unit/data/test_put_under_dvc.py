"""What DVC is asked before the stages: which of them stand, and whether data and base are those that it knows."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.core.errors import BadInput, RetuneError
from components.steps import STAGES
from flows.dvc_adapter import lock
from flows.dvc_adapter import repro as flows_dvc
from flows.dvc_adapter.repro import StageResult, add_to_dvc, changed, check_pipeline, object_path, pull
from flows.pipeline.actions import put_under_dvc, record, reproduce_intact
from flows.project.workspace import Workspace
from tests.support.project import ROOT

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
    (root / "code/leaf").write_text("leaf", encoding="utf-8")
    stages["leaf"] = {"cmd": "cat models/preprocess code/leaf > models/leaf", "deps": ["models/preprocess", "code/leaf"]}
    stages["leaf"]["outs"] = ["models/leaf"]
    stages["after"] = {"cmd": "cp models/evaluate models/after", "deps": ["models/evaluate"], "outs": ["models/after"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    dvc(root, "init", "--no-scm", "-q")
    found = Workspace(root, root, root / "params.yaml")
    assert put_under_dvc(found) == frozenset()
    dvc(root, "repro", "-q", "evaluate", "leaf")
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
        ("code/words", {"validate"}),  # a stage of the user's own, before ours
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


def test_a_leaf_stage_placed_last_hides_no_edit(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (flows_dvc, lock):
        monkeypatch.setattr(module, "STAGES", (*STAGES, "leaf"))
    (place.root / "code/train").write_text("edited", encoding="utf-8")
    try:
        assert put_under_dvc(place) == {"validate", "preprocess", "tune", "leaf"}
    finally:
        (place.root / "code/train").write_text("train", encoding="utf-8")


def test_a_damaged_object_is_not_restored(place: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    """DVC trusts it, since it may only be read."""
    out = place.root / "models/tune"
    before, md5 = out.read_bytes(), lock.outputs(place.root, ["tune"])["models/tune"]
    damage(object_path(place.root, md5))
    out.unlink()
    with caplog.at_level(logging.WARNING):
        assert reproduce_intact("tune", place.root) is StageResult.RAN

    assert out.read_bytes() == before == object_path(place.root, md5).read_bytes()
    assert md5 in caplog.text


def test_a_damaged_file_laid_out_by_hand_does_not_stand(place: Workspace) -> None:
    out, md5 = place.root / "models/train", lock.outputs(place.root, ["train"])["models/train"]
    before = out.read_bytes()
    damage(object_path(place.root, md5))
    out.unlink()
    dvc(place.root, "checkout", "train")
    assert out.read_bytes() != before

    assert put_under_dvc(place) == {"validate", "preprocess", "tune"}
    assert reproduce_intact("train", place.root) is StageResult.RAN
    assert out.read_bytes() == before


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_a_model_made_by_other_code_is_not_recorded(place: Workspace) -> None:
    shutil.copy(ROOT / "params.yaml", place.root)
    (place.root / "code/train").write_text("edited", encoding="utf-8")
    try:
        with pytest.raises(RetuneError, match=r"train changed since the model was built; `dvc repro`"):
            record(place, ())
    finally:
        (place.root / "code/train").write_text("train", encoding="utf-8")


@pytest.mark.parametrize(("asked", "says"), [("add", "Cannot add files inside symlinked directories"), ("pull", "no-such-stage")])
def test_why_dvc_failed_is_told(place: Workspace, tmp_path: Path, asked: str, says: str) -> None:
    (tmp_path / "data").mkdir()
    (place.root / "linked").unlink(missing_ok=True)
    (place.root / "linked").symlink_to(tmp_path)
    with pytest.raises(RetuneError, match=says):
        add_to_dvc([place.root / "linked/data"], place.root) if asked == "add" else pull("no-such-stage", place.root)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("train: {cmd: x}", r"dvc\.yaml has no stage tune; it has validate, preprocess, train, evaluate"),
        ("train: {cmd: x}\n  tune: {cmd: x, frozen: true}", r"tune is frozen, .*`dvc unfreeze tune`"),
        ("tune: {cmd: x}\n  fit: {cmd: x}", r"has no stage train; it has validate, preprocess, tune, fit, evaluate"),
        ("- not stages", r"dvc\.yaml is not YAML: line 4, .*`git checkout dvc\.yaml`"),
    ],
)
def test_a_pipeline_that_cannot_be_brought_up_to_date_is_refused(tmp_path: Path, change: str, says: str) -> None:
    text = f"stages:\n  validate: {{cmd: x}}\n  preprocess: {{cmd: x}}\n  {change}\n  evaluate: {{cmd: x}}\n"
    (tmp_path / "dvc.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=says):
        check_pipeline(tmp_path)


def test_data_behind_a_link_is_refused_before_any_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {name: {"cmd": "x"} for name in STAGES}}), encoding="utf-8")
    check_pipeline(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")

    with pytest.raises(BadInput, match=r"is a link to .*disk.*cache\.dir"):
        check_pipeline(tmp_path)
