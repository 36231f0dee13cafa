"""Tags, spans and cells, compared with seqeval and nervaluate; invalid cells have a reason."""

import json
import random
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path

import nervaluate
import numpy as np
import pandas as pd
import pytest
import seqeval.metrics
import seqeval.scheme

from components.core.errors import BadParams
from components.model import tasks
from components.model.tasks.token_classification import conll
from components.model.tasks.token_classification.cells import words_in
from components.model.tasks.token_classification.schemes import entities, join_tags, label_map, repair_tags, tag_error

SEQEVAL = {"BIO": seqeval.scheme.IOB2, "BIOES": seqeval.scheme.IOBES}
LABELS = {"BIO": label_map(["B-X", "B-Y"], "BIO"), "BIOES": label_map(["B-X", "B-Y"], "BIOES")}


def task(**options):
    return tasks.load("token_classification", options)


def scores(expected, predicted, **options):
    statistics = task(**options).statistics([" ".join(tags) for tags in expected], [" ".join(tags) for tags in predicted])
    return {name: metric.of(statistics) for name, metric in task(**options).test_metrics.items()}


@pytest.mark.parametrize(("scheme", "longest"), [("BIO", 4), ("BIOES", 3)])
def test_entities_equal_seqeval(scheme, longest):
    for length in range(1, longest + 1):
        for tags in product(LABELS[scheme], repeat=length):
            reference = seqeval.scheme.Entities([list(tags)], SEQEVAL[scheme]).entities[0]
            assert entities(tags, scheme) == [(entity.start, entity.end, entity.tag) for entity in reference], tags


def test_answers_in_bioes_are_read_by_a_bio_task():
    assert entities(["B-a", "E-a", "O", "S-b"], "BIO") == [(0, 2, "a"), (3, 4, "b")]


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_scores_equal_seqeval_and_nervaluate(scheme):
    rng = random.Random(0)
    label, outside, inside = LABELS[scheme], ["O"] * 4, ["I-X", "I-X", "O", "O"]
    right = ["B-X", "I-X", "O", "B-Y"] if scheme == "BIO" else ["B-X", "E-X", "O", "S-Y"]
    cases = {
        "equal": ([right], [right]),
        "nothing predicted": ([right], [outside]),
        "nothing expected": ([outside], [right]),
        "all O": ([outside], [outside]),
        "no beginning": ([right], [inside]),
        "one token": ([right[-1:]], [right[-1:]]),
        "one token missed": ([right[-1:]], [["O"]]),
        **{f"random {number}": [[rng.choices(label, k=7) for _ in range(20)] for _ in range(2)] for number in range(20)},
    }
    for name, (expected, predicted) in cases.items():
        reference = {
            metric: getattr(seqeval.metrics, f"{metric}_score")(expected, predicted, mode="strict", scheme=SEQEVAL[scheme], zero_division=0)
            for metric in ("f1", "precision", "recall")
        }
        values = scores(expected, predicted, scheme=scheme)
        assert {metric: values[f"entity_{metric}"] for metric in reference} == pytest.approx(reference), name
        assert values["token_accuracy"] == pytest.approx(seqeval.metrics.accuracy_score(expected, predicted)), name
        assert values["sentence_accuracy"] == np.mean([truth == answer for truth, answer in zip(expected, predicted, strict=True)]), name
        if scheme == "BIO" and not any(tag_error(tags, scheme) for tags in [*expected, *predicted]):
            strict = nervaluate.Evaluator(expected, predicted, tags=["X", "Y"], loader="list").evaluate()["overall"]["strict"]
            assert values["entity_f1"] == pytest.approx(strict.f1), name


def test_spans_are_scored_like_tags():
    expected, predicted = '[[0, 3, "X"], [4, 6, "Y"]]', '[[0, 3, "Y"], [4, 6, "Y"]]'
    statistics = task(data="spans").statistics([expected, "[]", expected], [predicted, "[]", "[]"])

    assert {name: values.tolist() for name, values in statistics.items() if name in ("hits", "expected", "predicted", "right")} == {
        **{"hits": [1, 0, 0], "expected": [2, 0, 2]},
        **{"predicted": [2, 0, 0], "right": [0, 1, 0]},
    }
    assert task(data="spans").test_metrics["entity_f1"].of(statistics) == pytest.approx(2 / 6)


