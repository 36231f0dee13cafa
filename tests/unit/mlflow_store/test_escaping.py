"""Names from user data are escaped: no formula in a spreadsheet, no HTML or Markdown on a page, and no lost text."""

import csv
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from components.artifacts.metrics import Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.core.markdown import cell, escape, unescape
from components.evaluation.evaluate import write_tables
from components.mlflow_store.registry import Version
from components.mlflow_store.registry.verdicts import _described, verdict_text
from flows.pipeline.actions import Result
from flows.pipeline.judge import JudgeResult
from flows.pipeline.pseudo_label import warn_of_formulas
from flows.pipeline.publish_report import in_markdown
from tests.support.finished import write_records

SCRIPT = "</script><script>alert(1)</script>"
HOSTILE = "<img src=x onerror=alert(7)>"


def tables(folder: Path, *labels: str) -> Path:
    """Write the tables of an evaluation with these classes; each label is expected and predicted once."""
    for name in ("data/raw", "data/validated", "data/prepared", "models/tuned", "models/trained/model", "reports/evaluation"):
        (folder / name).mkdir(parents=True)
    (folder / "models/trained/model/model.safetensors").write_bytes(b"")
    write_records(folder, labels)
    names, numbers = np.array(labels), np.array([str(number) for number in range(len(labels))])
    candidate = Predictions(numbers, numbers, names, names, np.eye(len(labels)), labels)
    write_tables(Metrics.read(folder / "reports/evaluation"), candidate, folder)
    return folder


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ('=HYPERLINK("http://…"&A1,"x")', '\'=HYPERLINK("http://…"&A1,"x")'),
        ("@SUM(1+1)*cmd|' /C calc'!A0", "'@SUM(1+1)*cmd|' /C calc'!A0"),
        ("+1+cmd", "'+1+cmd"),
        ("-2+3", "'-2+3"),
        ("- none", "'- none"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1+1", "'＝1+1"),
        ("-1", "-1"),
        ("+2.5e3", "+2.5e3"),
        ("billing", "billing"),
        ("a=b", "a=b"),
        ("x < 5", "x < 5"),
        (SCRIPT, "‹/script>‹script>alert(1)‹/script>"),
        ("<!-- x", "‹!-- x"),
    ],
)
def test_labels_are_neither_formulas_nor_tags(tmp_path: Path, label: str, shown: str) -> None:
    folder = tables(tmp_path, label, "other")
    for name, columns in (("classes.csv", ["label"]), ("confusion.csv", ["expected", "predicted"])):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            first = next(csv.DictReader(file))
        assert [first[column] for column in columns] == [shown] * len(columns)


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    classes = pd.read_csv(tables(tmp_path, "=a", "b") / "classes.csv")
    assert classes[["precision", "rows"]].values.tolist() == [[0.7, 20], [0.7, 20]]


def test_label_cannot_break_out_of_dvc_page(tmp_path: Path) -> None:
    from dvc_render.vega import VegaRenderer

    rows = pd.read_csv(tables(tmp_path, SCRIPT, "other") / "confusion.csv").to_dict("records")
    page = VegaRenderer(rows, "confusion", template="confusion", x="predicted", y="expected").generate_html()
    assert r"\u2039/script>" in page
    assert page.count("</script>") == page.count("<script")


def markdown_of(reason: str, model: str = "tickets") -> str:
    gate = GateResult(gate="fairness", outcome=Outcome.FAIL, reason=reason)
    verdict = Verdict(key="k", candidate="c", champion=None, test_digest="t", outcome=Outcome.FAIL, reason=reason, gates=(gate,))
    plain = {"version": 1, "champion": None, "promoted": False, "up_to_date": False, "page": Path("reports/index.html"), "run": "r"}
    result = Result(model=model, outcome=Outcome.FAIL, reason=reason, **plain)  # type: ignore[arg-type]
    return in_markdown(cast(JudgeResult, SimpleNamespace(verdict=verdict)), result)


def test_verdict_shows_hostile_names_as_text() -> None:
    from markdown_it import MarkdownIt

    hostile = f"no column '{HOSTILE}' [x](http://evil) ![p](http://evil/p.png) **b** `c`|d\n# head"
    text = markdown_of(hostile, model=f"m{HOSTILE}")
    page = MarkdownIt("commonmark").enable("table").render(text)
    assert "<img" not in text
    for tag in ("<img", "<a ", "<strong>", "<code>c", "<h1>head"):
        assert tag not in page
    assert page.count("<td>") == 4  # a pipe adds no cell
    assert "[x](http://evil)" in page


@pytest.mark.parametrize(
    "text", [HOSTILE, "a & b < c", "plain_name", "_x_ *y* `z` [l](u)", "1. first", "- item", "back\\slash", "a|b #c !d"]
)
def test_escaped_text_can_be_unescaped(text: str) -> None:
    assert unescape(escape(text)) == text


def test_text_keeps_lines_and_cells_join_them() -> None:
    assert escape("a\n  b<c") == "a\nb&lt;c"
    assert cell("a\n  b") == "a b"


def test_description_escapes_reason() -> None:
    verdict = Verdict(key="k", candidate="c", champion=None, test_digest="t", outcome=Outcome.FAIL, reason=f"column {HOSTILE}", gates=())
    description = _described("Fine-tuned.", verdict)
    assert "<img" not in description
    version = Version("tickets", 1, "r", "k", True, description=description)
    assert verdict_text(version) == f"FAIL: column {HOSTILE}"


@pytest.mark.parametrize(("name", "warned"), [("out.csv", True), ("out.tsv", True), ("out.jsonl", False)])
def test_formulas_in_training_rows_are_logged(tmp_path: Path, name: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_formulas(pd.DataFrame({"text": ["=1+1", "plain", None], "label": ["@x", "a", "b"]}), tmp_path / name)
    assert ("2 cells start with" in caplog.text) == warned
