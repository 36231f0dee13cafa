"""Token classification with both heads and every method on two-layer models."""

import json
import random
import statistics
from string import ascii_lowercase
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from components.artifacts.predictions import Predictions
from components.artifacts.training import ModelSpec
from components.core.errors import BadData, BadModel, BadParams
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.step import prepare
from components.model import tasks
from components.model.tasks.token_classification.encoding import IGNORED, parts_of
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.labelled import predict_baselines
from tests.support.learn import make_learn
from tests.support.tiny import make_tiny_base

FIRST, LAST, CITIES = ["ada", "alan", "grace", "kurt"], ["lovelace", "turing", "hopper", "godel"], ["london", "paris", "vienna"]
FILLER = ["met", "in", "the", "old", "town", "of", "with", "and", "left", "for", "may", "he", "she", "saw"]
METHODS = {"full": {}, "freeze": {"method": "freeze", "frozen_layers": 1}, "lora": {"method": "lora", "lora_rank": 4}}
HEADS = ("linear", "crf")


def sentence(rng):
    """Words and tags of people with one or two names, and of cities, among words that mean nothing."""
    parts = [
        ([rng.choice(FIRST)], ["B-PER"]),
        ([rng.choice(FIRST), rng.choice(LAST)], ["B-PER", "I-PER"]),
        ([rng.choice(CITIES)], ["B-LOC"]),
    ]
    chosen = [rng.choice([*parts, ([rng.choice(FILLER)], ["O"])]) for _ in range(rng.randint(1, 5))]
    return [word for words, _ in chosen for word in words], [tag for _, tags in chosen for tag in tags]


def task(**options):
    return tasks.load("token_classification", options)


def spec_for(kind, rows, max_length=16):
    options = kind.options.model_dump()
    return ModelSpec(task="token_classification", labels=kind.labels_of(rows), max_length=max_length, unicode_form="NFC", options=options)


@pytest.fixture(scope="module")
def rows():
    rng = random.Random(2)
    sentences = [sentence(rng) for _ in range(240)]
    cells = [{"id": f"r{n:03d}", "group": f"g{n // 3}", "tokens": json.dumps(w), "tags": " ".join(t)} for n, (w, t) in enumerate(sentences)]
    read, faults = task().read(pd.DataFrame(cells, dtype="str"))
    assert not faults
    return read


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_base(tmp_path_factory.mktemp("words"), [*FIRST, *LAST, *CITIES, *FILLER, *map("##{}".format, ascii_lowercase)])


@pytest.fixture(scope="module")
def learn_of(base, rows, tmp_path_factory):
    folders = {}

    def learn(head):
        if head not in folders:
            folder = tmp_path_factory.mktemp("prepared") / "learn"
            folders[head] = make_learn(folder, base, rows, name="token_classification", options={"head": head})
        return PreparedSplits.read(folders[head])

    return learn


def settings_for(method, **changes):
    return QUICK.model_copy(update={"metric": "entity_f1", "epochs": 1} | METHODS[method] | changes)


@pytest.mark.exhaustive
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_reloads(base, learn_of, rows, tmp_path, method, head):
    tagging, keep = task(head=head), keep_in(tmp_path / "out")
    outcome = fit(tagging, base, learn_of(head), settings_for(method, epochs=6, learning_rate=2e-2), keep=keep)
    losses = [point["loss"] for point in map(json.loads, keep.history.read_text().splitlines()) if "loss" in point]
    answered = save_and_load(outcome.model, base, learn_of(head).spec, tmp_path / "model").answer(rows)
    statistics_of_rows = tagging.statistics(rows["label"].tolist(), answered.predicted)

    assert statistics.fmean(losses[-5:]) < 0.5 * losses[0]
    assert outcome.best_value > 0.6
    assert tagging.test_metrics["entity_f1"].of(statistics_of_rows) > 0.6
    again = save_and_load(tagging.build_model(tmp_path / "model", learn_of(head).spec), base, learn_of(head).spec, tmp_path / "again")
    assert again.answer(rows).predicted == answered.predicted
    first = fit(tagging, tmp_path / "model", learn_of(head), settings_for("full"))
    assert first.best_value > 0.6


@pytest.mark.exhaustive
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("method", METHODS)
def test_resumed_run_equals_uninterrupted_run(base, learn_of, tmp_path, method, head):
    expected, resumed = cut_and_resumed(task(head=head), base, learn_of(head), settings_for(method, epochs=2), tmp_path)

    assert (resumed.best_step, resumed.best_value) == (expected.best_step, expected.best_value)
    assert same(weights(resumed.model), weights(expected.model))


