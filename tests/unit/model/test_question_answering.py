"""Question answering without a model: rows, scores, baselines and SQuAD files."""

import collections
import json
import re
import string
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from components.artifacts.predictions import Predictions
from components.core.errors import BadParams, BadSource
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.step import prepare
from components.data.validate.row_ids import add_ids_and_groups
from components.data.validate.settings import ValidateParams
from components.data.validate.step import validate_rows
from components.model import tasks
from components.model.tasks.question_answering import answers, baselines, scores, squad, tables
from tests.support.labelled import predict_baselines

CONTEXT = "The invoice was paid by Ada in March. The router is broken. Ada’s naïve 😀 cable costs 5 euros."
task = tasks.load("question_answering")
open_task = tasks.load("question_answering", {"unanswerable": True})


def rows_of(*cells, question="Who paid the invoice?", context=CONTEXT):
    rows = [
        {"id": f"r{index}", "group": "g", "question": question, "context": context, "answers": cell} for index, cell in enumerate(cells)
    ]
    return pd.DataFrame(rows)


def fault(cell, kind=task, **rest):
    _, faults = kind.read(rows_of(cell, **rest))
    return faults.get(0, "")


def squad_cell(*pairs):
    return json.dumps({"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]})


@pytest.mark.parametrize(
    "cell",
    [
        '{"text": ["Ada"], "answer_start": [24]}',
        '{"text": "Ada", "answer_start": 24}',
        '{"text": ["Ada"], "answer_start": ["24"]}',
        '{"text": ["Ada"], "answer_start": [24.0], "is_impossible": false}',
        '[{"text": "Ada", "answer_start": 24}]',
        '[{"text": "Ada", "answer_start": 24}, {"text": "Ada", "answer_start": 60}]',
    ],
)
def test_squad_formats_are_equivalent(cell):
    read, faults = task.read(rows_of(cell))

    assert not faults
    assert read.loc[0, "label"] == '["Ada"]'
    assert read.loc[0, "text"] == f"Who paid the invoice?\n{CONTEXT}"
    assert answers.spans(cell, CONTEXT)[0] == answers.Span("Ada", 24)


def test_unique_text_needs_no_start():
    assert answers.spans('["March"]', CONTEXT) == (answers.Span("March", 31),)
    assert answers.spans('{"text": ["March"]}', CONTEXT) == (answers.Span("March", 31),)
    assert fault('["Ada"]') == answers.AMBIGUOUS


def test_spaces_around_an_answer_are_removed():
    assert answers.spans(squad_cell((" Ada ", 23)), CONTEXT) == (answers.Span("Ada", 24),)


def test_label_contains_unique_answers():
    read, _ = task.read(rows_of(squad_cell(("paid by Ada", 16), ("Ada", 24), ("Ada", 24))))

    assert read.loc[0, "label"] == '["Ada", "paid by Ada"]'


@pytest.mark.parametrize(
    "cell", ['{"text": [], "answer_start": []}', "[]", "{}", '{"is_impossible": true}', '{"text": [], "is_impossible": true}']
)
def test_no_answer_has_several_formats(cell):
    assert fault(cell) == answers.NONE
    assert fault(cell, open_task) == ""
    assert open_task.read(rows_of(cell))[0].loc[0, "label"] == "[]"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("Ada", answers.NOT_JSON),
        ("{'text': ['Ada']}", answers.NOT_JSON),
        ('"Ada"', answers.NOT_SQUAD),
        ("7", answers.NOT_SQUAD),
        ("null", answers.NOT_SQUAD),
        ('{"answer": "Ada"}', answers.NOT_SQUAD),
        ('[{"answer_start": 24}]', answers.NOT_SQUAD),
        ("[7]", answers.NOT_SQUAD),
        ('{"text": [7], "answer_start": [24]}', answers.NOT_SQUAD),
        ('{"text": ["Ada"], "answer_start": ["x"]}', answers.NOT_SQUAD),
        ('{"text": ["Ada"], "answer_start": [24.5]}', answers.NOT_SQUAD),
        ('{"text": ["Ada"], "answer_start": [true]}', answers.NOT_SQUAD),
        ('{"text": ["Ada"], "answer_start": [NaN]}', answers.NOT_SQUAD),
        ('{"text": ["Ada"], "answer_start": [24, 60]}', answers.UNEVEN),
        ('{"text": [" "], "answer_start": [3]}', answers.BLANK),
        (squad_cell(("Eve", 24)), answers.ABSENT),
        (squad_cell(("ada", 24)), answers.ABSENT),
        (squad_cell(("Ada", 25)), answers.MISPLACED),
        (squad_cell(("Ada", -5)), answers.MISPLACED),
        (squad_cell(("Ada", 10_000)), answers.MISPLACED),
        (squad_cell(("Ada", 24), ("Ada", 25)), answers.MISPLACED),
        ('{"text": ["Ada"], "answer_start": [24], "is_impossible": true}', answers.BOTH),
    ],
)
def test_invalid_cell_has_a_reason(cell, reason):
    assert fault(cell) == reason
    assert fault(cell, open_task) == reason


