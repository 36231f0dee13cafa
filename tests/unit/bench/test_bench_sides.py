"""Each alternative of the bench of automatic fine-tuning answers a small problem."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench import _sides
from bench._problem import HELD_OUT, Problem, read_answers
from tests.support.labelled import contrastive_rows, tagged
from tests.support.tickets import WORDS, make_tickets
from tests.support.tiny import make_tiny_base

KINDS: dict[str, dict[str, Any]] = {
    "single": {"task": "text_classification", "options": {}, "metric": "macro_f1"},
    "tags": {"task": "token_classification", "options": {}, "metric": "entity_f1"},
    "vectors": {"task": "contrastive", "options": {"pooling": "mean"}, "metric": "mrr"},
}


def rows_of(kind: str) -> pd.DataFrame:
    rows = {"single": lambda tickets: tickets, "tags": tagged, "vectors": contrastive_rows}[kind](make_tickets())
    return rows.assign(split=np.repeat(["train", "validation", "test"], np.array([2, 1, 1]) * len(rows) // 4))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"), WORDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "kind", "minutes"),
    [
        ("tfidf", "single", 1.0),
        ("tfidf", "tags", 1.0),
        ("tfidf", "vectors", 1.0),
        ("probe", "single", 1.0),
        ("probe", "tags", 1.0),
        ("trainer", "single", 1.0),
        ("trainer", "tags", 1.0),
        ("trainer", "vectors", 1.0),
        ("optuna", "single", 0.03),
    ],
)
def test_side_answers(side: str, kind: str, minutes: float, base: Path, tmp_path: Path) -> None:
    problem = Problem(**KINDS[kind], max_length=16, base=str(base), minutes=minutes, seed=0, rows=rows_of(kind))
    problem.write(tmp_path)
    _sides.main(side, str(tmp_path), str(tmp_path / "out.json"))
    answers, more = read_answers(tmp_path / "out.json")
    assert all(np.isfinite(problem.score(split, answers[split])) for split in HELD_OUT)
    assert 0 <= more["seconds"] < 60


def test_side_without_a_model_does_not_apply(base: Path, tmp_path: Path) -> None:
    Problem(**KINDS["vectors"], max_length=16, base=str(base), minutes=1.0, seed=0, rows=rows_of("vectors")).write(tmp_path)
    with pytest.raises(_sides.NotApplicable):
        _sides.main("optuna", str(tmp_path), str(tmp_path / "out.json"))
