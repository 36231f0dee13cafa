"""The metrics of generated texts equal rouge_score and sacrebleu, over all rows and with any row left out."""

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from components.model.support.generation import WRITTEN, TextScoring, compare, length_bands
from components.model.support.metrics import Metric

PAIRS = [
    ("The cat sat on the mat.", "The cat sat on the mat."),
    ("The cat sat on the mat.", "a cat is sitting on a mat"),
    ("It is raining, isn't it?", "It is raining , isn't it ?"),
    ("one", "one"),
    ("one", ""),
    ("two words", "words"),
    ("Große Vögel fliegen über die Straße.", "Grosse Vögel fliegen über die Strasse"),
    ("a b c d e f g h", "h g f e d c b a"),
    ("the the the the", "the the the the the the the the the the"),
    ("!?", "..."),
]
CASES = {
    "all": PAIRS,
    "one word": [("one", "one")],
    "empty answers": [("one two", ""), ("three", "")],
    "nothing in common": [("a b c d e", "v w x y z")],
    "no four-grams": [("a b c", "a b c")],
    "one long": PAIRS[:1],
    "without the shortest": PAIRS[:3],
}


def score(name: str, pairs: list[tuple[str, str]], options: TextScoring) -> float:
    expected, written = zip(*pairs, strict=True)
    return WRITTEN[name].of(compare(expected, written, options))


@pytest.mark.parametrize("words", ["13a", "intl", "zh", "char", "none"])
@pytest.mark.parametrize("case", CASES)
def test_bleu_and_chrf_equal_sacrebleu(case, words):
    expected, written = (list(part) for part in zip(*CASES[case], strict=True))
    options = TextScoring(bleu_words=words)

    assert score("bleu", CASES[case], options) == sacrebleu.corpus_bleu(written, [expected], tokenize=words, force=True).score
    assert score("chrf", CASES[case], options) == sacrebleu.corpus_chrf(written, [expected]).score


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_equals_rouge_score(name):
    scores = [RougeScorer([name]).score(expected, written)[name].fmeasure for expected, written in PAIRS]

    assert score(name, PAIRS, TextScoring()) == pytest.approx(np.mean(scores), abs=1e-15)


@pytest.mark.parametrize("name", ["bleu", "chrf", "rougeL"])
def test_leaving_out_a_row_is_a_subtraction(name):
    statistics = compare(*zip(*PAIRS, strict=True), TextScoring())
    metric: Metric = WRITTEN[name]
    sums = [statistics[column].sum() - statistics[column] for column in metric.sums]
    left_out = metric.value(*sums)

    assert left_out.shape == (len(PAIRS),)
    for i in range(len(PAIRS)):
        rest = PAIRS[:i] + PAIRS[i + 1 :]
        assert left_out[i] == pytest.approx(score(name, rest, TextScoring()), abs=1e-9)


def test_words_of_other_scripts_count_if_set():
    pair = [("кошка спит", "кошка ест")]

    assert score("rouge1", pair, TextScoring()) == 0.0
    assert score("rouge1", pair, TextScoring(rouge_words="unicode")) == 0.5
    assert score("rouge1", [("猫在睡", "猫在吃")], TextScoring(rouge_words="characters")) == pytest.approx(2 / 3)


def test_white_space_is_ignored_and_length_ratio_is_symmetric():
    assert score("exact_match", [("a b", " a\n b"), ("a b", "a c")], TextScoring()) == 0.5
    assert score("length_ratio", [("a b c d", "a b")], TextScoring()) == score("length_ratio", [("a b", "a b c d")], TextScoring()) == 0.5
    assert score("length_ratio", [("a", "")], TextScoring()) == 0.0


def test_empty_input_has_no_counts():
    assert all(len(counts) == 0 for counts in compare([], [], TextScoring()).values())


def test_length_bands_do_not_depend_on_the_test_set():
    assert length_bands(["", "a", "a b c d", "a b c d e", "x " * 8, "x " * 9]) == [
        *("1-4 words", "1-4 words", "1-4 words"),
        *("5-8 words", "5-8 words", "9-16 words"),
    ]