def test_plain_tags_are_scored_per_token():
    values = scores([["NN", "VB", "NN"], ["NN"]], [["NN", "NN", "NN"], ["NN"]], scheme="plain")

    assert values == {"token_accuracy": 0.75, "sentence_accuracy": 0.5}


def test_leaving_a_row_out_is_a_subtraction():
    """Row statistics add up, which the intervals of the gates depend on."""
    rng = random.Random(1)
    expected, predicted = ([rng.choices(LABELS["BIO"], k=5) for _ in range(30)] for _ in range(2))
    statistics = task().statistics(*([" ".join(tags) for tags in rows] for rows in (expected, predicted)))
    rest = {name: values.sum() - values[3] for name, values in statistics.items()}

    without = scores([*expected[:3], *expected[4:]], [*predicted[:3], *predicted[4:]])
    assert float(task().test_metrics["entity_f1"].value(rest["hits"], rest["predicted"], rest["expected"])) == pytest.approx(
        without["entity_f1"]
    )


def read(rows, **options):
    table = pd.DataFrame(rows, columns=list(task(**options).columns), dtype="str")
    return task(**options).read(table)


TOKENS = {
    "the number of tags differs from the number of tokens": [("a b", "O"), ('["a b"]', "O O")],
    "an I- tag follows no B- or I- of its type (scheme BIO)": [("a b", "O I-X"), ("a b", "B-X I-Y"), ("a", "I-X")],
    "a tag is neither O nor one of B-, I- with a type (scheme BIO)": [("a", "Q-X"), ("a", "B"), ("a", "NN"), ("a", "S-X"), ("a", "B-")],
    "tokens: not JSON": [('["a", "b"', "O O"), ("[a]", "O")],
    "tokens: not JSON: JSON does not allow single quotes, write the list with json.dumps": [("['a', 'b']", "O O")],
    "tokens: the list contains items that are not texts": [("[1, 2]", "O O"), ("[[]]", "O")],
    "tags: the list contains items that are not texts": [("a b", "[0, 3]")],
    "tokens: an empty list": [("[]", "[]")],
    "a tag is blank or contains white space": [("a b", '["O", ""]'), ("a b", '["O", "B X"]')],
}


@pytest.mark.parametrize("reason", TOKENS)
def test_invalid_tokens_and_tags_have_a_reason(reason):
    rows, faults = read([("fine", "O"), *TOKENS[reason]])

    assert faults == dict.fromkeys(range(1, len(rows)), reason)
    assert rows.loc[0, ["text", "label"]].tolist() == ["fine", "O"]


def test_bioes_is_checked_and_plain_tags_are_not():
    good = [("a b c", "B-X I-X E-X"), ("a b", "S-X S-X"), ("a", "O")]
    bad = [("a b", "B-X I-X"), ("a", "E-X"), ("a b", "B-X O"), ("a b", "S-X E-X"), ("a b", "B-X E-Y")]
    faults = read([*good, *bad], scheme="BIOES")[1]

    assert set(faults) == {3, 4, 5, 6, 7}
    assert set(faults.values()) == {"an entity has no B- or E-, or an I- or E- follows no B- or I- of its type (scheme BIOES)"}
    assert not read([("a b", "I-X B"), ("a", "NN")], scheme="plain")[1]


@pytest.mark.parametrize(
    ("options", "good", "bad"),
    [
        ({}, ("a b c", "B-PER I-PER O"), ("a b", "B-LOC B-MISC")),
        ({"scheme": "BIOES"}, ("a b c", "B-PER E-PER S-LOC"), ("a", "S-MISC")),
        ({"data": "spans"}, ("Ada left", '[[0, 3, "PER"]]'), ("Ada left", '[[0, 3, "MISC"]]')),
        ({"scheme": "plain"}, ("a b", "PER LOC"), ("a b", "PER MISC")),
    ],
)
def test_unknown_type_is_rejected(options, good, bad):
    assert read([good, bad], types=["PER", "LOC"], **options)[1] == {1: "type 'MISC' is not in task_options.types"}
    assert not read([good, bad], **options)[1]