def save_and_load(model, base, spec, folder):
    model.save_pretrained(folder)
    task().load_tokenizer(base).save_pretrained(folder)
    spec.write(folder)
    assert not [path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    return tasks.of(spec).predictor(folder)


@pytest.fixture(scope="module", params=HEADS)
def tagger(request, base, rows, tmp_path_factory):
    """Return a tagger with a large random head, so that answers depend on the words."""
    kind = task(head=request.param)
    torch.manual_seed(4)
    model = kind.build_model(base, spec_for(kind, rows))
    torch.nn.init.normal_(model.classifier.weight)
    if request.param == "crf":
        torch.nn.init.normal_(model.crf.transitions, std=1 / model.crf.rate)
    return save_and_load(model, base, spec_for(kind, rows), tmp_path_factory.mktemp("random") / "model")


def test_answers_do_not_depend_on_batching(tagger, rows):
    together = tagger.answer(rows).predicted
    alone = [tagger.answer(rows.iloc[[index]], batch_size=1).predicted[0] for index in range(60)]
    backwards = tagger.answer(rows.iloc[::-1], batch_size=7).predicted[::-1]

    assert len(set(together)) > 60
    assert together[:60] == alone
    assert together == backwards


def test_padding_does_not_change_logits(tagger, rows):
    parts = parts_of([json.loads(cell) for cell in rows["tokens"][:12]], tagger._tokenizer, 16)
    collate = task().collator(tagger._tokenizer, tagger.spec)
    rows_of = [{**part.inputs, "labels": part.labels([0] * len(part.begins))} for part in parts]
    with torch.no_grad():
        together = tagger._model(**collate(rows_of)).logits
        for index, row in enumerate(rows_of):
            alone = tagger._model(**collate([row])).logits[0]
            assert torch.allclose(together[index, : len(alone)], alone, atol=1e-4)


def test_every_token_gets_one_tag(tagger):
    odd = ["ada", "", "\u200b", "unbelievably", "[SEP]", "\u00ad", " ", "日本語", "x" * 300, "\n", "\ud7ff", "lovelace"]
    long = ["ada", "lovelace", "met"] * 40
    cells = [json.dumps(odd), json.dumps(long), "ada met  alan", "[]", json.dumps(["two words", "one"]), json.dumps([""])]
    answers = tagger.answer(pd.DataFrame({"tokens": cells})).predicted

    assert [len(answer.split()) for answer in answers] == [12, 120, 3, 0, 2, 1]
    assert all(set(answer.split()) <= set(tagger.spec.labels) for answer in answers)
    assert answers[2] == tagger.answer(pd.DataFrame({"tokens": ['["ada", "met", "alan"]']})).predicted[0]
    with pytest.raises(BadData, match="tokens: not JSON"):
        tagger.answer(pd.DataFrame({"tokens": ['["ada"']}))


def test_parts_of_a_long_row_cover_every_token(base):
    tokenizer = task().load_tokenizer(base)
    words = [word for number in range(30) for word in ("ada", "unbelievably", "", "x" * 40)[: 1 + number % 4]]
    parts = parts_of([words, ["ada"]], tokenizer, 12)

    assert all(part.length <= 12 for part in parts)
    assert [(part.row, part.first) for part in parts][-1] == (1, 0)
    assert [index for part in parts[:-1] for index in range(part.first, part.last)] == list(range(len(words)))
    for part in parts:
        first = [tokenizer.convert_ids_to_tokens(part.inputs["input_ids"][index]) for index in part.begins]
        part_words = ["ada"] if part.row else words[part.first : part.last]
        assert len(first) == len(part_words)
        assert all(sub == "[UNK]" if not word else sub in (word, word[0]) for word, sub in zip(part_words, first, strict=True))


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_labels_are_at_token_starts(base, scheme):
    tags = ["B-PER", *["I-PER"] * 18, "I-PER" if scheme == "BIO" else "E-PER"]
    tagging = task(scheme=scheme)
    rows, faults = tagging.read(pd.DataFrame([{"tokens": json.dumps(["ada", "zzz"] * 10), "tags": " ".join(tags)}]))
    spec = spec_for(tagging, rows)
    table = tagging.encode(rows, tagging.load_tokenizer(base), spec)
    labels = [[spec.labels[index] for index in row if index != IGNORED] for row in table["labels"].to_pylist()]

    assert not faults
    assert len(labels) > 1
    assert labels[1][0] == "B-PER"
    assert all(len(row) == len(ids) for row, ids in zip(table["labels"].to_pylist(), table["input_ids"].to_pylist(), strict=True))
    assert all(task(scheme=scheme).read(pd.DataFrame([{"tokens": json.dumps(row), "tags": json.dumps(row)}]))[1] == {} for row in labels)
    assert tagging.lengths(rows, tagging.load_tokenizer(base)).tolist() == [2 + 10 + 30]


def test_split_entity_is_joined(tagger, monkeypatch):
    numbers = {label: number for number, label in enumerate(tagger.spec.labels)}
    tags = [["O", "B-PER", "I-PER"], ["B-PER", "O"], ["B-PER"], ["B-LOC", "I-LOC"], ["B-LOC"], ["O"]]
    parts = [SimpleNamespace(row=0, length=5) for _ in tags]
    monkeypatch.setattr("components.model.tasks.token_classification.predictor.parts_of", lambda *batch: parts)
    monkeypatch.setattr(tagger, "_answer", lambda batch: [[numbers[tag] for tag in part_tags] for part_tags in tags])

    assert tagger.answer(pd.DataFrame({"tokens": ["a"]})).predicted == ["O B-PER I-PER I-PER O B-PER B-LOC I-LOC I-LOC O"]


def test_unknown_tags_are_rejected(base, rows):
    with pytest.raises(BadData, match=r"tags 'B-LOC' are not in the label map \(O, B-PER, I-PER\)"):
        task().encode(rows, task().load_tokenizer(base), spec_for(task(), rows).model_copy(update={"labels": ("O", "B-PER", "I-PER")}))


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_spans_are_predicted_in_characters(base, rows, tmp_path, head):
    options = {"data": "spans", "scheme": "BIOES", "head": head}
    tagging, cells = task(**options), []
    for number, words in enumerate(map(json.loads, rows["tokens"])):
        tags, text, spans = rows["label"][number].split(), "", []
        for word, tag in zip(words, tags, strict=True):
            text += ", " if text else ""
            if tag[0] == "I":
                text = text[:-2] + " "
            begin = spans.pop()[0] if tag[0] == "I" else len(text)
            text += word.upper()
            spans += [] if tag == "O" else [[begin, len(text), tag[2:]]]
        cells.append({"id": rows["id"][number], "group": rows["group"][number], "text": text, "spans": json.dumps(spans)})
    read, faults = tagging.read(pd.DataFrame(cells, dtype="str"))
    learn = PreparedSplits.read(make_learn(tmp_path / "learn", base, read, name="token_classification", options=options))
    model = fit(tagging, base, learn, settings_for("full", epochs=5)).model
    answers = save_and_load(model, base, learn.spec, tmp_path / "model").answer(read[["text"]])
    measured = tagging.statistics(read["label"].tolist(), answers.predicted)

    assert not faults
    assert tagging.inputs == ("text",)
    assert tagging.test_metrics["entity_f1"].of(measured) > 0.5
    texts = [read["text"][row][begin:end] for row, answer in enumerate(answers.predicted) for begin, end, _ in json.loads(answer)]
    assert {"ADA", "LONDON"} <= set(texts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"r_drop": 1.0, "dropout": 0.1}, {"label_smoothing": 0.1}, {"neftune": 5.0}, {"layer_decay": 0.5, "l2_sp": 0.1}]
)
@pytest.mark.parametrize("head", HEADS)
def test_settings_are_supported_or_rejected_per_head(base, learn_of, changes, head):
    tagging, settings = task(head=head), settings_for("full", evaluations_per_epoch=1, **changes)
    if set(changes) & set(tagging.unsupported_settings):
        with pytest.raises(BadParams, match="the CRF learns the likelihood of whole sentences"):
            fit(tagging, base, learn_of(head), settings)
    else:
        plain = fit(tagging, base, learn_of(head), settings_for("full", evaluations_per_epoch=1, dropout=settings.dropout)).model
        assert not same(weights(plain), weights(fit(tagging, base, learn_of(head), settings).model))
    assert "calibration" in tagging.unsupported_settings


