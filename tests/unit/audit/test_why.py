"""Evidence as a person reads it: of any gate, known or not."""

from pathlib import Path

import pytest

from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role
from components.core.errors import NotFound
from flows.audit.verdict_evidence import as_tested, numbers, whole_digest
from flows.cli.inspect import ROWS_SHOWN, cell_text, show_gate
from tests.support.audit_models import model_of, promoted, version

WORSE = Hypothesis(
    name="short",
    says="worse on [short] texts",
    p=0.0004,
    adjusted=0.0031,
    rejected=True,
    metric="accuracy",
    estimate=-0.12,
    low=-0.2,
    high=-0.04,
)
GATE = GateResult(
    gate="mine",
    outcome=Outcome.FAIL,
    role=Role.BLOCKING,
    reason="worse on [short] texts",
    metric="accuracy",
    estimate=-0.012,
    low=-0.034,
    high=0.01,
    threshold=-0.02,
    n=1_512,
    method="Tango",
    change="a smaller gates.mine.margin",
    hypotheses=(WORSE,),
    notes=("3 slices are too small",),
    tables=(ReportTable(title="by length", columns=("slice", "rows", "loss"), rows=tuple(("short", place, None) for place in range(25))),),
)


def test_a_gate_that_nobody_knew_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show_gate(GATE)

    said = capsys.readouterr().out
    lines = [
        "FAIL  mine (blocking): worse on [short] texts",
        "accuracy -0.012 (-0.034 to 0.01), threshold -0.02, n 1,512, Tango",
        "would change it: a smaller gates.mine.margin",
        "rejects: worse on [short] texts (one-sided p 0.0004, 0.0031 after correction); accuracy -0.12 (-0.2 to -0.04)",
        "3 slices are too small",
        "by length",
        "short  0     –",
        f"… and {25 - ROWS_SHOWN} more rows; --json has them",
    ]
    assert all(line in said for line in lines), said


def test_a_gate_that_measured_nothing_has_no_numbers() -> None:
    assert numbers(GateResult(gate="mine", outcome=Outcome.PASS, reason="nothing to do")) == ""
    assert as_tested(WORSE.model_copy(update={"adjusted": None})) == "worse on [short] texts (one-sided p 0.0004)"


@pytest.mark.parametrize(("cell", "text"), [(None, "–"), (True, "yes"), (False, "no"), (0.123456, "0.1235"), (7, "7"), ("a\nb", "a b")])
def test_a_cell_is_one_line(cell: str | float | int | bool | None, text: str) -> None:
    assert cell_text(cell) == text


def test_an_earlier_verdict_is_named_by_the_beginning_of_its_digest(tmp_path: Path) -> None:
    for digest in ("abc1", "abc2", "def3"):
        promoted(tmp_path, 1, evidence=digest)
    model = model_of(tmp_path, version(1, "champion"), version(2, retune__evidence="bcd4"))

    assert whole_digest(model, 1, "DEF") == "def3"
    assert whole_digest(model, 2, "bc") == "bcd4"  # of a version that was never promoted, nor asked about
    with pytest.raises(NotFound, match="2 known verdicts on version 1 of tickets begin with 'abc'; there are: abc1, abc2, def3"):
        whole_digest(model, 1, "abc")
    with pytest.raises(NotFound, match="0 known verdicts on version 2"):
        whole_digest(model, 2, "abc")