def test_positions_are_in_characters():
    position = CONTEXT.index("cable")

    assert fault(squad_cell(("cable", position))) == ""
    assert fault(squad_cell(("cable", len(CONTEXT[:position].encode("utf-16-le")) // 2))) == answers.MISPLACED


def test_deeply_nested_json_is_rejected():
    assert fault("[" * 200_000) == answers.NOT_JSON


def test_column_is_impossible_is_read():
    rows = rows_of("[]", squad_cell(("Ada", 24)), squad_cell(("Ada", 24))).assign(is_impossible=["true", "true", "false"])

    assert open_task.read(rows)[1] == {1: answers.BOTH}


def test_blank_questions_and_contexts_are_rejected():
    assert fault("[]", open_task, question=" ") == "question is empty"
    assert fault("[]", open_task, context="\t") == "context is empty"


@pytest.mark.slow
def test_invalid_rows_are_quarantined_with_a_reason():
    good = [squad_cell(("Ada", 24))] * 8
    frame = pd.DataFrame(
        {
            "question": [f"Who paid invoice {index}?" for index in range(12)],
            "context": CONTEXT,
            "answers": [*good, squad_cell(("Ada", 3)), "oops", "[]", squad_cell(("Eve", 1))],
        }
    )
    result = validate_rows(frame, task, ValidateParams(min_rows=2, max_quarantined_share=0.5))

    assert (len(result.kept), len(result.quarantined)) == (8, 4)
    assert result.reasons == {answers.MISPLACED: 1, answers.NOT_JSON: 1, answers.NONE: 1, answers.ABSENT: 1}


def many(groups=False, ids=True):
    rows = [
        {
            "id": f"r{context}-{number}",
            "question": f"Which word is number {number}?",
            "context": f"{CONTEXT} Text {context}.",
            "answers": "[]",
        }
        for context in range(60)
        for number in range(3)
    ]
    frame = pd.DataFrame(rows)
    frame = frame.assign(group=[f"g{index % 7}" for index in range(len(frame))]) if groups else frame
    return add_ids_and_groups(frame if ids else frame.drop(columns="id"), task.columns)


@pytest.mark.parametrize("ids", [True, False])
def test_questions_are_grouped_by_context(ids):
    read, _ = open_task.read(many(ids=ids))
    kept, removed = prepare(read, PreprocessParams(near_duplicate=1), open_task)

    assert read.groupby("context")["group"].nunique().eq(1).all()
    assert read["group"].nunique() == 60
    assert removed.empty
    assert kept.groupby("context")["split"].nunique().eq(1).all()


def test_questions_of_one_context_are_not_near_duplicates():
    rng = np.random.default_rng(0)
    contexts = [" ".join(f"w{number}" for number in rng.integers(0, 5_000, 40)) for _ in range(60)]
    rows = pd.DataFrame(
        {"question": [f"Which word is {n}?" for _ in contexts for n in range(3)], "context": np.repeat(contexts, 3), "answers": "[]"}
    )
    read, _ = open_task.read(add_ids_and_groups(rows, task.columns))

    kept, removed = prepare(read, PreprocessParams(), open_task)

    assert (len(kept), len(removed)) == (180, 0)


def test_given_groups_are_kept():
    rows = many(groups=True)

    assert open_task.read(rows)[0]["group"].tolist() == rows["group"].tolist()


def official_normalize(text):
    def remove_articles(text):
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        return "".join(ch for ch in text if ch not in set(string.punctuation))

    return white_space_fix(remove_articles(remove_punc(text.lower())))


def official_scores(gold_texts, a_pred):
    """Compute `get_raw_scores` of evaluate-v2.0.py for one question."""

    def get_tokens(s):
        return official_normalize(s).split() if s else []

    def compute_exact(a_gold, a_pred):
        return int(official_normalize(a_gold) == official_normalize(a_pred))

    def compute_f1(a_gold, a_pred):
        gold_toks, pred_toks = get_tokens(a_gold), get_tokens(a_pred)
        common = collections.Counter(gold_toks) & collections.Counter(pred_toks)
        num_same = sum(common.values())
        if len(gold_toks) == 0 or len(pred_toks) == 0:
            return int(gold_toks == pred_toks)
        if num_same == 0:
            return 0
        precision, recall = num_same / len(pred_toks), num_same / len(gold_toks)
        return (2 * precision * recall) / (precision + recall)

    gold_answers = [text for text in gold_texts if official_normalize(text)]
    if not gold_answers:
        gold_answers = [""]
    return max(compute_exact(a, a_pred) for a in gold_answers), max(compute_f1(a, a_pred) for a in gold_answers)


CASES = [
    (["Denver Broncos"], "Denver Broncos"),
    (["Denver Broncos"], "the Denver broncos!"),
    (["Denver Broncos"], "Broncos"),
    (["Denver Broncos", "The Broncos"], "broncos"),
    (["Denver Broncos"], ""),
    ([], ""),
    ([], "Denver"),
    (["The"], ""),
    (["The"], "a"),
    (["The", "Denver"], ""),
    (["..."], "Denver"),
    (["a b b c"], "b c c"),
    (["10,000"], "10000"),
    (["U.S.A."], "USA"),
    (["naïve Ångström"], "NAÏVE ångström"),
    (["theatre an"], "theatre"),
    (["“quoted”"], "quoted"),
    (["x"], "   "),
    (["5 euros"], "costs 5  euros\n"),
]


@pytest.mark.parametrize(("expected", "predicted"), CASES)
def test_scores_equal_the_official_script(expected, predicted):
    exact, f1 = official_scores(expected, predicted)

    assert scores.exact(predicted, expected) == exact
    assert scores.f1(predicted, expected) == pytest.approx(f1, abs=1e-12)


def test_scores_equal_the_official_script_on_random_texts():
    rng = np.random.default_rng(1)
    words = ["the", "A", "Ada", "ada.", "router", "-", "5", "é", "an"]
    pairs = set()
    for _ in range(500):
        expected = [" ".join(rng.choice(words, rng.integers(0, 4))) for _ in range(rng.integers(0, 3))]
        predicted = " ".join(rng.choice(words, rng.integers(0, 4)))
        exact, f1 = official_scores(expected, predicted)
        pairs.add((exact, round(f1, 3)))
        assert (scores.exact(predicted, expected), scores.f1(predicted, expected)) == (exact, pytest.approx(f1, abs=1e-12))
    assert len(pairs) > 5


def test_metrics_are_means_over_questions():
    expected, predicted = [answers.canonical(texts) for texts, _ in CASES], [answers.canonical([text] if text else []) for _, text in CASES]
    statistics = open_task.statistics(expected, predicted)
    official = np.array([official_scores(texts, text) for texts, text in CASES], dtype=float)
    answerable = np.array([bool(texts) for texts, _ in CASES])

    assert {name: metric.of(statistics) for name, metric in open_task.test_metrics.items()} == pytest.approx(
        {
            "f1": official[:, 1].mean(),
            "exact_match": official[:, 0].mean(),
            "has_answer_f1": official[answerable, 1].mean(),
            "has_answer_exact": official[answerable, 0].mean(),
            "no_answer_accuracy": official[~answerable, 0].mean(),
        }
    )
    assert tuple(task.test_metrics) == ("f1", "exact_match")


def test_threshold_is_optimal():
    rng = np.random.default_rng(2)
    for rows in (1, 2, 7, 50):
        margins, answered = rng.normal(3, 5, rows).round(1), rng.random(rows)
        unanswered = (rng.random(rows) < 0.4).astype(float)
        threshold = scores.best_threshold(margins, answered * (1 - unanswered), unanswered)
        gains = [
            np.where(margins > limit, unanswered, answered * (1 - unanswered)).mean() for limit in [*margins, margins.min() - 1, threshold]
        ]
        assert gains[-1] == pytest.approx(max(gains))
        assert threshold not in margins


def test_threshold_stays_0_without_gain():
    assert scores.best_threshold(np.array([]), np.array([]), np.array([])) == 0
    assert scores.best_threshold(np.array([-3.0, 4.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 0
    assert scores.best_threshold(np.array([2.0, 4.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 3


def test_baselines_answer_from_the_context():
    train = rows_of(squad_cell(("Ada", 24)), squad_cell(("broken", CONTEXT.index("broken"))))
    train, _ = task.read(train)
    test = rows_of("[]", question="What is the state of the router?")
    outputs = predict_baselines(task, train, test, None, None)

    assert tuple(outputs) == task.baselines == ("sentence", "overlap", "remainder")
    assert [outputs[name].predicted for name in outputs] == [
        ['["The invoice was paid by Ada in March."]'],
        ['["The router is broken."]'],
        ['["broken"]'],
    ]


def test_baselines_leave_dissimilar_questions_unanswered():
    rows = [("Who paid the invoice?", squad_cell(("Ada", 24))), ("What is the router?", squad_cell(("broken", CONTEXT.index("broken"))))]
    rows += [("Why do zebras sing?", "[]"), ("Does Eve like tea?", "[]")]
    frame = pd.concat([rows_of(cell, question=question) for question, cell in rows], ignore_index=True)
    train, _ = open_task.read(frame)
    outputs = predict_baselines(open_task, train, train, None, None)

    assert [text == "[]" for text in outputs["remainder"].predicted] == [False, False, True, True]
    assert "[]" not in outputs["sentence"].predicted


def test_baselines_accept_texts_without_words(caplog):
    train, _ = open_task.read(rows_of("[]", context="!!! ???"))
    outputs = predict_baselines(open_task, train, train, None, None)

    assert "no words" in caplog.text
    assert all(len(output.predicted) == 1 for output in outputs.values())


def test_text_is_split_into_sentences():
    assert baselines.sentences("One. Two!  Three?\nA00.0 four\n\n。五。六") == ["One.", "Two!", "Three?", "A00.0 four", "。", "五。", "六"]
    assert baselines.sentences(" ") == []
    assert baselines.remainder("A00.1 Typhoid fever.", "What is the code for typhoid fever?") == "A00.1"
    assert baselines.remainder("Typhoid fever", "Typhoid fever?") == "Typhoid fever"


def test_slices_of_each_row():
    rows = pd.concat([rows_of(squad_cell(("Ada", 24))), rows_of("[]", question="Tell: in WHOSE house?")], ignore_index=True)
    slices = tables.slices(open_task.read(rows)[0])

    assert slices == open_task.slices(open_task.read(rows)[0])
    assert slices == {
        "answer": ["answerable", "unanswerable"],
        "answer_length": ["1 word", ""],
        "question_word": ["who", "who"],
        "context_length": ["up to 50 words"] * 2,
    }
    assert tables.question_word("Tell me.") == "other"


def test_tables_show_worst_and_unanswered():
    rows, _ = open_task.read(pd.concat([rows_of(squad_cell(("Ada", 24)), squad_cell(("paid by Ada", 16)), "[]")], ignore_index=True))
    rows = rows.assign(question=["one", "two", "three"])
    predictions = Predictions(
        *(np.array(values) for values in (rows["id"], rows["group"], rows["label"], ['["Ada"]', '["Ada"]', '["March"]'])),
        np.zeros((3, 0)),
        (),
    )
    worst, answered = open_task.tables(rows, predictions)

    assert worst.rows == (("three", "no answer", "March", 0.0), ("two", "paid by Ada", "Ada", 0.5))
    assert answered.rows == (("has an answer", 2, 0), ("has no answer", 1, 0))
    assert len(task.tables(rows, predictions)) == 1


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Ada",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {"id": "q1", "question": "Who paid?", "answers": [{"text": "Ada", "answer_start": 24}] * 2, "is_impossible": False},
                        {
                            "id": "q2",
                            "question": "Who sang?",
                            "answers": [],
                            "plausible_answers": [{"text": "Ada", "answer_start": 24}],
                            "is_impossible": True,
                        },
                    ],
                },
                {
                    "context": "It rains.",
                    "qas": [{"id": 3, "question": "What does it do?", "answers": [{"text": "rains", "answer_start": 3}]}],
                },
            ],
        }
    ],
}


def test_squad_has_one_row_per_question():
    rows = list(squad.rows(SQUAD))
    frame = pd.DataFrame(rows).assign(answers=[json.dumps(row["answers"]) for row in rows])
    read, faults = open_task.read(frame)

    assert read["id"].tolist() == ["q1", "q2", "3"]
    assert read["label"].tolist() == ['["Ada"]', "[]", '["rains"]']
    assert read["group"].nunique() == 2
    assert not faults
    assert {row["group"] for row in squad.rows(SQUAD, "title")} == {"Ada"}


@pytest.mark.slow
def test_converter_runs_as_a_command(tmp_path):
    (tmp_path / "squad.json").write_text(json.dumps(SQUAD), encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", squad.__name__, str(tmp_path / "squad.json"), str(tmp_path / "out.jsonl")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)

    assert result.stdout == f"{tmp_path / 'out.jsonl'}: 3 questions\n"
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == list(squad.rows(SQUAD))


@pytest.mark.parametrize("text", ["{", "[]", '{"data": {}}', '{"data": [{"paragraphs": [{"context": 7, "qas": []}]}]}', '{"data": [{}]}'])
def test_invalid_squad_file_is_rejected(tmp_path, text):
    (tmp_path / "other.json").write_text(text, encoding="utf-8")

    with pytest.raises(BadSource):
        squad.convert(tmp_path / "other.json", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_unknown_setting_is_rejected():
    with pytest.raises(BadParams, match=r"task_options\.stide is not a setting; did you mean 'stride'\?"):
        tasks.load("question_answering", {"stide": 3})
    with pytest.raises(BadParams, match=r"task_options\.max_answer_tokens"):
        tasks.load("question_answering", {"max_answer_tokens": 0})


@pytest.mark.slow
def test_loading_the_task_does_not_import_torch():
    code = (
        "import sys; from components.model import tasks; tasks.load('question_answering');"
        " assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