def test_invalid_type_names_are_rejected():
    for types in (["PER", "PER"], [""], [" PER"]):
        with pytest.raises(BadParams, match=r"task_options\.types: expected different names"):
            task(types=types)


SPANS = {
    "spans overlap": ['[[0, 5, "X"], [0, 5, "Y"]]', '[[6, 14, "X"], [9, 14, "X"]]'],
    "a span begins or ends inside a word": ['[[0, 4, "X"]]', '[[1, 5, "X"]]'],
    "a span is empty or outside the text": ['[[6, 15, "X"]]', '[[3, 3, "X"]]', '[[-1, 5, "X"]]', '[[5, 0, "X"]]'],
    "a span contains only white space": ['[[5, 6, "X"]]'],
    "spans: an item is neither [start, end, label] nor an object with these keys": ["[[0, 5]]", '[{"start": 0, "end": 5}]', '["X"]', "[7]"],
    "spans: start and end must be integers, and label a text": ['[["0", 5, "X"]]', '[[0, 5.0, "X"]]', "[[0, 5, null]]", '[[0, true, "X"]]'],
    "spans: not JSON": ["none", '[[0, 5, "X"]'],
    "spans: not a list": ['{"start": 0}', "7"],
}


@pytest.mark.parametrize("reason", SPANS)
def test_invalid_spans_have_a_reason(reason):
    rows = [("Paris to Lyon.", spans) for spans in ["[]", *SPANS[reason]]]
    parsed, faults = read(rows, data="spans")

    assert faults == dict.fromkeys(range(1, len(parsed)), reason)


def test_span_formats_are_normalised():
    text = " Paris to Lyon."
    forms = [
        '[[10, 14, "LOC"], [1, 6, "LOC"]]',
        json.dumps([{"start": 1, "end": 6, "label": "LOC", "text": "Paris"}, {"start": 10, "end": 14, "label": " LOC"}]),
        '[[0, 6, "LOC"], [9, 14, "LOC"]]',
    ]
    parsed, faults = read([(text, form) for form in forms], data="spans")

    assert not faults
    assert set(parsed["label"]) == {'[[1, 6, "LOC"], [10, 14, "LOC"]]'}
    assert set(parsed["text"]) == {text}


def test_words_of_a_text():
    text = "Dr. O'Neil-Smith\u2019s  naïve e\u0301tude, 3.5mg\u200b東京は हिन्दी😀"

    assert [text[begin:end] for begin, end in words_in(text)] == [
        *("Dr", ".", "O", "'", "Neil", "-", "Smith", "\u2019", "s", "naïve", "e\u0301tude", ",", "3", ".", "5mg"),
        *("東", "京", "は", "हिन्दी", "😀"),
    ]
    assert words_in(" \u200b\n") == []


