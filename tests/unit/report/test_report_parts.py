import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markupsafe import Markup

from components.artifacts.predictions import Predictions
from components.artifacts.training import history_entries, read_lines
from components.artifacts.tuning_result import Trial, read_trials
from components.artifacts.verdict import GateResult, Outcome
from components.report import error_analysis, forests, matrix, svg, wording


def predictions(expected: str, predicted: str, labels: str = "abc") -> Predictions:
    """Return one row per letter; the probability of the answer is 0.5 plus 0.01 per row."""
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
def test_number_has_three_significant_digits(value: float | None, words: str) -> None:
    assert wording.number(value) == words.replace(" ", wording.THIN)


def test_small_difference_is_not_a_negative_zero() -> None:
    assert wording.signed(-0.0001) == "0.000"
    assert wording.signed(-0.0123) == "−0.012"
    assert wording.signed(0.0123) == "+0.012"


def test_probability_is_never_rounded_to_certainty() -> None:
    assert wording.probability(0.99999) == ">\u202f0.999"
    assert wording.probability(0.00001) == "<\u202f0.001"
    assert wording.probability(1.0) == "1.000"


def test_durations_have_a_suitable_unit() -> None:
    assert [wording.duration(s) for s in (4.1, 181.3, 7500)] == ["4.1\u202fs", "3\u202fmin 01\u202fs", "2\u202fh 05\u202fmin"]


def test_long_text_is_cut_and_control_characters_are_shown() -> None:
    assert wording.cut("a" * 300, 10) == "a" * 9 + "…"
    assert wording.cut("bell\x07 null\x00 turn\u202e\nline", 80) == "bell␇ null␀ turn line"
    assert wording.cut("مرحبا", 80) == "مرحبا"


def test_elements_escape_children_values_and_titles() -> None:
    drawn = svg.text("1%", 2, "<b>", title='"><script>')

    assert isinstance(drawn, Markup)
    assert "<b>" not in drawn
    assert "<script>" not in drawn
    assert svg.element("rect", class_='"x', text_anchor=None) == '<rect class="&#34;x"></rect>'


def test_scale_clips_values_to_its_ends() -> None:
    scale = svg.Scale(0, 1, 10, 90)

    assert [scale(value) for value in (-5, 0, 0.5, 1, 5)] == [10, 10, 50, 90, 90]
    assert scale.ticks() == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg.Scale(1e-5, 1e-3, 0, 100, log=True)(1e-4) == pytest.approx(50)


def test_gates_with_another_unit_have_a_separate_axis() -> None:
    accuracy = GateResult(gate="a", outcome=Outcome.PASS, reason="", estimate=0.8, low=0.78, high=0.82, threshold=0.65)
    latency = GateResult(gate="b", outcome=Outcome.FAIL, reason="", estimate=84.0, low=80.0, high=90.0, threshold=50.0)
    empty = GateResult(gate="c", outcome=Outcome.INCONCLUSIVE, reason="")
    plots, axis = forests.gate_plots([accuracy, latency, empty])

    assert [own_scale for _, own_scale in plots] == [False, True, False]
    assert plots[2][0] is None
    assert axis is not None


def test_worst_mistakes_have_the_highest_probability() -> None:
    result = error_analysis.worst_mistakes(predictions("aabbcc", "abbacc"), {"03": "a text"}, limit=1)

    assert [(m.id, m.text, m.expected, m.predicted) for m in result] == [("03", "a text", "b", "a")]
    assert result[0].probability == pytest.approx(0.53)
    assert result[0].probability_expected == pytest.approx(0.1)


def test_confusion_counts_rows_with_unknown_labels() -> None:
    labels, counts = error_analysis.confusion(predictions("aabz", "abba"))

    assert labels == ("a", "b", "c", "z")
    assert counts.sum() == 4
    assert counts[3, 0] == 1


def test_confused_pairs_are_sorted_by_frequency() -> None:
    pairs = error_analysis.confused_pairs(predictions("aaaabb", "abbcaa"))

    assert [(p.expected, p.predicted, p.rows, p.share) for p in pairs] == [("a", "b", 2, 0.5), ("b", "a", 2, 1.0), ("a", "c", 1, 0.25)]


def test_changes_match_rows_by_id() -> None:
    candidate, champion = predictions("aabb", "aaab"), predictions("aabb", "abbb")
    back = slice(None, None, -1)
    reversed_champion = replace(champion, ids=champion.ids[back], expected=champion.expected[back], predicted=champion.predicted[back])
    result = error_analysis.changes(candidate, reversed_champion, {})

    assert [change.id for change in result.fixed] == ["01"]
    assert [change.id for change in result.broken] == ["02"]
    assert (result.both_right, result.both_wrong, result.rows) == (2, 0, 4)


def test_long_class_names_are_wrapped_and_truncated() -> None:
    name = "Diseases of the blood and blood-forming organs and certain disorders involving the immune mechanism"
    lines = matrix.wrapped(name, 40, 2)

    assert len(lines) == 2
    assert all(len(words) <= 40 for words in lines)
    assert lines[1].endswith("…")
    assert matrix.wrapped("short", 40, 2) == ["short"]
    assert matrix.wrapped("x" * 90, 40, 2)[0] != ""


def test_heading_of_the_expected_labels_fits() -> None:
    drawing = matrix.confusion_matrix(("a", "b"), np.array([[9, 1], [2, 8]]))
    end = float(re.findall(r'x="([\d.]+)"[^>]*>expected', drawing)[0])

    assert end >= 7 * len("expected ↓")


def test_matrix_of_25_long_names_is_small() -> None:
    labels = [f"{at} " + "a long name of a class " * 4 for at in range(25)]
    drawn = matrix.confusion_matrix(labels, np.ones((25, 25), dtype=np.int64))

    assert drawn.count("<rect") == 25 * 25 + 1
    assert len(drawn) < 150_000


def test_missing_trials_and_history_are_empty(tmp_path: Path) -> None:
    assert read_trials(tmp_path / "trials.parquet") == []
    assert history_entries(read_lines(tmp_path / "history.jsonl")) == []


def test_empty_cells_of_trials_are_read(tmp_path: Path) -> None:
    cells = {"params": [None, '{"epochs": 2}'], "intermediate": ['{"1": null, "2": 0.5, "3": NaN}', None]}
    table = pa.table({"number": [1, 0], "state": ["FAIL", "RUNNING"], "value": [None, 0.5], "seconds": [None, None], **cells})
    pq.write_table(table, tmp_path / "trials.parquet")

    assert read_trials(tmp_path / "trials.parquet") == [
        Trial(0, "RUNNING", 0.5, {"epochs": 2}, None, {}),
        Trial(1, "FAIL", None, {}, None, {2: 0.5}),
    ]
