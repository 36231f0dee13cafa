"""The questions of the example are generated and valid."""

import json
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pandas as pd
import pytest

from components.model import tasks
from components.model.tasks.question_answering import squad
from flows.project.params import read_params

FOLDER = Path(__file__).parents[3] / "examples/question_answering"

pytestmark = pytest.mark.skipif(find_spec("simple_icd_10_cm") is None, reason="simple-icd-10-cm is not installed")


@pytest.fixture(scope="module")
def module():
    spec = spec_from_file_location("make_data", FOLDER / "make_data.py")
    loaded = module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def articles(module):
    return module.build(module.edition())


@pytest.mark.slow
def test_every_question_is_valid(module, articles):
    rows = pd.DataFrame(squad.rows({"data": articles}, "title"))
    rows = rows.assign(answers=[json.dumps(cell) for cell in rows["answers"]])
    read, faults = tasks.load("question_answering", {"unanswerable": True}).read(rows)

    assert not faults
    assert rows["id"].is_unique
    assert len(rows) > 2_000
    assert 0.15 < (read["label"] == "[]").mean() < 0.25
    assert read["group"].nunique() == read["context"].nunique() == len(articles)
    assert {name.rpartition("-")[2] for name in rows["id"]} == set(module.TEMPLATES)


def test_unanswerable_terms_are_not_in_the_context(module, articles):
    impossible = 0
    for article in articles:
        (paragraph,) = article["paragraphs"]
        for question in paragraph["qas"]:
            form = question["id"].rpartition("-")[2]
            parts = (template.split("{}") for template in module.TEMPLATES[form])
            before, after = next(
                part for part in parts if question["question"].startswith(part[0]) and question["question"].endswith(part[1])
            )
            term = (
                question["question"].removeprefix(before).removesuffix(after)
                if form in ("code", "synonym")
                else module.INTRODUCTIONS.get(form)
            )
            impossible += question["is_impossible"]
            assert not question["is_impossible"] or term.casefold() not in paragraph["context"].casefold()
    assert impossible > 300


def test_settings_match_the_task():
    params = read_params(FOLDER / "params.yaml")

    assert params.task == "question_answering"
    assert params.made_task.options.unanswerable
