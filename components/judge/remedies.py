"""Check what the gates advise: apply each remedy, let the gate decide again, and keep the remedy if the outcome is the stated one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from components.artifacts.verdict import GateResult, Outcome, Remedy
from components.gates import load
from components.gates.support import Evidence, GateSection
from components.judge.multiple_testing import correct_tests


def with_checked_remedies(evidence: Evidence, sections: Mapping[str, GateSection], results: Sequence[GateResult]) -> tuple[GateResult, ...]:
    """Return the corrected `results` of all gates with their checked remedies in `change`; `sections` are the gates' settings."""
    quick = replace(evidence, crosscheck=False)
    checked = []
    for at, result in enumerate(results):
        others = [each for each in result.remedies if each.outcome is not result.outcome]
        kept = [_sentence(result.gate, each) for each in others if _outcome(quick, sections, results, at, each) is each.outcome]
        change = "; or ".join([*kept, *([result.change] if result.change else [])])
        checked.append(result.model_copy(update={"change": change or None, "remedies": ()}))
    return tuple(checked)


def _outcome(
    evidence: Evidence, sections: Mapping[str, GateSection], results: Sequence[GateResult], at: int, remedy: Remedy
) -> Outcome | None:
    """Return the outcome of the gate at `at` with the settings of `remedy`, corrected with all others; None if they are invalid."""
    name = results[at].gate
    try:
        section = type(sections[name]).model_validate(_updated(sections[name].model_dump(), remedy.settings))
    except ValidationError:
        return None
    bounds = {metric: evidence.metric_set.measures[metric].bounds for metric in evidence.metric_set.metrics}
    if any(section.faults(bounds, tuple(evidence.baselines))):
        return None
    again = load(name).decide(evidence, section).model_copy(update={"role": section.role})
    return correct_tests([*results[:at], again, *results[at + 1 :]])[at].outcome


def _updated(section: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `section` with the `settings`, whose names may be paths such as `at_most.typos`."""
    for path, value in settings.items():
        name, _, rest = path.partition(".")
        section = section | {name: _updated(section[name], {rest: value}) if rest else value}
    return section


def _sentence(gate: str, remedy: Remedy) -> str:
    settings = " and ".join(f"`gates.{gate}.{name}: {_text(value)}`" for name, value in remedy.settings.items())
    return f"{remedy.outcome} with {settings}"


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"
