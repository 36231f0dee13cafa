import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.report import error_analysis, facts, forests, matrix, svg, wording


def predictions(expected: str, predicted: str, labels: str = "abc") -> Predictions:
    """Return one row a letter; the answer has probability 0.5 and more the later the row."""
    n = len(expected)
    probabilities = np.full((n, len(labels)), 0.1)
    for row, letter in enumerate(predicted):
        probabilities[row, labels.index(letter)] = 0.5 + 0.01 * row
    ids = np.array([f"{row:02d}" for row in range(n)])
    return Predictions(ids, ids, np.array(list(expected)), np.array(list(predicted)), probabilities, tuple(labels))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.65, "0.65"),
        (-0.02, "−0.02"),
        (0.9999, "1"),
        (117.4, "117"),
        (1234567.0, "1 234 567"),
        (2.1e-4, "0.00021"),
        (7.56e-5, "7.56 × 10⁻⁵"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_a_number_has_three_significant_digits(value: float | None, words: str) -> None:
    assert wording.number(value) == words.replace(" ", wording.THIN)


def test_a_small_difference_is_not_a_negative_zero() -> None:
    assert wording.signed(-0.0001) == "0.000"
    assert wording.signed(-0.0123) == "−0.012"
    assert wording.signed(0.0123) == "+0.012"


def test_a_probability_is_never_rounded_to_certainty() -> None:
    assert wording.probability(0.99999) == ">\u202f0.999"
    assert wording.probability(0.00001) == "<\u202f0.001"
    assert wording.probability(1.0) == "1.000"


def test_durations_take_the_unit_that_fits() -> None:
    assert [wording.duration(s) for s in (4.1, 181.3, 7500)] == ["4.1\u202fs", "3\u202fmin 01\u202fs", "2\u202fh 05\u202fmin"]


def test_a_long_text_is_cut_with_an_ellipsis_and_control_characters_become_visible() -> None:
    assert wording.cut("a" * 300, 10) == "a" * 9 + "…"
    assert wording.cut("bell\x07 null\x00 turn\u202e\nline", 80) == "bell␇ null␀ turn line"
    assert wording.cut("مرحبا", 80) == "مرحبا"


def test_elements_escape_children_values_and_titles() -> None:
    drawn = svg.text("1%", 2, "<b>", title='"><script>')

    assert isinstance(drawn, Markup)
    assert "<b>" not in drawn
    assert "<script>" not in drawn
    assert svg.element("rect", class_='"x', text_anchor=None) == '<rect class="&#34;x"></rect>'


def test_a_scale_keeps_values_between_its_ends() -> None:
    scale = svg.Scale(0, 1, 10, 90)

    assert [scale(value) for value in (-5, 0, 0.5, 1, 5)] == [10, 10, 50, 90, 90]
    assert scale.ticks() == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg.Scale(1e-5, 1e-3, 0, 100, log=True)(1e-4) == pytest.approx(50)


def test_gates_share_one_axis_unless_their_unit_is_another() -> None:
    accuracy = GateResult(gate="a", outcome=Outcome.PASS, reason="", estimate=0.8, low=0.78, high=0.82, threshold=0.65)
    latency = GateResult(gate="b", outcome=Outcome.FAIL, reason="", estimate=84.0, low=80.0, high=90.0, threshold=50.0)
    nothing = GateResult(gate="c", outcome=Outcome.INCONCLUSIVE, reason="")
    plots, axis = forests.gate_plots([accuracy, latency, nothing])

    assert [plot.own_scale for plot in plots] == [False, True, False]
    assert plots[2].plot is None
    assert axis is not None


def test_the_worst_mistakes_are_the_surest_and_know_what_was_left() -> None:
    found = error_analysis.worst_mistakes(predictions("aabbcc", "abbacc"), {"03": "a text"}, limit=1)

    assert [(m.id, m.text, m.expected, m.predicted) for m in found] == [("03", "a text", "b", "a")]
    assert found[0].probability == pytest.approx(0.53)
    assert found[0].probability_expected == pytest.approx(0.1)


def test_confusions_count_every_row_even_of_a_label_that_the_model_does_not_know() -> None:
    labels, counts = error_analysis.confusion(predictions("aabz", "abba"))

    assert labels == ("a", "b", "c", "z")
    assert counts.sum() == 4
    assert counts[3, 0] == 1


def test_the_most_frequent_pairs_come_first_with_their_share_of_the_class() -> None:
    pairs = error_analysis.confused_pairs(predictions("aaaabb", "abbcaa"))

    assert [(p.expected, p.predicted, p.rows, p.share) for p in pairs] == [("a", "b", 2, 0.5), ("b", "a", 2, 1.0), ("a", "c", 1, 0.25)]


def test_changes_line_rows_up_by_id() -> None:
    candidate, champion = predictions("aabb", "aaab"), predictions("aabb", "abbb")
    back = slice(None, None, -1)
    turned = replace(champion, ids=champion.ids[back], expected=champion.expected[back], predicted=champion.predicted[back])
    found = error_analysis.changes(candidate, turned, {})

    assert [change.id for change in found.fixed] == ["01"]
    assert [change.id for change in found.broken] == ["02"]
    assert (found.both_right, found.both_wrong, found.rows) == (2, 0, 4)


def test_long_class_names_are_wrapped_into_two_lines_and_then_cut() -> None:
    name = "Diseases of the blood and blood-forming organs and certain disorders involving the immune mechanism"
    lines = matrix.wrapped(name, 40, 2)

    assert len(lines) == 2
    assert all(len(words) <= 40 for words in lines)
    assert lines[1].endswith("…")
    assert matrix.wrapped("short", 40, 2) == ["short"]
    assert matrix.wrapped("x" * 90, 40, 2)[0] != ""


def test_a_matrix_of_twenty_five_long_names_stays_small() -> None:
    labels = [f"{at} " + "a long name of a class " * 4 for at in range(25)]
    drawn = matrix.confusion_matrix(labels, np.ones((25, 25), dtype=np.int64))

    assert drawn.count("<rect") == 25 * 25 + 1
    assert len(drawn) < 150_000


def test_trials_and_history_that_are_not_there_are_empty(tmp_path: Path) -> None:
    assert facts.read_trials(tmp_path / "trials.parquet") == ()
    assert facts.read_history(tmp_path / "history.jsonl") == ()
