"""Biases per class that raise macro-F1."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec, Training
from components.artifacts.tuning_result import TunedSettings
from components.core.errors import BadParams
from components.model import tasks
from components.training.train import check_after_training, train
from components.training.trainer import TrainParams, TrainSection
from components.training.trainer.class_biases import add_biases, fit_class_biases
from tests.support.learn import make_learn
from tests.support.tickets import TOPICS

WRITTEN = {"batch_size": 16, "threads": 1, "precision": "float32", "patience": 0, "epochs": 6, "learning_rate": 3e-3}


def imbalanced(rows, ratio, seed):
    """Return well-calibrated logits (rows, 3), labels, and the counts of the classes in the training rows."""
    generator = np.random.default_rng(seed)
    shares = np.array([ratio, 1, 1]) / (ratio + 2)
    labels = generator.choice(3, rows, p=shares)
    evidence = generator.normal(0, 1.0, (rows, 3)) + 1.0 * np.eye(3)[labels]
    return evidence + np.log(shares), labels, np.round(1000 * shares).astype(np.int64)


def alone(rows):
    return [str(index) for index in range(rows)]


def test_biases_raise_macro_f1_of_new_rows():
    logits, labels, counts = imbalanced(1000, 10, 0)
    fitted = fit_class_biases(logits, labels, alone(1000), counts)
    fresh, expected, _ = imbalanced(20_000, 10, 1)
    before, after = (f1_score(expected, (fresh + shift).argmax(axis=1), average="macro") for shift in (0, fitted.values))

    assert after - before > 0.03
    assert fitted.gain > fitted.error / 2
    assert fitted.values[0] < fitted.values[1]


def test_balanced_classes_get_no_biases():
    logits, labels, counts = imbalanced(1000, 1, 0)

    assert not fit_class_biases(logits, labels, alone(1000), counts).values.any()


def test_model_that_already_favours_rare_classes_gets_no_biases():
    logits, labels, counts = imbalanced(1000, 10, 0)
    weighted = logits - np.log(counts / counts.sum())

    assert not fit_class_biases(weighted, labels, alone(1000), counts).values.any()


def test_fit_is_deterministic():
    logits, labels, counts = imbalanced(300, 5, 0)
    fits = [fit_class_biases(logits, labels, alone(300), counts).values.tobytes() for _ in range(2)]

    assert fits[0] == fits[1]


def test_rows_of_a_group_share_a_fold():
    logits, labels, counts = imbalanced(200, 5, 0)
    copies = [np.concatenate([part, part]) for part in (logits, labels)]
    groups = [*alone(200), *alone(200)]

    assert fit_class_biases(*copies, groups, counts).error > fit_class_biases(*copies, alone(400), counts).error


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_rows_give_finite_values(rows):
    logits, labels, counts = imbalanced(rows, 5, 0)

    assert np.isfinite(fit_class_biases(logits, labels, alone(rows), counts).values).all()


class Net(torch.nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.body, self.out = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3, bias=bias)

    @property
    def base_model(self):
        return self.body


def test_biases_change_the_logits_by_themselves():
    model, inputs = Net(True), torch.zeros(1, 4)
    before = model.out(inputs)

    assert add_biases(model, np.array([1.0, 0.0, -0.5]))
    assert torch.allclose(model.out(inputs) - before, torch.tensor([[1.0, 0.0, -0.5]]))
    assert not add_biases(Net(False), np.ones(3))


def noisy_tickets():
    """Return 600 tickets, most of one class, whose words often belong to another class."""
    generator = np.random.default_rng(0)
    names = sorted(TOPICS)
    labels = generator.choice(names, 600, p=[0.8, 0.1, 0.1])
    topics = np.where(generator.random((600, 3)) < 0.35, labels[:, None], generator.choice(names, (600, 3)))
    texts = [" ".join(generator.choice(TOPICS[topic]) for topic in row) for row in topics]
    numbers = alone(600)
    return pd.DataFrame({"id": numbers, "group": numbers, "text": texts, "label": labels})


@pytest.mark.slow
def test_trained_model_contains_its_biases(tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn = make_learn(tmp_path / "learn", tiny_base, noisy_tickets(), validation=200)
    TunedSettings(settings={}).write(tmp_path)
    records = {}
    for setting in ("none", "fitted"):
        section = TrainSection.parse(WRITTEN | {"class_biases": setting}, "train")
        train(learn, tiny_base, tmp_path, tmp_path / setting, task="text_classification", train=section)
        records[setting] = Training.read(tmp_path / setting)
    labels, texts = ModelSpec.read(learn).labels, read_rows(learn / "validation.parquet")["text"].tolist()
    plain, shifted = (
        np.log(tasks.load("text_classification").predictor(tmp_path / name / "model").probabilities(texts)) for name in records
    )
    biases = np.array([records["fitted"].class_biases.get(label, 0.0) for label in labels])
    moved = (shifted - plain) - (shifted - plain)[:, :1]

    assert biases.any()
    assert records["none"].macro_f1_gain is None
    assert records["fitted"].macro_f1_gain is not None
    assert moved == pytest.approx(np.tile(biases - biases[0], (len(texts), 1)), abs=1e-4)


def test_task_without_classes_is_refused():
    task = tasks.load("text_classification", {"kind": "regression"})
    with pytest.raises(BadParams, match=r"train\.class_biases is fitted, .* a number has no label distribution"):
        check_after_training("text_classification", task, TrainParams(class_biases="fitted"))
