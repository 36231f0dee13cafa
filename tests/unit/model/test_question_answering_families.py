"""Question answering with every encoder family and its tokenizer."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from components.artifacts.training import ModelSpec
from components.model import tasks
from components.model.tasks.question_answering.answers import Span
from components.model.tasks.question_answering.features import features
from components.training.trainer.data import Encoded
from tests.support.question_answering_families import FAMILIES, make_family
from tests.support.tickets import FILLER

pytestmark = pytest.mark.exhaustive

task = tasks.load("question_answering", {"stride": 4, "unanswerable": True})
SPEC = ModelSpec(task="question_answering", labels=(), max_length=24, unicode_form="NFC", options=task.options.model_dump())


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory):
    return make_family(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def rows():
    """Return contexts of up to 40 words with the answer at varying positions."""
    cells = []
    for number in range(24):
        words = [*(FILLER * 3)[number : number + 4 + number], "router", "cable", *FILLER[: number % 5]]
        context = " ".join(words)
        cell = {"text": ["router cable"], "answer_start": [context.index("router")]} if number % 4 else {}
        cells.append(
            {"id": f"{number}", "group": f"g{number}", "question": "help with that", "context": context, "answers": json.dumps(cell)}
        )
    read, faults = task.read(pd.DataFrame(cells))
    assert not faults
    return read


def test_tokens_map_to_characters_and_back(base, rows):
    tokenizer = task.load_tokenizer(base)
    located = set()
    for piece in features(rows["question"].tolist(), rows["context"].tolist(), tokenizer, 24, 4):
        context, ids = rows["context"].iloc[piece.row], piece.inputs["input_ids"]
        location = piece.locate(Span("router cable", context.index("router")))
        if location is not None:
            located.add(piece.row)
            (begin, _), (_, end) = piece.offsets[[location[0] - piece.first, location[1] - piece.first]]
            assert context[begin:end].strip() == "router cable"
            assert tokenizer.decode(ids[location[0] : location[1] + 1]).strip() == "router cable"
        assert ids[piece.no_answer] == tokenizer.cls_token_id
        assert len(ids) <= 24
    assert located == set(range(24))


def test_family_trains_and_reloads(base, rows, tmp_path):
    tokenizer = task.load_tokenizer(base)
    torch.manual_seed(1)
    model = task.build_model(base, SPEC)
    table = Encoded(task.encode(rows, tokenizer, SPEC))
    batch = task.collator(tokenizer, SPEC)([table[index] for index in range(16)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        output = model(**batch)
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    model.eval().save_pretrained(tmp_path / "model")
    task.load_tokenizer(base).save_pretrained(tmp_path / "model")
    SPEC.write(tmp_path / "model")

    assert losses[-1] < 0.9 * losses[0]
    predictor, again = task.predictor(tmp_path / "model"), task.build_model(tmp_path / "model", SPEC).eval()
    with torch.no_grad():
        expected, reloaded = model(**batch), again(**batch)
    assert torch.equal(expected.start_logits, reloaded.start_logits)
    assert torch.equal(expected.end_logits, reloaded.end_logits)
    together = predictor.spans(rows)
    assert len({round(span.score, 5) for span in together}) > 12
    for index, span in enumerate(together):
        (alone,) = predictor.spans(rows.iloc[[index]])
        assert (alone.text, alone.start) == (span.text, span.start)
        assert (alone.score, alone.margin) == pytest.approx((span.score, span.margin), abs=1e-4)
        assert rows["context"].iloc[index][span.start : span.end] == span.text


def test_padding_does_not_shift_labels(base, rows):
    tokenizer = task.load_tokenizer(base)
    table = Encoded(task.encode(rows, tokenizer, SPEC))
    batch = task.collator(tokenizer, SPEC)([table[index] for index in range(len(table))])
    ids = batch["input_ids"]
    spans = [
        tokenizer.decode(row[first : last + 1]).strip()
        for row, first, last in zip(ids, batch["start_positions"], batch["end_positions"], strict=True)
    ]

    assert {*spans} == {"router cable", tokenizer.cls_token}
    assert np.ptp(table.lengths) > 0
