"""The contrastive start: its loss against the formula, the order of rows, its effect, and exact resumes in both phases."""

import json
import math
import warnings
from collections import Counter

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import set_seed

from components.core.errors import BadParams, RetuneError
from components.model import tasks
from components.model.support.layers import depths, head_depth
from components.training.trainer import TrainSection
from components.training.trainer.contrastive_warmup import pair_by_label, supervised_contrastive_loss
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from components.training.tune import TuneParams
from components.training.tune.objective import Search
from components.training.tune.study import open_study
from tests.support.families import FAMILIES, make_family
from tests.support.fits import QUICK, cut_and_resumed, interrupt_after, keep_in, same, weights
from tests.support.labelled import KINDS, METRIC
from tests.support.learn import make_learn
from tests.support.tiers import rest_exhaustive

pytestmark = pytest.mark.slow

task = tasks.load("text_classification")
START = QUICK.model_copy(update={"contrastive_start": 1.0, "epochs": 1.0})
STEPS_PER_EPOCH = 12  # steps of 180 rows in batches of 16


@pytest.fixture(scope="module")
def learn(tiny_base, tickets, tmp_path_factory):
    splits = PreparedSplits.read(make_learn(tmp_path_factory.mktemp("prepared") / "learn", tiny_base, tickets))
    assert math.ceil(len(splits.train) / QUICK.batch_size) == STEPS_PER_EPOCH
    return splits


def history(keep):
    return [json.loads(line) for line in keep.history.read_text().splitlines()]


def reference_loss(vectors, labels, temperature):
    """Return the loss by Khosla et al., equation 2, with explicit sums."""
    units = [vector / np.linalg.norm(vector) for vector in vectors]
    rows, losses = range(len(units)), []
    for row in rows:
        positives = [i for i in rows if i != row and labels[i] == labels[row]]
        total = sum(math.exp(units[row] @ units[i] / temperature) for i in rows if i != row)
        if positives:
            losses.append(-np.mean([math.log(math.exp(units[row] @ units[i] / temperature) / total) for i in positives]))
    return float(np.mean(losses))


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 0, 1]])
def test_loss_equals_the_formula(labels):
    vectors = np.random.default_rng(3).normal(size=(6, 4))
    loss = supervised_contrastive_loss(torch.tensor(vectors, requires_grad=True), torch.tensor(labels), 0.1)

    assert loss.item() == pytest.approx(reference_loss(vectors, labels, 0.1), rel=1e-5)


