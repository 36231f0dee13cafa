"""Before the stages run, DVC reports which are unchanged, and tracks changed data and base models."""

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
from flows.dvc_adapter.cache import object_path
from flows.dvc_adapter.repro import StageResult, add_to_dvc, changed, check_pipeline, pull
from flows.pipeline.actions import put_under_dvc, record, reproduce_intact
from flows.project.workspace import Workspace
from tests.support.project import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A pipeline of five stages, each a copy of the previous one, and a custom stage that writes an input of `preprocess`."""
    root = tmp_path_factory.mktemp("pipeline")
    for name in ("data/raw", "data/base", "code", "models"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text(name, encoding="utf-8")
    stages = {"words": {"cmd": "cp code/words models/words", "deps": ["code/words"], "outs": ["models/words"]}}
    (root / "code/words").write_text("words", encoding="utf-8")
    previous = "data/raw/file"
    for stage in STAGES:
        (root / "code" / stage).write_text(stage, encoding="utf-8")
        deps = [
            previous,
            f"code/{stage}",
            *(["models/words"] if stage == "preprocess" else []),
            *(["data/base"] if stage == "train" else []),
        ]
        stages[stage] = {"cmd": f"cat {' '.join(deps[:2])} > models/{stage}", "deps": deps, "outs": [f"models/{stage}"]}
        previous = f"models/{stage}"
    (root / "code/leaf").write_text("leaf", encoding="utf-8")
    stages["leaf"] = {"cmd": "cat models/preprocess code/leaf > models/leaf", "deps": ["models/preprocess", "code/leaf"]}
    stages["leaf"]["outs"] = ["models/leaf"]
    stages["after"] = {"cmd": "cp models/evaluate models/after", "deps": ["models/evaluate"], "outs": ["models/after"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    dvc(root, "init", "--no-scm", "-q")
    workspace = Workspace(root, root, root / "params.yaml")
    assert put_under_dvc(workspace) == frozenset()
    dvc(root, "repro", "-q", "evaluate", "leaf")
    return workspace


def dvc(root: Path, *command: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *command], cwd=root, check=True, capture_output=True)


def test_all_stages_are_unchanged_without_an_edit(workspace: Workspace) -> None:
    assert changed(workspace.root) == frozenset()
    assert put_under_dvc(workspace) == frozenset(STAGES)


@pytest.mark.parametrize(
    ("file", "unchanged"),
    [
        ("code/train", {"validate", "preprocess", "tune"}),
        ("code/validate", set()),
        ("models/tune", {"validate", "preprocess"}),  # a changed output
        ("code/words", {"validate"}),  # a custom stage upstream
    ],
)
def test_stages_are_unchanged_up_to_the_first_edit(workspace: Workspace, file: str, unchanged: set[str]) -> None:
    path = workspace.root / file
    before = path.read_text(encoding="utf-8")
    path.unlink()  # it may be a link into DVC's cache
    path.write_text(before + " edited", encoding="utf-8")
    try:
        assert put_under_dvc(workspace) == unchanged
    finally:
        path.write_text(before, encoding="utf-8")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("folder", "unchanged"), [("raw", set()), ("base", {"validate", "preprocess", "tune"})])
def test_changed_data_or_base_is_added_to_dvc(workspace: Workspace, folder: str, unchanged: set[str]) -> None:
    path = workspace.root / "data" / folder / "file"
    before = path.read_text(encoding="utf-8")
    path.unlink()
    path.write_text("other", encoding="utf-8")

    assert put_under_dvc(workspace) == unchanged
    assert f"data/{folder}.dvc" not in changed(workspace.root)

    path.unlink()
    path.write_text(before, encoding="utf-8")
    assert put_under_dvc(workspace) == frozenset(STAGES)


def test_untracked_folder_is_added_again(workspace: Workspace) -> None:
    (workspace.root / "data/raw.dvc").unlink()

    assert put_under_dvc(workspace) == frozenset(STAGES)
    assert (workspace.root / "data/raw.dvc").exists()


def test_leaf_stage_at_the_end_hides_no_edit(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (flows_dvc, lock):
        monkeypatch.setattr(module, "STAGES", (*STAGES, "leaf"))
    (workspace.root / "code/train").write_text("edited", encoding="utf-8")
    try:
        assert put_under_dvc(workspace) == {"validate", "preprocess", "tune", "leaf"}
    finally:
        (workspace.root / "code/train").write_text("train", encoding="utf-8")


def test_damaged_object_is_not_restored(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    """DVC trusts it because it is read-only."""
    out = workspace.root / "models/tune"
    before, md5 = out.read_bytes(), lock.outputs(workspace.root, ["tune"])["models/tune"]
    damage(object_path(workspace.root, md5))
    out.unlink()
    with caplog.at_level(logging.WARNING):
        assert reproduce_intact("tune", workspace.root) is StageResult.RAN

    assert out.read_bytes() == before == object_path(workspace.root, md5).read_bytes()
    assert md5 in caplog.text


@pytest.mark.exhaustive
def test_damaged_checkout_counts_as_changed(workspace: Workspace) -> None:
    out, md5 = workspace.root / "models/train", lock.outputs(workspace.root, ["train"])["models/train"]
    before = out.read_bytes()
    damage(object_path(workspace.root, md5))
    out.unlink()
    dvc(workspace.root, "checkout", "train")
    assert out.read_bytes() != before

    assert put_under_dvc(workspace) == {"validate", "preprocess", "tune"}
    assert reproduce_intact("train", workspace.root) is StageResult.RAN
    assert out.read_bytes() == before


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_model_of_other_code_is_not_recorded(workspace: Workspace) -> None:
    shutil.copy(ROOT / "params.yaml", workspace.root)
    (workspace.root / "code/train").write_text("edited", encoding="utf-8")
    try:
        with pytest.raises(RetuneError, match=r"train changed since the model was built; `dvc repro`"):
            record(workspace, ())
    finally:
        (workspace.root / "code/train").write_text("train", encoding="utf-8")


@pytest.mark.parametrize(("action", "error"), [("add", "Cannot add files inside symlinked directories"), ("pull", "no-such-stage")])
def test_dvc_errors_are_reported(workspace: Workspace, tmp_path: Path, action: str, error: str) -> None:
    (tmp_path / "data").mkdir()
    (workspace.root / "linked").unlink(missing_ok=True)
    (workspace.root / "linked").symlink_to(tmp_path)
    with pytest.raises(RetuneError, match=error):
        add_to_dvc([workspace.root / "linked/data"], workspace.root) if action == "add" else pull("no-such-stage", workspace.root)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("train: {cmd: x}", r"dvc\.yaml has no stage tune; it has validate, preprocess, train, evaluate"),
        ("train: {cmd: x}\n  tune: {cmd: x, frozen: true}", r"tune is frozen, .*`dvc unfreeze tune`"),
        ("tune: {cmd: x}\n  fit: {cmd: x}", r"has no stage train; it has validate, preprocess, tune, fit, evaluate"),
        ("- not stages", r"dvc\.yaml is not YAML: line 4, .*`git checkout dvc\.yaml`"),
    ],
)
def test_invalid_pipeline_is_refused(tmp_path: Path, change: str, error: str) -> None:
    text = f"stages:\n  validate: {{cmd: x}}\n  preprocess: {{cmd: x}}\n  {change}\n  evaluate: {{cmd: x}}\n"
    (tmp_path / "dvc.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=error):
        check_pipeline(tmp_path)


def test_linked_data_folder_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {name: {"cmd": "x"} for name in STAGES}}), encoding="utf-8")
    check_pipeline(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")

    with pytest.raises(BadInput, match=r"is a link to .*disk.*cache\.dir"):
        check_pipeline(tmp_path)