def test_label_map_is_completed_by_the_scheme():
    rows = [("a b", "B-PER O"), ("c d", "B-A-B I-A-B")]

    assert task().labels_of(read(rows)[0]) == ("O", "B-A-B", "I-A-B", "B-PER", "I-PER")
    assert task(scheme="plain").labels_of(read(rows, scheme="plain")[0]) == ("B-A-B", "B-PER", "I-A-B", "O")
    spans = read([("Paris", '[[0, 5, "LOC"]]')], data="spans", scheme="BIOES")[0]
    assert task(data="spans", scheme="BIOES").labels_of(spans) == ("O", "B-LOC", "I-LOC", "E-LOC", "S-LOC")
    assert task().label_counts(read(rows)[0]) == {"O": 1, "B-PER": 1, "B-A-B": 1, "I-A-B": 1}


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_split_entities_are_repaired(scheme):
    for tags in product(LABELS[scheme], repeat=3):
        assert tag_error(repair_tags(tags, scheme), scheme) is None
        assert tag_error(tags, scheme) or repair_tags(tags, scheme) == list(tags)
    assert repair_tags(["I-X", "I-X", "O"], "BIO") == ["B-X", "I-X", "O"]
    assert repair_tags(["I-X", "E-X", "B-Y"], "BIOES") == ["B-X", "E-X", "S-Y"]


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_split_sentence_is_joined(scheme):
    for tags in product(LABELS[scheme], repeat=4):
        adjacent = any(entity[1] == following[0] and entity[2] == following[2] for entity, following in pairwise(entities(tags, scheme)))
        if tag_error(tags, scheme) or adjacent:
            continue
        for cut in (1, 2, 3):
            assert join_tags(repair_tags(tags[:cut], scheme), repair_tags(tags[cut:], scheme), scheme) == list(tags)
    assert join_tags([], ["B-X"], scheme) == ["B-X"]
    assert join_tags(["NN"], ["NN"], "plain") == ["NN", "NN"]


def test_conflicting_options_are_rejected():
    with pytest.raises(BadParams, match="transition_rate is used only with head crf"):
        task(transition_rate=10)
    with pytest.raises(BadParams, match=r"task_options: spans are entities, which the scheme plain does not support"):
        task(data="spans", scheme="plain")


CONLL_2003 = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
# SYM O O

German JJ I-NP I-MISC
British JJ I-NP B-MISC

-DOCSTART- -X- O O

Peter NNP I-NP I-PER
"""
CONLL_U = """# newdoc id = one
# text = He's here
1-2\tHe's\t_\t_\t_\t_\t_\t_\t_\t_
1\tHe\the\tPRON\tPRP\t_\t3\tnsubj\t_\t_
2\t's\tbe\tAUX\tVBZ\t_\t3\tcop\t_\t_
2.1\tnot\tnot\tPART\t_\t_\t_\t_\t_\t_
3\there\there\tADV\tRB\t_\t0\troot\t_\t_

1\t# 1\t#\tSYM\t_\t_\t_\t_\t_\t_
"""


def test_conll_files_become_rows():
    rows = list(conll.sentences(CONLL_2003.splitlines(keepends=True)))

    assert [row["tokens"] for row in rows] == [["EU", "rejects", "#"], ["German", "British"], ["Peter"]]
    assert [conll.as_bio(row["tags"]) for row in rows] == [["B-ORG", "O", "O"], ["B-MISC", "B-MISC"], ["B-PER"]]
    assert [row["group"] for row in rows] == ["document 1", "document 1", "document 2"]
    assert list(conll.sentences(CONLL_U.splitlines(), token=1, tag=3, conllu=True)) == [
        {"tokens": ["He", "'s", "here"], "tags": ["PRON", "AUX", "ADV"], "group": "document 1"},
        {"tokens": ["# 1"], "tags": ["SYM"], "group": "document 1"},
    ]
    with pytest.raises(ValueError, match="line 2 has 1 columns, expected the token in column 0 and the tag in column 3"):
        list(conll.sentences(["a b c O\n", "a\n"], tag=3))


@pytest.mark.slow
def test_command_writes_valid_rows(tmp_path):
    (tmp_path / "train.txt").write_text(CONLL_2003, encoding="utf-8")
    command = [sys.executable, "-m", "components.model.tasks.token_classification.conll", str(tmp_path / "train.txt"), "--iob1"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    parsed, faults = read([(json.dumps(row["tokens"]), json.dumps(row["tags"])) for row in rows])

    assert not faults
    assert parsed["label"].tolist() == ["B-ORG O O", "B-MISC B-MISC", "B-PER"]


@pytest.mark.slow
def test_loading_the_task_does_not_import_torch():
    heavy = {"torch", "transformers", "sklearn", "seqeval"}
    code = f"import sys, components.model.tasks as t; t.load('token_classification'); sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[3]).returncode == 0