def test_gradient_step_lowers_triplet_losses():
    """A gradient step also lowers the loss of sentence-transformers over all triplets of the batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers.sentence_transformer.losses import BatchAllTripletLoss
    triplets = BatchAllTripletLoss(model=None, margin=1.0)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    vectors = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)), dim=1).requires_grad_()
    supervised_contrastive_loss(vectors, labels, 0.1).backward()
    stepped = torch.nn.functional.normalize(vectors.detach() - 0.1 * vectors.grad, dim=1)

    assert triplets.batch_all_triplet_loss(labels, stepped) < triplets.batch_all_triplet_loss(labels, vectors.detach())


@pytest.mark.parametrize("rows", [1, 4])
def test_rows_with_unique_labels_have_zero_loss_and_gradient(rows):
    vectors = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = supervised_contrastive_loss(vectors, torch.arange(rows), 0.1)
    loss.backward()

    assert loss.item() == 0
    assert (vectors.grad == 0).all()


def test_rows_are_paired_by_label():
    labels = [0] * 7 + [1] * 4 + [2] + [3] * 2
    orders = [pair_by_label(labels, torch.Generator().manual_seed(seed)) for seed in range(20)]

    assert all(sorted(order) == list(range(len(labels))) for order in orders)
    assert len({tuple(order) for order in orders}) == 20
    for order in orders:
        ordered = [labels[index] for index in order]
        single = [
            label for before, label, after in zip([-1, *ordered], ordered, [*ordered[1:], -1], strict=False) if label not in (before, after)
        ]
        assert Counter(single) == {2: 1}


def test_only_the_encoder_learns_in_the_start(tiny_base, learn, tmp_path):
    set_seed(START.seed)
    model = task.build_model(tiny_base, learn.spec)
    fresh, depth, head = weights(model), depths(model), head_depth(model)
    keep = keep_in(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        fit(task, tiny_base, learn, START, keep=keep, watch=interrupt_after(0))
    last = max(keep.checkpoints.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    assert last.name == f"checkpoint-{STEPS_PER_EPOCH}"
    saved = safetensors.torch.load_file(last / "model.safetensors")

    changed = {name for name in depth if not torch.equal(saved[name], fresh[name])}
    assert not any(depth[name] == head for name in changed)
    assert len(changed) > 0.9 * sum(layer < head for layer in depth.values())


def test_evaluations_begin_after_the_start(tiny_base, learn, tmp_path):
    settings = START.model_copy(update={"contrastive_start": 1.25, "patience": 1, "epochs": 2})
    keep = keep_in(tmp_path / "out")
    result = fit(task, tiny_base, learn, settings, keep=keep)
    points = history(keep)
    start = math.ceil(1.25 * STEPS_PER_EPOCH)

    evaluated = [point["step"] for point in points if "eval_accuracy" in point]
    assert evaluated[0] == start + STEPS_PER_EPOCH // 2
    assert all((step - start) % (STEPS_PER_EPOCH // 2) == 0 for step in evaluated)
    assert result.best_step in evaluated


def test_texts_with_the_same_label_get_closer(tiny_base, learn):
    settings = START.model_copy(update={"contrastive_start": 4.0, "epochs": 0.1, "learning_rate": 3e-3})
    before, after = (fit(task, tiny_base, learn, settings.model_copy(update=change)).model for change in ({"learning_rate": 1e-30}, {}))
    batch = task.collator(task.load_tokenizer(tiny_base), learn.spec)([learn.validation[i] for i in range(60)])
    labels = batch.pop("labels")
    with torch.no_grad():
        losses = [supervised_contrastive_loss(task.vectors(model.eval(), batch), labels, 0.1).item() for model in (before, after)]

    assert losses[0] > 4.0  # ln 59: all texts are alike
    assert losses[1] < 3.1  # ln 19: about twenty rows per label are equal, and far from the rest


PHASES = {
    "in the start": {"contrastive_start": 2.0},
    "after a part of an epoch": {"contrastive_start": 0.6},
    "with adapters": {"method": "lora", "lora_dropout": 0.1},
    "with everything else": {"ema": 0.9, "accumulation": 2, "dropout": 0.1, "r_drop": 0.5, "l2_sp": 0.1},
    "with a plateau": {"schedule": "plateau", "plateau_patience": 0, "method": "freeze", "frozen_layers": 1},
}


@pytest.mark.parametrize("variant", rest_exhaustive(PHASES, "with everything else"))
def test_resume_after_the_start_is_exact(tiny_base, learn, tmp_path, variant):
    settings = START.model_copy(update={"epochs": 2, **PHASES[variant]})
    expected, resumed = cut_and_resumed(task, tiny_base, learn, settings, tmp_path)

    assert same(weights(expected.model), weights(resumed.model))
    assert (resumed.best_step, resumed.best_value) == (expected.best_step, expected.best_value)
    assert not same(weights(expected.model), weights(fit(task, tiny_base, learn, QUICK, keep=keep_in(tmp_path / "plain")).model))


@pytest.mark.exhaustive
@pytest.mark.parametrize("variant", ["in the start", "with adapters"])
def test_resume_within_the_start_is_exact(tiny_base, learn, tmp_path, monkeypatch, variant):
    """Interrupt the pass after the first checkpoint, before any evaluation."""
    settings = START.model_copy(update={"evaluations_per_epoch": 4, **PHASES[variant]})
    expected = fit(task, tiny_base, learn, settings, keep=keep_in(tmp_path / "whole"))
    broken, real, calls = keep_in(tmp_path / "broken"), type(task).vectors, []

    def interrupt(self, model, inputs):
        calls.append(1)
        if len(calls) > 7:
            raise KeyboardInterrupt
        return real(self, model, inputs)

    with monkeypatch.context() as patched:
        patched.setattr(type(task), "vectors", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(task, tiny_base, learn, settings, keep=broken)
    resumed = fit(task, tiny_base, learn, settings, keep=broken)

    assert resumed.resumed == 6
    assert same(weights(expected.model), weights(resumed.model))
    assert (resumed.best_step, resumed.best_value) == (expected.best_step, expected.best_value)


@pytest.mark.exhaustive
def test_weights_depend_on_the_seed_only(tiny_base, learn):
    first, again, different = (weights(fit(task, tiny_base, learn, START.model_copy(update={"seed": seed})).model) for seed in (7, 7, 8))

    assert same(first, again)
    assert not same(first, different)


@pytest.mark.parametrize("family", rest_exhaustive(FAMILIES, "roberta", "gpt2", "xlnet"))
def test_every_family_has_vectors(family, tickets, tmp_path):
    (tmp_path / "base").mkdir()
    base = make_family(tmp_path / "base", family, sorted({word for text in tickets["text"] for word in text.split()}))
    small = PreparedSplits.read(make_learn(tmp_path / "learn", base, tickets.head(92), validation=60))
    settings = START.model_copy(update={"learning_rate": 1e-3})

    assert fit(task, base, small, settings).steps == 4


def test_vectors_use_the_pooling_option(tiny_base, learn):
    batch = task.collator(task.load_tokenizer(tiny_base), learn.spec)([learn.validation[i] for i in range(8)])
    batch.pop("labels")
    vectors = {}
    for pooling in ("cls", "mean"):
        pooled = tasks.load("text_classification", {"pooling": pooling})
        torch.manual_seed(0)
        model = pooled.build_model(tiny_base, learn.spec).eval()
        with torch.no_grad():
            vectors[pooling] = pooled.vectors(model, batch)
            assert torch.equal(model(**batch).logits, model.head(vectors[pooling]))

    assert not torch.allclose(vectors["cls"], vectors["mean"])


@pytest.mark.parametrize("how", ["cls", "mean"])
def test_vector_is_the_input_of_a_modernbert_head(tiny_base, learn, tmp_path, how):
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    sizes = {"vocab_size": len(task.load_tokenizer(tiny_base)), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    config = ModernBertConfig(**sizes, num_attention_heads=2, pad_token_id=0, classifier_pooling=how, reference_compile=False)
    model = ModernBertForSequenceClassification(config).eval()
    batch = task.collator(task.load_tokenizer(tiny_base), learn.spec)([learn.validation[i] for i in range(8)])
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    head_inputs = []
    model.head.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0]))
    with torch.no_grad():
        vectors = task.vectors(model, batch)

    assert torch.allclose(vectors, head_inputs[0], atol=1e-6)


@pytest.mark.parametrize(
    ("family", "settings", "how"),
    [
        ("EuroBertConfig", {"classifier_pooling": "bos"}, "cls"),
        ("EuroBertConfig", {"classifier_pooling": "late"}, "mean"),
        ("XLNetConfig", {"summary_type": "mean"}, "mean"),
        ("XLNetConfig", {}, "last"),
        ("FlaubertConfig", {"summary_type": "first"}, "cls"),
        ("CanineConfig", {}, "cls"),
        ("GPT2Config", {"summary_type": "cls_index"}, "last"),
    ],
)
def test_default_pooling_is_that_of_the_architecture(family, settings, how):
    import transformers

    from components.model.tasks.text_classification.model import _pooling

    assert _pooling(getattr(transformers, family)(**settings), "default") == how


def test_contrastive_start_can_be_searched(tiny_base, learn, tmp_path, monkeypatch):
    monkeypatch.setenv("RETUNE_VAR", str(tmp_path / "var"))
    space = {"contrastive_start": {"type": "categorical", "choices": [0.0, 1.0]}}
    settings = {
        "initial_trial": {"contrastive_start": 1.0},
        "space": space,
        "trials": 2,
        "explore": 2,
        "metric": "accuracy",
        "prune_after": 2,
    }
    section = TrainSection.parse({**QUICK.model_dump(), "contrastive_start": "tuned"}, "train")
    parsed = TuneParams.parse(settings, "tune")
    with open_study("contrast", parsed, parsed.initial_trial) as study:
        Search(task, {"model": tiny_base}, {"model": learn}, parsed, section, dict(parsed.space)).run(study)
        trials = study.trials

    assert trials[0].params == {"contrastive_start": 1.0}
    assert [len(trial.intermediate_values) for trial in trials] == [2, 2]


def test_time_limit_within_the_start_is_an_error(tiny_base, learn, tmp_path):
    with pytest.raises(RetuneError, match=r"stopped in step 1 of the 12 of train\.contrastive_start"):
        fit(task, tiny_base, learn, START.model_copy(update={"max_minutes": 1e-9}), keep=keep_in(tmp_path / "out"))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"batch_size": 1}, "contrastive_start: compares the rows of a batch, found batch_size 1"),
        ({"method": "freeze", "frozen_layers": -1}, "contrastive_start: has no effect if frozen_layers is -1"),
        ({"swa": 0.6, "schedule": "constant", "epochs": 1}, "swa: would also average steps of contrastive_start, found 0.6 of 2 epochs"),
    ],
)
def test_conflicting_settings_are_refused(settings, reason):
    with pytest.raises(BadParams, match=reason):
        TrainSection.parse({"contrastive_start": 1.0, **settings}, "train")


def test_frozen_layers_are_refused(tiny_base, learn):
    with pytest.raises(BadParams, match=r"contrastive_start has no effect: train\.frozen_layers freezes all layers"):
        fit(task, tiny_base, learn, START.model_copy(update={"method": "freeze", "frozen_layers": 2}))


def test_every_task_has_vectors_or_refuses():
    tasks_without = [tasks.load(name) for name in tasks.available() if name != "text_classification"]
    kinds = [tasks.load("text_classification", options) for kind, options in KINDS.items() if kind != "single"]

    assert len(tasks_without) >= 6
    assert len(kinds) == len(METRIC) - 1
    assert all(each.unsupported_settings["contrastive_start"] for each in [*tasks_without, *kinds])
    assert "contrastive_start" not in task.unsupported_settings


def test_refusing_task_gives_the_reason(tiny_base, learn):
    with pytest.raises(BadParams, match=r"train\.contrastive_start is set, and the task refuses it: rows with numbers do not share"):
        fit(tasks.load("text_classification", KINDS["regression"]), tiny_base, learn, START.model_copy(update={"metric": "r2"}))
