"""Token classification with every encoder family and its tokenizer: the model trains, is saved and reloads."""

import json

import pandas as pd
import pytest

from components.artifacts.training import ModelSpec
from components.model import tasks
from components.training.trainer.data import Encoded, PreparedSplits
from components.training.trainer.fit import fit
from tests.support.fits import QUICK, keep_in
from tests.support.token_classification_families import FAMILIES, make_family

pytestmark = pytest.mark.exhaustive

SENTENCES = [
    (["Ada", "Lovelace", "met", "Charles", "."], ["B-PER", "I-PER", "O", "B-PER", "O"]),
    (["London", "is", "(", "still", ")", "a", "town"], ["B-LOC", "O", "O", "O", "O", "O", "O"]),
    (["", "Grace", "Hopper's", "\u200b", "London"], ["O", "B-PER", "I-PER", "O", "B-LOC"]),
    (["Charles"], ["B-PER"]),
] * 8


@pytest.fixture(params=FAMILIES)
def base(request, tmp_path):
    return make_family(tmp_path / "base", request.param, [" ".join(words) for words, _ in SENTENCES])


@pytest.fixture(scope="module")
def rows():
    cells = [{"tokens": json.dumps(words), "tags": json.dumps(tags)} for words, tags in SENTENCES]
    return tasks.load("token_classification").read(pd.DataFrame(cells, dtype="str"))[0]


@pytest.mark.parametrize("head", ["linear", "crf"])
def test_family_trains_and_reloads(base, rows, tmp_path, head):
    task = tasks.load("token_classification", {"head": head})
    tokenizer = task.load_tokenizer(base)
    options = task.options.model_dump()
    spec = ModelSpec(task="token_classification", labels=task.labels_of(rows), max_length=32, unicode_form="NFC", options=options)
    learn = PreparedSplits(spec, Encoded(task.encode(rows, tokenizer, spec)), Encoded(task.encode(rows[:8], tokenizer, spec)))
    settings = QUICK.model_copy(update={"metric": "entity_f1", "epochs": 8, "batch_size": 8, "evaluations_per_epoch": 1})
    outcome = fit(task, base, learn, settings, keep=keep_in(tmp_path / "kept"))  # with the weights of the best evaluation
    outcome.model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    spec.write(tmp_path / "model")
    answered = task.predictor(tmp_path / "model").answer(rows[["tokens"]])
    measured = task.statistics(rows["label"].tolist(), answered.predicted)

    assert outcome.best_value > 0.5
    assert task.longest_input(base, tokenizer) == 36
    assert [len(answer.split()) for answer in answered.predicted] == [len(words) for words, _ in SENTENCES]
    assert task.test_metrics["entity_f1"].of(measured) == pytest.approx(outcome.best_value)
    alone = [task.predictor(tmp_path / "model").answer(rows[["tokens"]].iloc[[index]]).predicted[0] for index in range(4)]
    assert alone == answered.predicted[:4]
