"""The leaderboard of an automatic search on the page and on the card."""

from pathlib import Path

import pytest

from components.report import Run, write_card
from components.report.leaderboard import _best_so_far, best_over_time, optimism, summary
from tests.support.leaderboards import candidate, leaderboard
from tests.support.reported import EVIL, Node, finished_run, lineage, page, section, verdict


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return finished_run(tmp_path)


def searched(workspace: Path) -> Node:
    return section(page(workspace), "search")


def test_leaderboard_replaces_the_list_of_trials(workspace: Path) -> None:
    leaderboard().write(workspace / "models/tuned")
    words = searched(workspace).words

    assert "6 candidates (3 complete, 1 stopped early, 1 failed, 1 skipped)" in words
    assert "The winner is candidate 1, lora, rank 16 : 0.003 below the best" in words
    assert "All 3 trials" not in words


def test_every_candidate_has_a_row_with_its_reason(workspace: Path) -> None:
    leaderboard().write(workspace / "models/tuned")
    rows = [row.words for row in searched(workspace).all("tr")]

    assert [next(row for row in rows if entry.name in row) for entry in leaderboard().candidates]
    assert any("ran out of memory with a batch of 1" in row for row in rows)
    assert any("needs 9 minutes, 1 is left" in row for row in rows)


def test_winner_is_marked_in_its_row(workspace: Path) -> None:
    leaderboard().write(workspace / "models/tuned")
    marked = [row for row in searched(workspace).all("tr") if row.attributes.get("class") == "winner"]

    assert [row.words.split(" winner")[0] for row in marked] == ["1 lora, rank 16"]


def test_plot_has_a_mark_per_tried_candidate(workspace: Path) -> None:
    leaderboard().write(workspace / "models/tuned")
    plot = next(svg for svg in searched(workspace).all("svg") if "over time" in str(svg.attributes.get("aria-label")))

    assert len([node for node in plot.all("path") if "mark" in str(node.attributes.get("class"))]) == 5


def test_plot_uses_scores_on_the_usual_split() -> None:
    board = leaderboard(candidate(0, "a", 0.5), candidate(1, "b", 0.4, holdouts=3, first_score=0.6), seconds=60.0)

    assert list(_best_so_far(board)) == [(30.0, 0.5), (60.0, 0.5), (60.0, 0.6), (60.0, 0.6)]


def test_label_of_the_plot_has_the_result() -> None:
    board = leaderboard(candidate(0, "a", 0.519, ended_at=4.0), candidate(1, "b", 0.551, ended_at=60.0))

    assert "over time: rises from 0.519 at 4\u202fs to 0.551 at 60\u202fs" in best_over_time(board)
    assert "over time: 0.519 at 30\u202fs, and no rise" in best_over_time(leaderboard(candidate(0, "a", 0.519)))


def test_candidate_of_an_earlier_search_has_no_dot_and_no_share(workspace: Path) -> None:
    leaderboard(candidate(0, "a", 0.5, carried=True), candidate(1, "b", 0.4)).write(workspace / "models/tuned")
    row = next(row.words for row in searched(workspace).all("tr") if "a" in row.words.split())

    assert row.endswith("none before")
    assert "carried over from an earlier search" in row
    plot = next(svg for svg in searched(workspace).all("svg") if "over time" in str(svg.attributes.get("aria-label")))
    assert len([node for node in plot.all("path") if "mark" in str(node.attributes.get("class"))]) == 1


def test_table_has_the_time_at_which_a_candidate_ended(workspace: Path) -> None:
    leaderboard().write(workspace / "models/tuned")
    row = next(row.words for row in searched(workspace).all("tr") if "full, mean pooling" in row.words)

    assert row.endswith("4 min 10 s")
    assert "3 hold-outs validation split 0.560" in row


def test_long_leaderboard_is_folded(workspace: Path) -> None:
    leaderboard(*(candidate(number, f"full, {number}", 0.5) for number in range(25))).write(workspace / "models/tuned")
    folded = next(node for node in searched(workspace).all("details") if "15 more candidates" in node.words)

    assert len(folded.all("tbody")[0].all("tr")) == 15


def test_best_score_rises_in_steps() -> None:
    board = leaderboard(candidate(0, "a", 0.5), candidate(1, "b", 0.4), candidate(2, "c", 0.6), seconds=100.0)

    assert list(_best_so_far(board)) == [(30.0, 0.5), (90.0, 0.5), (90.0, 0.6), (100.0, 0.6)]


def test_stopped_candidate_is_not_the_best_so_far() -> None:
    board = leaderboard(candidate(0, "a", 0.5), candidate(1, "b", 0.9, state="stopped"), seconds=60.0)

    assert [score for _, score in _best_so_far(board)] == [0.5, 0.5]


def test_optimism_is_a_sentence_with_its_interval() -> None:
    assert "+0.012 (95 % interval \u22120.004 to +0.029)" in optimism(leaderboard())
    assert optimism(leaderboard(optimism=None)) == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.012, 0.004, 0.029), "; expect that much less on new rows."),
        ((0.012, -0.004, 0.029), "; not different from 0."),
        ((0.0, 0.0, 0.0), "; not different from 0."),
        ((-0.012, -0.02, -0.004), "; expect that much more on new rows."),
    ],
)
def test_optimism_says_what_to_expect(values: tuple[float, float, float], words: str) -> None:
    assert optimism(leaderboard(optimism=values)).endswith(words)


def test_search_without_candidates_shows_its_trials(workspace: Path) -> None:
    leaderboard().model_copy(update={"candidates": ()}).write(workspace / "models/tuned")

    assert "All 3 trials" in searched(workspace).words


def test_leaderboard_of_failures_has_no_plot(workspace: Path) -> None:
    leaderboard(candidate(0, "a", state="failed", reason="no memory")).write(workspace / "models/tuned")
    words = searched(workspace).words

    assert "no memory" in words
    assert "stepped line" not in words


def test_texts_of_candidates_are_escaped(workspace: Path) -> None:
    entry = candidate(0, EVIL, 0.5, base=EVIL, method=EVIL, reason=EVIL, winner=True, task_options={EVIL: EVIL}, settings={EVIL: EVIL})
    leaderboard(entry, notes=(EVIL,), plan=EVIL, metric=EVIL).write(workspace / "models/tuned")

    assert not page(workspace).all("script")


def test_card_names_the_winner(workspace: Path, tmp_path: Path) -> None:
    leaderboard().write(workspace / "models/tuned")
    text = write_card(workspace, tmp_path / "card", Run(lineage(), verdict()))[0].read_text(encoding="utf-8")

    assert "Chosen from 5 candidates" in text
    assert "lora, rank 16 with macro-F1 0.548" in text


def test_summary_of_a_search_without_winner_is_empty() -> None:
    assert summary(leaderboard(candidate(0, "a", state="failed"))) == ""


def test_winner_without_interval_is_shown(workspace: Path) -> None:
    leaderboard(candidate(0, "probe", 0.5, low=None, high=None, winner=True)).write(workspace / "models/tuned")

    assert "0.500" in searched(workspace).words