@pytest.mark.slow
def test_bfloat16_trains_both_heads(base, learn_of):
    for head in HEADS:
        assert fit(task(head=head), base, learn_of(head), settings_for("full", precision="bfloat16", epochs=4)).best_value > 0.3


def test_model_of_one_head_is_a_base_for_the_other(base, rows, tmp_path):
    models = {}
    for head in HEADS:
        torch.manual_seed(0)
        models[head] = task(head=head).build_model(base, spec_for(task(), rows))
        models[head].save_pretrained(tmp_path / head)
    for first, second in (HEADS, HEADS[::-1]):
        model = task(head=second).build_model(tmp_path / first, spec_for(task(), rows))
        assert all(
            torch.equal(tensor, models[first].state_dict()[name]) for name, tensor in model.state_dict().items() if "crf" not in name
        )
    more = spec_for(task(), rows).model_copy(update={"labels": ("O", "B-NEW", "I-NEW")})
    assert task(head="crf").build_model(tmp_path / "crf", more).crf.transitions.shape == (3, 3)


def test_slow_tokenizer_is_rejected(base, monkeypatch):
    tokenizer = type("Slow", (), {"is_fast": False, "pad_token": "[PAD]"})()
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: tokenizer)
    with pytest.raises(BadModel, match=r"does not map sub-words to tokens; choose a base\.model with a fast tokenizer"):
        task().load_tokenizer(base)


