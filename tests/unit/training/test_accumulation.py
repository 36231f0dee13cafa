"""A step of several passes has the gradient of one pass over all its rows, for every task and every loss."""

import json

import pytest
import torch
from transformers import TrainingArguments

from components.model import tasks
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import _trainer, fit
from tests.support import cases
from tests.support.fits import QUICK
from tests.support.learn import make_learn
from tests.support.tickets import make_tickets

ROWS = 8
TEXT = "text_classification"
VARIANTS = {
    "classes": (TEXT, {}, {}),
    "weighted classes, smoothed": (TEXT, {"class_weights": "balanced"}, {"label_smoothing": 0.1}),
    "smoothed classes": (TEXT, {}, {"label_smoothing": 0.1}),
    "classes, two passes with dropout": (TEXT, {}, {"r_drop": 2.0}),
    "penalties": (TEXT, {}, {"l1": 1e-3, "l2_sp": 0.5}),
    "many labels": (TEXT, {"kind": "multi", "class_weights": "balanced"}, {}),
    "levels": (TEXT, {"kind": "ordinal"}, {}),
    "weighted levels, two passes": (TEXT, {"kind": "ordinal", "class_weights": "balanced"}, {"r_drop": 2.0}),
    "numbers": (TEXT, {"kind": "regression"}, {}),
    "tags": ("token_classification", {}, {}),
    "smoothed tags, two passes": ("token_classification", {}, {"label_smoothing": 0.1, "r_drop": 2.0}),
    "tags with a CRF": ("token_classification", {"head": "crf"}, {}),
    "answers": ("question_answering", {}, {}),
    "targets": ("sequence_to_sequence", {}, {}),
    "smoothed targets": ("sequence_to_sequence", {}, {"label_smoothing": 0.1}),
    "continued texts": ("causal_lm", {"data": "chat", "max_new_tokens": 4}, {}),
    "packed texts": ("causal_lm", {"data": "chat", "packing": True, "max_new_tokens": 4}, {"label_smoothing": 0.1}),
    "masked words": ("masked_lm", {}, {}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    made_cases = {}

    def make(name):
        if name not in made_cases:
            made_cases[name] = cases.make(name, tmp_path_factory.mktemp(name))
        return made_cases[name]

    return make


def rows_for(case, task, options):
    """Return rows of the case with different lengths, and labels of the task option `kind`."""
    if case.task != TEXT:
        rows = case.rows.head(ROWS + 2).copy()
        if case.task == "token_classification":
            for index in range(1, len(rows), 2):
                for name in ("tokens", "tags"):
                    rows.loc[rows.index[index], name] = json.dumps(json.loads(rows[name].iloc[index])[: 1 + index // 4])
    else:
        rows = make_tickets().iloc[:: 240 // (ROWS + 2)].head(ROWS + 2).copy()
        rows["text"] = [" ".join(text.split()[: 2 + index % 6]) for index, text in enumerate(rows["text"])]
        if options.get("kind") in ("ordinal", "regression"):
            rows["label"] = [str((0, 0, 1, 3, 3, 3, 2, 0)[index % 8]) for index in range(len(rows))]
        elif options.get("kind") == "multi":
            rows["label"] = [("a;b", "a", "b;c", "c", "a;b;c")[index % 5] for index in range(len(rows))]
    if "id" not in rows:
        rows["id"] = [f"r{index}" for index in range(len(rows))]
    return task.read(rows.assign(group=rows["id"]).reset_index(drop=True))[0]


def gradient(trainer, rows, size):
    trainer.model.zero_grad()
    batches = [trainer.data_collator(rows[start : start + size]) for start in range(0, len(rows), size)]
    samples, items = trainer.get_batch_samples(iter(batches), len(batches), torch.device("cpu"))
    loss = sum(trainer.training_step(trainer.model, dict(batch), items) for batch in samples)
    gradients = {name: weights.grad.clone() for name, weights in trainer.model.named_parameters() if weights.grad is not None}
    return float(loss), gradients


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_accumulated_passes_equal_one_pass(made, tmp_path, variant):
    name, options, changes = VARIANTS[variant]
    case = made(name)
    task = tasks.load(name, options)
    learn = PreparedSplits.read(make_learn(tmp_path / "learn", case.base, rows_for(case, task, options), 2, name, options, max_length=40))
    settings = QUICK.model_copy(update={"metric": task.validation_metrics[0], "dropout": 0.0, **changes})
    smoothed = {"label_smoothing_factor": settings.label_smoothing, "use_cpu": True, "report_to": "none", "remove_unused_columns": False}
    trainer = _trainer(task, case.base, learn, settings, TrainingArguments(str(tmp_path), **smoothed), [], None)
    rows = [learn.train[index] for index in range(len(learn.train))][:ROWS]
    loss, expected = gradient(trainer, rows, len(rows))
    length = torch.cat([tensor.flatten() for tensor in expected.values()]).norm()

    assert length > 1e-3
    for size in {-(-len(rows) // passes) for passes in (2, 4, 8)}:
        actual_loss, actual = gradient(trainer, rows, size)
        difference = torch.cat([(actual[name] - expected[name]).flatten() for name in expected]).norm()
        assert difference < 1e-4 * length, (size, float(difference / length))  # float32 sums in a different order
        assert actual_loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_in_batch_negatives_with_accumulation_warn(made, tmp_path, accumulation, caplog):
    case = made("contrastive")
    task = tasks.load("contrastive")
    learn = PreparedSplits.read(make_learn(tmp_path / "learn", case.base, rows_for(case, task, {}), 2, "contrastive", {}, max_length=20))
    settings = QUICK.model_copy(update={"metric": "mrr", "epochs": 1, "batch_size": 4, "accumulation": accumulation})
    with caplog.at_level("WARNING"):
        fit(task, case.base, learn, settings)

    assert any("rows are compared within a forward pass of 4" in record.message for record in caplog.records) == (accumulation > 1)
