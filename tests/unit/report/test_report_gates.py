"""The gates on the page: order, roles and evidence, independent of gate names."""

from pathlib import Path

import pytest

from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role
from components.report import ChampionFacts, forests, panel
from components.report.wording import THIN
from tests.support.finished import estimate
from tests.support.judged import CHAPTERS, difference, gate, judged
from tests.support.reported import EVIL, Node, finished_run, lineage, page, section


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def failed(workspace: Path) -> Node:
    return page(workspace, verdict=judged(Outcome.FAIL), version="4", champion=ChampionFacts("3", {"macro_f1": estimate(0.73)}))


def evidence_sections(root: Node) -> dict[str, Node]:
    """Return the evidence section of each gate by its name."""
    return {str(node.all("b")[0].words): node for node in root.all("details") if node.attributes.get("class") == "evidence"}


def classed(root: Node, name: str, tag: str) -> list[Node]:
    return [node for node in root.all(tag) if name in str(node.attributes.get("class")).split()]


def test_gates_are_ordered_by_role(failed: Node) -> None:
    heads = [row.words for row in classed(section(failed, "gates"), "head", "tr")]

    assert [words.split()[0] for words in heads] == ["Required", "Blocking", "Informational"]
    assert list(evidence_sections(failed)) == [
        *("floor", "baseline", "champion", "best champion", "test budget", "servability"),
        *("slices", "behaviour", "calibration", "cost", "forgetting", "leakage", "house rule 42"),
    ]


def test_every_gate_is_in_the_figure_with_its_evidence(failed: Node) -> None:
    links = [link.attributes["href"] for link in classed(section(failed, "gates"), "gate", "a")]
    anchors = [f"#{node.attributes['id']}" for node in evidence_sections(failed).values()]

    assert len(links) == len(set(links)) == len(judged().gates)
    assert links == anchors


def test_gate_without_an_interval_shows_its_reason(failed: Node) -> None:
    lines = [cell.words for cell in classed(section(failed, "gates"), "line", "td")]

    assert [line.split()[0] for line in lines] == ["candidate", "version", "not", "no"]


def test_gate_that_is_not_applicable_has_no_tick(workspace: Path) -> None:
    alone = GateResult.not_applicable("champion", "there is no champion yet")
    root = page(workspace, verdict=judged().model_copy(update={"gates": (*judged().gates[:2], alone)}))
    shown = [node.words for node in classed(section(root, "gates"), "not-applicable", "span")]

    assert shown == ["NOT APPLICABLE"] * 2  # in the figure and in the evidence
    assert "2 passed, 1 not applicable" in section(root, "gates").words
    assert not [node for node in classed(section(root, "gates"), "pass", "span") if "champion" in node.words]


def test_obstacles_are_open_and_listed_in_the_verdict(failed: Node, workspace: Path) -> None:
    assert [name for name, node in evidence_sections(failed).items() if "open" in node.attributes] == ["slices"]
    assert "What would change slices : PASS when the slice is no worse" in section(failed, "verdict").words

    undecided = page(workspace, verdict=judged(Outcome.INCONCLUSIVE))
    assert [name for name, node in evidence_sections(undecided).items() if "open" in node.attributes] == ["champion"]
    assert "PASS with a margin above 0.024, or: with 6,120 test rows" in section(undecided, "verdict").words


def test_passing_candidate_has_no_obstacles(workspace: Path) -> None:
    root = page(workspace, verdict=judged(Outcome.PASS))

    assert not [name for name, node in evidence_sections(root).items() if "open" in node.attributes]
    assert "What would change" not in section(root, "verdict").words


def test_rejected_slice_comes_first(failed: Node) -> None:
    slices = evidence_sections(failed)["slices"]
    rows = [row for table in classed(slices, "ways", "table") for body in table.all("tbody") for row in body.all("tr")]

    assert len(rows) == len(CHAPTERS) + 1 == 23
    assert "rejected" in rows[0].words
    assert "−0.141 [−0.219 to −0.063]" in rows[0].words
    assert not any("rejected" in row.words for row in rows[1:])
    assert "13 more hypotheses" in slices.words


def test_long_table_is_folded(failed: Node) -> None:
    leakage = evidence_sections(failed)["leakage"]

    assert len(classed(leakage, "grid-table", "table")[0].all("tbody")[0].all("tr")) == panel.SHOWN_ROWS
    assert f"{3 * len(CHAPTERS) - panel.SHOWN_ROWS} more rows" in leakage.words


def test_rules_and_self_test_are_shown(failed: Node) -> None:
    words = section(failed, "gates").words

    assert "one-sided 1 %" in words
    assert "candidate 2 on this test set" in words
    assert "All 27 hypotheses that may reject are corrected together (Holm): 1 is rejected" in words
    assert "answers shuffled over the rows: champion FAIL" in words
    assert "Off: fairness" in words
    assert "6 blocking (3 passed, 2 inconclusive, 1 failed)" in words


def test_informational_gate_is_not_corrected(failed: Node) -> None:
    assert "p is not corrected and nothing is rejected" in evidence_sections(failed)["house rule 42"].words


