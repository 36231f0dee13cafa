"""docs/tasks.md matches the code of every task."""

import re
from typing import Any, Literal, get_origin

import pytest
import yaml

from components.core.errors import BadParams
from components.model import tasks
from flows.cli.tasks import describe_task
from tests.support import encoders, families, question_answering_families, tiny_generators, token_classification_families
from tests.support.project import ROOT

PAGE = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
FAMILIES = {
    "text_classification": families.FAMILIES,
    "token_classification": token_classification_families.FAMILIES,
    "question_answering": question_answering_families.FAMILIES,
    "sequence_to_sequence": tiny_generators.SEQUENCE_FAMILIES,
    "causal_lm": tiny_generators.CAUSAL_FAMILIES,
    "masked_lm": encoders.FAMILIES,
    "contrastive": encoders.FAMILIES,
}


def names(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def tables() -> dict[str, list[list[str]]]:
    """Return the cells of each table by the header of its second column."""
    by_header = {}
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in block.splitlines())
        by_header[head[1]] = rows
    return by_header


def described(name: str, options: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    description = describe_task(name, options)
    return tuple(tuple(description[key]) for key in ("columns", "metrics", "baselines", "slices"))


DOCUMENTED = [(names(task)[0], names(options)[0], tuple(map(names, cells))) for task, options, *cells in tables()["`task_options`"]]


@pytest.mark.parametrize(("name", "options", "cells"), DOCUMENTED)
def test_table_rows_match_the_task(name: str, options: str, cells: tuple[tuple[str, ...], ...]) -> None:
    assert cells == described(name, yaml.safe_load(options))


@pytest.mark.parametrize("name", tasks.available())
def test_table_covers_every_option(name: str) -> None:
    rows = {cells for task, _, cells in DOCUMENTED if task == name}
    combinations = [{}]
    for field, info in tasks.load(name).Options.model_fields.items():
        choices = info.annotation.__args__ if get_origin(info.annotation) is Literal else [True, False] if info.annotation is bool else []
        combinations += [{field: choice} for choice in choices]
    descriptions = [described(name, options) for options in combinations if is_valid(name, options)]

    assert len(descriptions) > len(combinations) / 2
    assert set(descriptions) <= rows


def is_valid(name: str, options: dict[str, Any]) -> bool:
    try:
        tasks.load(name, options)
    except BadParams:
        return False
    return True


@pytest.mark.parametrize("table", ["served input and answer", "`task_options`", "families", "option"])
def test_every_task_is_in_every_table(table: str) -> None:
    assert {names(row[0])[0] for row in tables()[table]} == set(tasks.available())


def test_documented_options_exist() -> None:
    for task, option, _ in tables()["option"]:
        assert set(names(option)) <= set(tasks.load(names(task)[0]).Options.model_fields), (task, option)


def test_documented_families_are_tested() -> None:
    documented = {names(task)[0]: names(families) for task, families in tables()["families"]}

    assert documented == dict.fromkeys(tasks.available(), ()) | {name: tuple(families) for name, families in FAMILIES.items()}
