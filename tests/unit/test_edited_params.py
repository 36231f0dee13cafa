"""Settings that were edited after a model was made are not recorded as those that it was made with."""

from pathlib import Path

import pytest

from flows.dvc import edited_params

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


def test_where_nothing_ran_nothing_was_edited(tmp_path: Path) -> None:
    assert edited_params(tmp_path) == []
