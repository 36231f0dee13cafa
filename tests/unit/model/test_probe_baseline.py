import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from components.model import tasks
from components.model.support import probe_baseline
from tests.support.labelled import predict_baselines
from tests.support.learn import spec_of

LABELS = ("billing", "device", "network")
TASK = tasks.load("text_classification")


@pytest.fixture
def broken_base(tiny_base: Path, tmp_path: Path) -> Path:
    """Return a base model whose features are NaN."""
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    weights = load_file(folder / "model.safetensors")
    save_file({name: np.full_like(values, np.nan) for name, values in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_probe_equals_tfidf_if_the_features_are_invalid(broken_base, tickets, caplog):
    with caplog.at_level(logging.WARNING):
        outputs = predict_baselines(TASK, tickets.head(60), tickets.tail(20), spec_of(*LABELS), broken_base)

    assert outputs["probe"].predicted == outputs["tfidf"].predicted
    assert "there is no linear probe" in caplog.text


def test_class_weights_of_the_candidate_do_not_matter(tiny_base, tickets):
    spec = spec_of(*LABELS)
    weighted = spec.model_copy(update={"options": {"class_weights": {"billing": 100.0}}, "temperature": 3.0})
    first, second = (predict_baselines(TASK, tickets.head(90), tickets, each, tiny_base)["probe"] for each in (spec, weighted))

    assert np.array_equal(first.probabilities, second.probabilities)


def test_many_tokens_are_sampled_by_group(monkeypatch):
    monkeypatch.setattr(probe_baseline, "_MOST_TOKENS", 100)
    rows = pd.DataFrame({"group": [f"g{row // 4}" for row in range(60)]})

    kept = probe_baseline._sample(rows, np.full(60, 5))

    assert len(kept) == 20
    assert sorted(rows["group"].iloc[kept].value_counts()) == [4] * 5
    assert probe_baseline._sample(rows, np.full(60, 1)).tolist() == list(range(60))
