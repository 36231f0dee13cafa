"""dvc.lock: edited settings, stale stages and damaged files."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import dumps_yaml as dvc_writes
from dvc.utils.serialize import parse_yaml as dvc_reads

from components.core.errors import BadInput, BadParams, NotFound
from flows.dvc_adapter import lock
from flows.dvc_adapter.lock import edited_params, lock_hashes, locked_stages, overtaken_stages, unchanged_stages
from flows.dvc_adapter.repro import dvc

LOCK = """
schema: '2.0'
stages:
  train:
    cmd: x
    params:
      params.yaml:
        task: text_classification
        train: {epochs: 3, learning_rate: tuned, weight_decay: 1e-07}
"""


@pytest.mark.parametrize(
    ("params", "edited"),
    [
        ("{task: text_classification, train: {epochs: 3, learning_rate: tuned, weight_decay: 1.0e-7}, gates: {}}", []),
        ("{task: text_classification, train: {learning_rate: tuned, weight_decay: 0.0000001, epochs: 3.0}}", []),
        ("{task: text_classification, train: {epochs: 4, learning_rate: tuned, weight_decay: 1.0e-7}}", ["train"]),
        ("{task: other}", ["task", "train"]),
    ],
)
def test_sections_used_by_stages_are_compared(tmp_path: Path, params: str, edited: list[str]) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK, encoding="utf-8")
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")

    assert edited_params(tmp_path) == edited


@pytest.mark.parametrize("labels", ['["yes", "no"]', "[yes, no]", '["1:30", "010"]', "[010, 2026-01-01]", '["on", "off", "1e5"]'])
def test_settings_in_dvc_notation_are_not_edited(tmp_path: Path, labels: str) -> None:
    (tmp_path / "params.yaml").write_text(f"validate: {{labels: {labels}}}", encoding="utf-8")
    ran = dvc_reads((tmp_path / "params.yaml").read_text(encoding="utf-8"), "params.yaml")
    stages = {"train": {"cmd": "x", "params": {"params.yaml": ran}}}
    (tmp_path / "dvc.lock").write_text(dvc_writes({"schema": "2.0", "stages": stages}), encoding="utf-8")

    assert edited_params(tmp_path) == []


def test_stages_with_different_settings_are_reported(tmp_path: Path) -> None:
    """Train ran alone after an edit: its settings match params.yaml, those of the search do not."""
    stages = {name: {"params": {"params.yaml": {"train": {"epochs": epochs}}}} for name, epochs in (("tune", 3), ("train", 9), ("mine", 1))}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    (tmp_path / "params.yaml").write_text("train: {epochs: 9}", encoding="utf-8")

    assert edited_params(tmp_path) == ["train"]


def test_missing_lock_is_reported(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("task: x", encoding="utf-8")
    with pytest.raises(NotFound, match="no stage ran here yet"):
        edited_params(tmp_path)


def test_stage_with_newer_input_is_overtaken(tmp_path: Path) -> None:
    """Preprocess ran alone and changed `learn`; `test` is unchanged, and no stage writes the code."""
    stages = """
schema: '2.0'
stages:
  preprocess: {cmd: x, outs: [{path: data/learn, md5: new.dir}, {path: data/test, md5: same.dir}]}
  train: {cmd: x, deps: [{path: data/learn, md5: old.dir}, {path: data/raw, md5: r.dir}, {path: code.py, md5: c}]}
  evaluate: {cmd: x, deps: [{path: data/learn, md5: old.dir}, {path: data/test, md5: same.dir}, {path: data/raw, md5: other.dir}]}
  removed-long-ago: {cmd: x, deps: [{path: data/learn, md5: old.dir}]}
