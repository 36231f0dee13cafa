"""The gates between a candidate and production: one file a gate, found by name; `judge` folds them into a verdict.

Pure: reads predictions that others made, writes nothing. A file `NAME.py` here offers `Params`, its section `gates.NAME` of
params.yaml, and `decide`; nothing else needs to change.
"""

import importlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import Field, create_model

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome, Verdict
from components.errors import BadParams, RetuneError
from components.gates._evidence import CONFIDENCE, LEVEL, Evidence, Gate
from components.identity import digest_value
from components.params import Section, nearest

__all__ = ["CONFIDENCE", "LEVEL", "Evidence", "Gate", "GatesParams", "available", "judge", "load", "verdict_key"]

FOLDER = Path(__file__).parent


def available() -> list[str]:
    """Return the names of all gates, sorted: the files of this folder."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def load(name: str) -> Gate:
    """Return the gate called `name`.

    Raises:
        BadParams: there is no such file.
    """
    if name not in available():
        raise BadParams(f"unknown gate {name!r}{nearest(name, available())}")
    return cast(Gate, importlib.import_module(f"components.gates.{name}"))


def _sections() -> Any:
    """Return a section with one field a gate, so that a gate's settings stand at gates.NAME without a list to edit."""
    fields: dict[str, Any] = {}
    for name in available():
        params = load(name).Params
        fields[name] = (params, Field(default_factory=params, description=str(params.__doc__).splitlines()[0]))
    return create_model("_Sections", __base__=Section, **fields)


class GatesParams(_sections()):  # type: ignore[misc]
    """Who decides whether the candidate replaces the champion: one section a gate."""


def verdict_key(candidate: str, champion: str | None, test_digest: str, gates: GatesParams, min_class_units: int) -> str:
    """Return what a verdict depends on, as one hash: look it up before scoring the champion anew.

    `candidate` and `champion` are digests: a version's number would mean another model in another registry. The settings are
    those of `gates` and `evaluate.min_class_units`, which decides the classes that macro-F1 runs over.
    """
    settings = {"gates": gates.model_dump(mode="json"), "min_class_units": min_class_units}
    return digest_value({"candidate": candidate, "champion": champion, "test": test_digest, "settings": settings})


def judge(
    candidate: Predictions,
    baselines: Mapping[str, Predictions],
    champion: Predictions | None,
    *,
    champion_version: str | None,
    champion_key: str | None = None,
    candidate_digest: str,
    test_digest: str,
    gates: GatesParams,
    min_class_units: int,
) -> Verdict:
    """Ask every gate and fold: any FAIL is FAIL, else any INCONCLUSIVE is INCONCLUSIVE, else PASS.

    `champion_version` is what the reasons call the champion; `champion_key` is its digest, by which the verdict is found again.

    Raises:
        RetuneError: the predictions are not of the same test rows; the message says which and how they differ.
    """
    others = dict(baselines) if champion is None else {**baselines, f"champion version {champion_version}": champion}
    for name, predictions in others.items():
        _check_same_rows(candidate, predictions, name)
    evidence = Evidence(candidate, baselines, champion, champion_version, min_class_units)
    results = tuple(load(name).decide(evidence, getattr(gates, name)) for name in available())
    outcome = _fold(results)
    return Verdict(
        key=verdict_key(candidate_digest, champion_key or champion_version, test_digest, gates, min_class_units),
        candidate=candidate_digest,
        champion=champion_version,
        test_digest=test_digest,
        outcome=outcome,
        reason=_reason(outcome, results),
        gates=results,
    )


def _fold(results: tuple[GateResult, ...]) -> Outcome:
    outcomes = {result.outcome for result in results}
    return next((worst for worst in (Outcome.FAIL, Outcome.INCONCLUSIVE) if worst in outcomes), Outcome.PASS)


def _reason(outcome: Outcome, results: tuple[GateResult, ...]) -> str:
    if outcome is Outcome.PASS:
        return f"All {len(results)} gates pass."
    return " ".join(f"{result.gate}: {result.reason}." for result in results if result.outcome is outcome)


def _check_same_rows(candidate: Predictions, other: Predictions, name: str) -> None:
    """Refuse to compare row by row what are not the same rows."""
    if not np.array_equal(candidate.ids, other.ids):
        mine, theirs = Counter(candidate.ids.tolist()), Counter(other.ids.tolist())
        missing, extra = sorted((mine - theirs).elements()), sorted((theirs - mine).elements())
        found = f"{len(missing)} missing{_first(missing)}, {len(extra)} unknown{_first(extra)}" if missing or extra else "another order"
        raise RetuneError(f"predictions of {name} are not of the candidate's {len(candidate.ids)} test rows: {found}; predict again")
    changed = np.flatnonzero(candidate.expected != other.expected)
    if len(changed):
        row = str(candidate.ids[changed[0]])
        raise RetuneError(f"predictions of {name} expect another label on {len(changed)} test rows, first {row!r}; predict again")


def _first(ids: list[str]) -> str:
    return f" (first {ids[0]!r})" if ids else ""
