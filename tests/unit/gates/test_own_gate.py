"""A gate of the user: its settings are checked against the task, and its evidence is gathered, with no other file changed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from components import gates
from components.artifacts.verdict import Outcome
from components.core.errors import BadParams
from components.evaluation.metric_set import decidable_metrics
from components.gates.support.evidence_settings import EVIDENCE_SETTINGS, CostSettings, OverlapSettings, PastTestSettings
from components.judge import check_metrics, decide
from components.model import tasks
from flows.pipeline import evidence
from tests.support.gate_cases import against, models
from tests.support.gate_files import add_gate

RETRY = '''"""Retry: the size of the package, and a metric."""

from pydantic import Field

from components.artifacts.verdict import GateResult, Outcome
from components.gates.support import Evidence, GateSection, MetricName, Need
from components.gates.support.evidence_settings import CostSettings

NEEDS: frozenset[Need] = frozenset({"cost", "past_test_sets"})


class Params(CostSettings, GateSection):
    """Settings of the test's gate."""

    metric: MetricName = Field("accuracy", description="a metric of the task")
    more: tuple[MetricName, ...] = Field((), description="further metrics")
    word: str = Field("anything", description="not a metric")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if the metric is above 0."""
    outcome = Outcome.PASS if evidence.score(params.metric).value > 0 else Outcome.INCONCLUSIVE
    return GateResult(gate="retry", outcome=outcome, reason="fine")
'''
OFF = {name: {"role": "off"} for name in gates.available()}
TASK = tasks.load("text_classification")


@pytest.fixture
def sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return add_gate(tmp_path / "gates", monkeypatch, "retry", RETRY)


def check(params: Any) -> None:
    check_metrics(params, decidable_metrics(TASK), TASK.baselines)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        ({"metric": "acuracy"}, "params.yaml: gates.retry.metric: unknown metric 'acuracy'; did you mean 'accuracy'?"),
        ({"more": ["macro_f1", "micro_f2"]}, "params.yaml: gates.retry.more: unknown metric 'micro_f2'; did you mean"),
    ],
)
def test_metrics_of_an_own_gate_are_checked(sections: Any, raw: dict[str, Any], fault: str) -> None:
    with pytest.raises(BadParams) as error:
        check(sections.parse({"retry": raw}, "gates"))

    assert str(error.value).startswith(fault)
    check(sections.parse({"retry": {"word": "acuracy", "more": ["macro_f1"]}}, "gates"))
    check(sections.parse({"retry": raw | {"role": "off"}}, "gates"))


def test_faults_of_all_gates_are_listed(sections: Any) -> None:
    with pytest.raises(BadParams) as error:
        check(sections.parse({"floor": {"at_least": 2}, "retry": {"metric": "x"}, "baseline": {"against": "y", "margin": 1}}, "gates"))

    assert [line.split(":")[1] for line in str(error.value).splitlines()] == [
        " gates.baseline.against",
        " gates.baseline.margin",
        " gates.floor.at_least",
        " gates.retry.metric",
    ]


def test_own_gate_decides_and_declares_its_evidence(sections: Any) -> None:
    champion, candidate = models(60, 0.6)
    params = sections.parse({**OFF, "retry": {}}, "gates")

    assert [(result.gate, result.outcome) for result in decide(against(candidate, champion), params)] == [("retry", Outcome.PASS)]
    assert gates.needs(params) == {"cost", "past_test_sets"}


def test_settings_of_evidence_are_those_of_the_enabled_gate(sections: Any) -> None:
    def owner(raw: dict[str, Any]) -> tuple[str, int]:
        name, section = gates.settings_of(sections.parse(raw, "gates"), CostSettings)
        return name, section.pairs

    assert owner({"cost": {"pairs": 30}, "retry": {"role": "off"}}) == ("cost", 30)
    assert owner({"cost": {"pairs": 30, "role": "off"}, "retry": {"pairs": 40}}) == ("retry", 40)
    assert owner({**OFF, "cost": {"pairs": 30, "role": "off"}, "retry": {"role": "off"}}) == ("cost", 30)
    past = sections.parse({**OFF, "forgetting": {"role": "off", "last": 2}}, "gates")
    assert gates.settings_of(past, PastTestSettings)[1].last == 2  # `retry` needs the evidence but has no settings for it


def test_enabled_gates_agree_on_the_settings_of_evidence(sections: Any) -> None:
    fault = "gates.retry.pairs: expected 20 as in gates.cost, because both gates use the same evidence, found 40"
    with pytest.raises(BadParams, match=fault):
        check(sections.parse({"retry": {"pairs": 40}}, "gates"))

    check(sections.parse({"retry": {"pairs": 40}, "cost": {"role": "off"}}, "gates"))
    check(sections.parse({"retry": {"pairs": 40}, "cost": {"pairs": 40}}, "gates"))


def test_settings_have_defaults_without_any_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(gates.settings_of(gates.GatesParams(), kind)[0] for kind in EVIDENCE_SETTINGS)
    monkeypatch.setattr(gates, "available", lambda: ["floor"])

    assert gates.settings_of(gates.GatesParams(), OverlapSettings) == ("", OverlapSettings())


def test_cost_is_measured_with_the_settings_of_the_own_gate(sections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    params = sections.parse({**OFF, "retry": {"pairs": 40, "batch_sizes": [3]}}, "gates")
    version, sessions = SimpleNamespace(name="m", number=1), SimpleNamespace(session=lambda version: version)
    monkeypatch.setattr(evidence.registry, "package_bytes", lambda *_: 8)
    monkeypatch.setattr(evidence.registry, "measure", lambda *_, **settings: settings)

    measured: Any = evidence.measure_latency("", sessions, version, None, pd.DataFrame({"text": ["a"]}), params)
    assert (measured["pairs"], measured["batch_sizes"], measured["sizes"]) == (40, (3,), (8, None))


def test_files_of_evidence_are_named_by_the_gate_that_controls_it(sections: Any, tmp_path: Path) -> None:
    workspace: Any = SimpleNamespace(origin=tmp_path)
    raw = {**OFF, "forgetting": {"role": "off", "sets": ["old.csv"]}, "behaviour": {"role": "off", "cases": "cases.yaml"}}

    assert evidence.outside_files(workspace, sections.parse(raw, "gates")) == {"gates.forgetting.sets: old.csv": tmp_path / "old.csv"}
    raw["retry"] = {"role": "off"}
    assert evidence.outside_files(workspace, sections.parse(raw, "gates")) == {}
    raw["behaviour"] = {"cases": "cases.yaml"}
    assert evidence.outside_files(workspace, sections.parse(raw, "gates")) == {"gates.behaviour.cases": tmp_path / "cases.yaml"}