def test_rows_pass_preprocessing(rows):
    params = PreprocessParams(max_length=16)
    kept, removed = prepare(rows, params, task())

    assert set(kept["split"]) == {"train", "validation", "test"}
    assert not kept.duplicated("text").any()
    assert len(kept) + len(removed) == len(rows)


def test_baselines_count_training_tags(rows, base):
    train, test = rows[:200].reset_index(drop=True), rows[200:].reset_index(drop=True)
    answers = predict_baselines(task(), train, test, spec_for(task(), rows), base)
    f1 = {
        name: task().test_metrics["entity_f1"].of(task().statistics(test["label"].tolist(), output.predicted))
        for name, output in answers.items()
    }

    assert list(answers) == list(task().baselines)
    assert set(" ".join(answers["majority"].predicted).split()) == {"O"}
    assert f1["majority"] == 0 < min(f1["frequent_tag"], f1["probe"])
    unknown = pd.DataFrame({"tokens": ["unheard ada"], "text": [""], "label": ["O O"]})
    assert predict_baselines(task(), train, unknown, spec_for(task(), rows), base)["frequent_tag"].predicted == ["O B-PER"]
    plain = predict_baselines(task(scheme="plain"), train, unknown, spec_for(task(), rows), base)["majority"].predicted
    assert plain == [" ".join([pd.Series(" ".join(train["label"]).split()).value_counts().index[0]] * 2)]


def test_slices_are_types_and_lengths(rows):
    slices = task().slices(rows)

    assert list(slices) == ["sentence_length", "has LOC", "has PER"]
    assert set(slices["has PER"]) == {"yes", ""}
    assert [value == "yes" for value in slices["has PER"]] == ["PER" in label for label in rows["label"]]
    assert set(slices["sentence_length"]) == {"1 to 5 tokens", "6 to 10 tokens"}
    assert list(task(scheme="plain").slices(rows)) == ["sentence_length"]


def test_tables_count_every_error():
    words = ["ada lovelace met alan in paris", "ada lovelace"]
    rows = pd.DataFrame({"id": ["a", "b"], "group": ["a", "b"], "tokens": words, "label": ["B-PER I-PER O B-PER O B-LOC", "B-PER I-PER"]})
    predictions = Predictions.from_output(rows, answers("B-PER O B-LOC B-LOC O O", "B-PER I-PER"))
    by_type, confused, texts = task().tables(rows, predictions)

    assert by_type.rows == (("PER", 3, 0.5, 0.3333, 0.4), ("LOC", 1, 0.0, 0.0, 0.0))
    assert set(confused.rows) == {
        *{("PER", "PER", "other", 1), ("PER", "LOC", "same", 1)},
        *{("LOC", "(missed)", "", 1), ("(spurious)", "LOC", "", 1)},
    }
    assert ("ada lovelace", "PER", "PER", 1) in texts.rows
    assert len(texts.rows) == 4
    plain = task(scheme="plain").tables(rows, predictions)
    assert ("B-PER", "B-LOC", 1) in plain[1].rows
    assert plain[2].rows[0][0] in ("alan", "lovelace", "met", "paris")


def answers(*labels):
    from components.artifacts.predictions import ModelOutput

    return ModelOutput.texts(list(labels))
