"""The verdict: run every gate, correct for multiple tests, and combine the results into one outcome. Pure: writes nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Role, Verdict
from components.core.errors import BadParams, RetuneError
from components.core.hashing import digest_value
from components.core.section import nearest
from components.gates import GatesParams, available, load
from components.gates.baseline import STRONGEST
from components.gates.support.evidence import Evidence
from components.judge.multiple_testing import combine, correct_tests


def verdict_key(
    candidate: str,
    champion: str | None,
    test_digest: str,
    gates: GatesParams,
    min_class_units: int,
    *,
    anchor: str | None = None,
    outside: Mapping[str, str] | None = None,
) -> str:
    """Return what a verdict depends on, as one hash: look it up before scoring the champion anew.

    `candidate`, `champion` and `anchor` are digests: a version's number would mean another model in another registry. The settings
    are those of `gates` and `evaluate.min_class_units`, which decides the classes that macro-F1 runs over; `outside` are the digests of
    files that the settings name.
    """
    settings = {"gates": gates.model_dump(mode="json"), "min_class_units": min_class_units, "outside": dict(outside or {})}
    versions = {"candidate": candidate, "champion": champion, "anchor": anchor}
    return digest_value({**versions, "test": test_digest, "settings": settings})


def decide(evidence: Evidence, gates: GatesParams) -> tuple[GateResult, ...]:
    """Ask every gate that is not off, and correct what may reject."""
    asked = {name: getattr(gates, name) for name in available()}
    results = [
        load(name).decide(evidence, params).model_copy(update={"role": params.role})
        for name, params in asked.items()
        if params.role is not Role.OFF
    ]
    return correct_tests(results)


def judge(
    evidence: Evidence, gates: GatesParams, *, key: str, candidate_digest: str, test_digest: str, tested: Sequence[str] = ()
) -> Verdict:
    """Ask every gate and fold: any FAIL is FAIL, else any INCONCLUSIVE of a gate that decides is INCONCLUSIVE, else PASS.

    `key` is the `verdict_key` under which the verdict is found again; `tested` is what the self-test went through.

    Raises:
        RetuneError: the predictions are not of the same test rows; the message says which and how they differ.
    """
    rivals = {f"the champion, {evidence.champion.called},": evidence.champion} if evidence.champion else {}
    rivals |= {f"the best champion so far, {evidence.anchor.called},": evidence.anchor} if evidence.anchor else {}
    others = {name: rival.predictions for name, rival in rivals.items() if rival.predictions is not None}
    for name, predictions in {**evidence.baselines, **others}.items():
        _check_same_rows(evidence.candidate, predictions, name)
    results = decide(evidence, gates)
    outcome, reason = combine(results)
    return Verdict(
        key=key,
        candidate=candidate_digest,
        champion=evidence.champion.version if evidence.champion else None,
        anchor=evidence.anchor.version if evidence.anchor else None,
        test_digest=test_digest,
        outcome=outcome,
        reason=reason,
        gates=results,
        level=evidence.level,
        look=evidence.look,
        off=tuple(name for name in available() if getattr(gates, name).role is Role.OFF),
        tested=tuple(tested),
        left_out=evidence.held.left_out if evidence.held else (),
    )


def check_metrics(gates: GatesParams, metrics: Mapping[str, tuple[float, float]], baselines: Sequence[str]) -> None:
    """Check what the gates name against the task's `metrics`, each with its bounds, and its `baselines`.

    Raises:
        BadParams: with every name that is not.
    """
    asked = [
        (f"{name}.metric", getattr(gates, name).metric) for name in ("floor", "baseline", "champion", "best_champion") if _asks(gates, name)
    ]
    asked += [("champion.also", metric) for metric in gates.champion.also if _asks(gates, "champion")]
    faults = [f"{where}: unknown metric {metric!r}{nearest(metric, list(metrics))}" for where, metric in asked if metric not in metrics]
    if _asks(gates, "baseline") and (against := gates.baseline.against) not in (*baselines, STRONGEST):
        faults.append(f"baseline.against: unknown baseline {against!r}{nearest(against, list(baselines))}")
    low, high = metrics.get(gates.floor.metric, (-np.inf, np.inf))
    if _asks(gates, "floor") and not low < gates.floor.at_least < high:
        faults.append(f"floor.at_least: expected a {gates.floor.metric} above {low:g} and below {high:g}, found {gates.floor.at_least:g}")
    for name in (name for name in ("baseline", "champion", "best_champion") if _asks(gates, name)):
        low, high = metrics.get(getattr(gates, name).metric, (-np.inf, np.inf))
        if getattr(gates, name).margin >= high - low:
            faults.append(f"{name}.margin: expected less than {high - low:g}, all that the metric can differ by")
    if faults:
        raise BadParams("\n".join(f"params.yaml: gates.{fault}" for fault in faults))


def _asks(gates: GatesParams, name: str) -> bool:
    return getattr(gates, name).role is not Role.OFF


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