"""
    (tmp_path / "dvc.lock").write_text(stages, encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw.dvc").write_text("outs: [{path: raw, md5: r.dir}]", encoding="utf-8")

    assert overtaken_stages(tmp_path) == {"train": ["data/learn"], "evaluate": ["data/learn", "data/raw"]}


@pytest.mark.parametrize(
    "content", [b"\x00\x01garbage", b"\xff", b"hello", b"[1]", b"stages: 1", b"stages: {train: 1}", b"stages: {train: {outs: [1]}}"]
)
def test_damaged_lock_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dvc.lock").write_bytes(content)
    with pytest.raises(BadParams, match=r"dvc\.lock"):
        lock_hashes(tmp_path)


@pytest.mark.parametrize("content", ["", "outs", "outs: []", "outs: [1]", "outs: [{path: raw}]", "outs: [{md5: 1.5, path: raw}]", "x: ["])
def test_damaged_pointer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "dvc.lock").write_text("stages: {}", encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw.dvc").write_text(content, encoding="utf-8")
    with pytest.raises(BadParams, match=r"data/raw\.dvc"):
        lock_hashes(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dvc.lock", "\x01garbage", r"dvc\.lock is not YAML"),
        ("dvc.yaml", "stages: {}\nstages: {}\n", r"dvc\.yaml: the key 'stages' is in line 1 and again in line 2"),
    ],
)
def test_error_names_the_damaged_file(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo, outs: [x]}}", encoding="utf-8")
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=f"dvc status failed: .*{message}"):
        dvc(["status"], tmp_path, what="dvc status")


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", '{"read": '])
def test_incomplete_rwlock_is_removed(tmp_path: Path, content: str) -> None:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo, outs: [x]}}", encoding="utf-8")
    (tmp_path / ".dvc/tmp/rwlock").write_text(content, encoding="utf-8")

    assert any("one" in line for line in dvc(["status"], tmp_path, what="dvc status"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["write", "read"])
def test_killed_process_that_nobody_waited_for_does_not_block(tmp_path: Path, mode: str) -> None:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo > x, outs: [x]}}", encoding="utf-8")
    with subprocess.Popen(["sleep", "600"]) as killed:
        killed.kill()
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # it stays in the process table
        user, path = {"pid": killed.pid, "cmd": "dvc repro one"}, str(tmp_path / "x")
        used = {"write": {path: user}, "read": {}} if mode == "write" else {"write": {}, "read": {path: [user]}}
        (tmp_path / ".dvc/tmp/rwlock").write_text(json.dumps(used), encoding="utf-8")

        dvc(["repro", "one"], tmp_path, what="the stage one")

    assert (tmp_path / "x").exists()


CHAIN = """
stages:
  mine: {deps: [{path: data/learn, md5: l.dir}], outs: [{path: models/mine, md5: m}]}
  words: {deps: [{path: words.txt, md5: w}], outs: [{path: data/words, md5: w}]}
  validate: {deps: [{path: data/raw, md5: r.dir}], outs: [{path: data/validated, md5: v.dir}]}
  preprocess: {deps: [{path: data/validated/kept, md5: k}, {path: data/words, md5: w}], outs: [{path: data/learn, md5: l.dir}]}
  train: {deps: [{path: data, md5: d.dir}], outs: [{path: models/trained, md5: t.dir}]}
"""
OURS = ("validate", "preprocess", "train", "mine")


@pytest.mark.parametrize("order", [OURS, ("mine", *OURS[:3]), OURS[::-1]])
@pytest.mark.parametrize(
    ("changed", "unchanged"),
    [
        (set(), set(OURS)),
        ({"train"}, {"validate", "preprocess", "mine"}),
        ({"mine"}, {"validate", "preprocess", "train"}),
        ({"words"}, {"validate"}),
        ({"validate", "data/raw.dvc"}, set()),
        ({"elsewhere/dvc.yaml:other"}, set()),
    ],
)
def test_stage_without_changed_dependency_is_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...], changed: set[str], unchanged: set[str]
) -> None:
    monkeypatch.setattr(lock, "STAGES", order)
    (tmp_path / "dvc.lock").write_text(CHAIN, encoding="utf-8")

    assert unchanged_stages(tmp_path, changed) == unchanged


def test_stage_removed_from_dvc_yaml_is_ignored(tmp_path: Path) -> None:
    """DVC keeps a renamed stage in its lock, with the same output."""
    old = "  prepare: {outs: [{path: data/learn, md5: old.dir}]}\n"
    (tmp_path / "dvc.lock").write_text("stages:\n  preprocess: {outs: [{path: data/learn, md5: new.dir}]}\n" + old, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {preprocess: {cmd: x}}", encoding="utf-8")

    assert lock_hashes(tmp_path) == {"data/learn": "new.dir"}


def test_all_stages_of_the_projects_pipeline_are_known(tmp_path: Path) -> None:
    """dvc.yaml has paths as strings or mappings; the lock has mappings only."""
    pipeline = Path(__file__).parents[3] / "dvc.yaml"
    (tmp_path / "dvc.yaml").write_bytes(pipeline.read_bytes())
    stages = "".join(f"  {stage}: {{cmd: x, outs: [{{path: {stage}, md5: m}}]}}\n" for stage in (*lock.STAGES, "gone"))
    (tmp_path / "dvc.lock").write_text(f"stages:\n{stages}", encoding="utf-8")

    assert locked_stages(tmp_path) == set(lock.STAGES)
    assert unchanged_stages(tmp_path, {"evaluate"}) == {*lock.STAGES} - {"evaluate"}


@pytest.mark.parametrize("content", ["[a]", "stages: [a]", "stages: text"])
def test_pipeline_without_stages_mapping_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "dvc.lock").write_text("stages: {}", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(content, encoding="utf-8")

    with pytest.raises(BadParams, match=r"dvc\.yaml has no `stages`"):
        locked_stages(tmp_path)


def test_no_stage_is_unchanged_without_lock(tmp_path: Path) -> None:
    assert unchanged_stages(tmp_path, set()) == frozenset()