def test_unknown_gate_with_odd_values_is_shown(workspace: Path) -> None:
    odd = GateResult(
        gate=EVIL,
        outcome=Outcome.INCONCLUSIVE,
        reason=EVIL * 200,
        change=EVIL,
        metric=EVIL,
        estimate=float("nan"),
        low=float("-inf"),
        notes=(EVIL,) * 40,
        hypotheses=(
            Hypothesis(name=EVIL, says=EVIL, p=0.0, adjusted=0.0, rejected=True, estimate=float("inf"), metric=EVIL),
            Hypothesis(name="huge", says="", p=1.0, adjusted=1.0, estimate=-4e9, low=None, high=5e9),
        ),
        tables=(
            ReportTable(title=EVIL, columns=(EVIL, "b"), rows=((EVIL, 1, True, None), (), (float("nan"),))),
            ReportTable(title="", columns=(), rows=()),
            ReportTable(title="long", columns=("n",), rows=tuple((at,) for at in range(1_000))),
        ),
    )
    verdict = judged().model_copy(update={"gates": (odd,), "off": (EVIL,), "tested": (EVIL,), "outcome": Outcome.INCONCLUSIVE})
    root = page(workspace, verdict=verdict)

    assert not root.all("script")
    evidence = next(iter(evidence_sections(root).values()))
    assert "<script>" in evidence.words
    assert "10 more in verdict.json" in evidence.words
    assert "700 rows more in verdict.json" in evidence.words
    html = (workspace / "reports/index.html").read_text(encoding="utf-8")
    assert "\x07" not in html
    assert "\u202e" not in html
    assert "nan" not in evidence.words


def test_truncated_text_is_complete_in_its_title(workspace: Path) -> None:
    long = "because " * 100
    gates = (judged().gates[0].model_copy(update={"outcome": Outcome.FAIL, "reason": long}),)
    root = page(workspace, verdict=judged().model_copy(update={"gates": gates, "reason": long}))

    cut = [node for node in section(root, "verdict").all("bdi") if node.attributes.get("title")]
    assert cut[0].words.endswith("…")
    assert str(cut[0].attributes["title"]).strip() == long.strip()


def test_gates_of_a_role_share_an_axis() -> None:
    groups = panel.panel(judged())["gate_groups"]

    assert [group.axis is not None for group in groups] == [True, True, False]
    assert [view.gate.gate for view in groups[1].drawn] == ["behaviour", "slices", "calibration"]


def test_differences_share_a_scale() -> None:
    better = [difference(f"{metric} worse", 0.016, 0.01, 0.9, 1.0, metric) for metric in ("accuracy", "macro_f1")]
    rate = Hypothesis(name="typos", says="", p=0.5, adjusted=1.0, metric="failing cases", estimate=0.08, low=0.02, high=0.2)
    champion = gate("champion", "", metric="accuracy", estimate=0.016, low=0.006, high=0.026, threshold=-0.02, hypotheses=better)
    behaviour = gate(
        "behaviour", "", metric="failing cases, typos", threshold=0.1, hypotheses=(rate, difference("more", 0.01, 0.1, 0.4, 1.0))
    )

    assert [(len(family.ways), family.signs) for family in panel.families(champion)] == [(2, True)]
    assert [(len(family.ways), family.signs) for family in panel.families(behaviour)] == [(1, True), (1, False)]


def test_numbers_of_a_column_have_the_same_decimals() -> None:
    table = ReportTable(title="", columns=("share", "p", "rows", "late"), rows=((0.9, 1e-6, 1_204, None), (0.914, 0.5, 3, 84.25)))
    shown = panel.grid(table)

    assert [kind for _, kind in shown.columns] == ["number"] * 4
    assert shown.rows == (("0.900", "1 × 10⁻⁶".replace(" ", THIN), f"1{THIN}204", "–"), ("0.914", "0.5", "3", "84.2"))
    assert forests.amount(2.4e-7) == "2.4 × 10⁻⁷".replace(" ", THIN)
    assert forests.amount(41.0) == "41"


@pytest.mark.parametrize(("role", "outcome", "blocks"), [
    (Role.REQUIRED, Outcome.FAIL, True),
    (Role.REQUIRED, Outcome.INCONCLUSIVE, True),
    (Role.BLOCKING, Outcome.FAIL, True),
    (Role.BLOCKING, Outcome.INCONCLUSIVE, False),
    (Role.INFORMATIONAL, Outcome.FAIL, False),
    (Role.REQUIRED, Outcome.PASS, False),
])  # fmt: skip
def test_which_gates_prevent_the_promotion(role: Role, outcome: Outcome, blocks: bool) -> None:
    gate = GateResult(gate="g", outcome=outcome, reason="", role=role)
    assert panel.GateView(gate, None, False, False, "gate-1", (), ()).obstacle is blocks


def test_parameters_and_packages_are_compared(workspace: Path) -> None:
    before = lineage().model_copy(update={"packages": {"torch": "2.12.0"}, "git_commit": "9" * 40})
    champion = ChampionFacts(
        "3",
        {},
        settings={"learning_rate": "0.001", "epochs": 2},
        params={"preprocess": {"max_length": 32}, "train": {"learning_rate": "tuned"}, "seed": 7},
        lineage=before,
    )
    params = {"preprocess": {"max_length": 64}, "train": {"learning_rate": "tuned"}, "seed": 7.0}
    changes = section(page(workspace, champion=champion, params=params), "changes")

    assert [row.words for row in changes.all("tbody")[0].all("tr")] == ["preprocess.max_length 32 64", "train.epochs 2 3"]
    assert "git commit 999999999999 4ab115000000 changed" in changes.words
    assert "base model bbbbbbbbbbbb bbbbbbbbbbbb the same" in changes.words
    assert "1 package with another version torch 2.12.0 → 2.13.0" in changes.words


def test_page_contains_the_commands(failed: Node) -> None:
    words = section(failed, "lineage").words

    for command in ("retune rebuild diagnosis 4", "retune why diagnosis 4", "retune diff diagnosis 3 4", "retune rollback diagnosis --why"):
        assert command in words
