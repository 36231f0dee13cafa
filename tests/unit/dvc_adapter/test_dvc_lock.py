"""Settings that were edited after a model was made are not recorded as those that it was made with."""

from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import dumps_yaml as dvc_writes
from dvc.utils.serialize import parse_yaml as dvc_reads

from components.core.errors import BadInput, BadParams, NotFound
from flows.dvc_adapter import lock
from flows.dvc_adapter.lock import edited_params, lock_hashes, locked, overtaken_stages, settled_stages
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
def test_sections_that_a_stage_ran_with_are_compared(tmp_path: Path, params: str, edited: list[str]) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK, encoding="utf-8")
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")

    assert edited_params(tmp_path) == edited


@pytest.mark.parametrize("labels", ['["yes", "no"]', "[yes, no]", '["1:30", "010"]', "[010, 2026-01-01]", '["on", "off", "1e5"]'])
def test_settings_that_dvc_writes_otherwise_are_not_edited(tmp_path: Path, labels: str) -> None:
    (tmp_path / "params.yaml").write_text(f"validate: {{labels: {labels}}}", encoding="utf-8")
    ran = dvc_reads((tmp_path / "params.yaml").read_text(encoding="utf-8"), "params.yaml")
    stages = {"train": {"cmd": "x", "params": {"params.yaml": ran}}}
    (tmp_path / "dvc.lock").write_text(dvc_writes({"schema": "2.0", "stages": stages}), encoding="utf-8")

    assert edited_params(tmp_path) == []


def test_a_stage_that_ran_with_other_settings_than_the_next_is_told(tmp_path: Path) -> None:
    """Train ran alone after an edit: its settings are those of params.yaml, and the search's are not."""
    stages = {name: {"params": {"params.yaml": {"train": {"epochs": epochs}}}} for name, epochs in (("tune", 3), ("train", 9), ("mine", 1))}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    (tmp_path / "params.yaml").write_text("train: {epochs: 9}", encoding="utf-8")

    assert edited_params(tmp_path) == ["train"]


def test_where_nothing_ran_there_is_nothing_to_compare(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("task: x", encoding="utf-8")
    with pytest.raises(NotFound, match="nothing was made here yet"):
        edited_params(tmp_path)


def test_a_stage_that_ran_before_its_input_was_made_anew_is_overtaken(tmp_path: Path) -> None:
    """Preprocess ran alone, and made another `learn`; `test` is as it was, and the code of a stage is nobody's output."""
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
def test_a_damaged_lock_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dvc.lock").write_bytes(content)
    with pytest.raises(BadParams, match=r"dvc\.lock"):
        lock_hashes(tmp_path)


@pytest.mark.parametrize("content", ["", "outs", "outs: []", "outs: [1]", "outs: [{path: raw}]", "outs: [{md5: 1.5, path: raw}]", "x: ["])
def test_a_damaged_pointer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "dvc.lock").write_text("stages: {}", encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw.dvc").write_text(content, encoding="utf-8")
    with pytest.raises(BadParams, match=r"data/raw\.dvc"):
        lock_hashes(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("dvc.lock", "\x01garbage", r"dvc\.lock is not YAML"),
        ("dvc.yaml", "stages: {}\nstages: {}\n", r"dvc\.yaml: the key 'stages' is in line 1 and again in line 2"),
    ],
)
def test_dvc_is_told_which_file_is_damaged(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo, outs: [x]}}", encoding="utf-8")
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=f"dvc status failed: .*{told}"):
        dvc(["status"], tmp_path, what="dvc status")


@pytest.mark.parametrize("content", ["", '{"read": '])
def test_a_torn_list_of_paths_in_use_is_removed(tmp_path: Path, content: str) -> None:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: echo, outs: [x]}}", encoding="utf-8")
    (tmp_path / ".dvc/tmp/rwlock").write_text(content, encoding="utf-8")

    assert any("one" in line for line in dvc(["status"], tmp_path, what="dvc status"))


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
    ("changed", "stand"),
    [
        (set(), set(OURS)),
        ({"train"}, {"validate", "preprocess", "mine"}),
        ({"mine"}, {"validate", "preprocess", "train"}),
        ({"words"}, {"validate"}),
        ({"validate", "data/raw.dvc"}, set()),
        ({"elsewhere/dvc.yaml:other"}, set()),
    ],
)
def test_a_stage_stands_where_nothing_it_hangs_on_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...], changed: set[str], stand: set[str]
) -> None:
    monkeypatch.setattr(lock, "STAGES", order)
    (tmp_path / "dvc.lock").write_text(CHAIN, encoding="utf-8")

    assert settled_stages(tmp_path, changed) == stand


def test_a_stage_that_dvc_yaml_lost_says_nothing(tmp_path: Path) -> None:
    """DVC keeps it in its lock; under its old name it wrote what another stage writes now."""
    old = "  prepare: {outs: [{path: data/learn, md5: old.dir}]}\n"
    (tmp_path / "dvc.lock").write_text("stages:\n  preprocess: {outs: [{path: data/learn, md5: new.dir}]}\n" + old, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {preprocess: {cmd: x}}", encoding="utf-8")

    assert lock_hashes(tmp_path) == {"data/learn": "new.dir"}


def test_the_projects_own_pipeline_hides_none_of_its_stages(tmp_path: Path) -> None:
    """It writes paths as texts, with and without settings of theirs; the lock writes mappings."""
    pipeline = Path(__file__).parents[3] / "dvc.yaml"
    (tmp_path / "dvc.yaml").write_bytes(pipeline.read_bytes())
    stages = "".join(f"  {stage}: {{cmd: x, outs: [{{path: {stage}, md5: m}}]}}\n" for stage in (*lock.STAGES, "gone"))
    (tmp_path / "dvc.lock").write_text(f"stages:\n{stages}", encoding="utf-8")

    assert locked(tmp_path) == set(lock.STAGES)
    assert settled_stages(tmp_path, {"evaluate"}) == {*lock.STAGES} - {"evaluate"}


@pytest.mark.parametrize("content", ["[a]", "stages: [a]", "stages: text"])
def test_a_pipeline_without_a_mapping_of_stages_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "dvc.lock").write_text("stages: {}", encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(content, encoding="utf-8")

    with pytest.raises(BadParams, match=r"dvc\.yaml has no `stages`"):
        locked(tmp_path)


def test_without_a_lock_no_stage_stands(tmp_path: Path) -> None:
    assert settled_stages(tmp_path, set()) == frozenset()
