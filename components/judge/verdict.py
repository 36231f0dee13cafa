"""Run every gate, correct for multiple testing, and combine the results into a verdict. Pure: writes nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Role, Verdict
from components.core.errors import BadParams, RetuneError
from components.core.hashing import digest_value
from components.gates import GatesParams, available, conflicts, is_enabled, load
from components.gates.support import Evidence
from components.judge.multiple_testing import combine, correct_tests
from components.judge.remedies import with_checked_remedies


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
    """Return the hash of everything that a verdict depends on, to find an existing verdict before scoring the champion.

    `candidate`, `champion` and `anchor` (the best champion so far) are digests, which identify a model in every registry. The settings
    are `gates` and `evaluate.min_class_units`, which selects the classes in macro-F1; `outside` are the digests of files in the settings.
    """
    former = {new: old for old, new in GatesParams.renamed.items()}  # the names that earlier keys were computed with
    sections = {former.get(name, name): section for name, section in gates.model_dump(mode="json").items()}
    for section in sections.values():
        section["role"] = Role(section["role"]).former_name
    settings = {"gates": sections, "min_class_units": min_class_units, "outside": dict(outside or {})}
    versions = {"candidate": candidate, "champion": champion, "anchor": anchor}
    return digest_value({**versions, "test": test_digest, "settings": settings})


def decide(evidence: Evidence, gates: GatesParams) -> tuple[GateResult, ...]:
    """Run every enabled gate, and correct for multiple testing."""
    sections = {name: getattr(gates, name) for name in available() if is_enabled(gates, name)}
    return correct_tests(
        [load(name).decide(evidence, params).model_copy(update={"role": params.role}) for name, params in sections.items()]
    )


def judge(
    evidence: Evidence, gates: GatesParams, *, key: str, candidate_digest: str, test_digest: str, tested: Sequence[str] = ()
) -> Verdict:
    """Run every enabled gate and combine the results into a verdict.

    `key` is the `verdict_key`; `tested` are the sentences that the self-test returned.

    Raises:
        RetuneError: the predictions are on different test rows; the message contains the difference.
    """
    champion, best = evidence.champion, evidence.best_champion
    references = {f"the champion, {champion.display_name},": champion} if champion else {}
    references |= {f"the best champion so far, {best.display_name},": best} if best else {}
    others = {name: model.predictions for name, model in references.items() if model.predictions is not None}
    for name, predictions in {**evidence.baselines, **others}.items():
        _check_same_rows(evidence.candidate, predictions, name)
    sections = {name: getattr(gates, name) for name in available() if is_enabled(gates, name)}
    results = with_checked_remedies(evidence, sections, decide(evidence, gates))
    outcome, reason = combine(results)
    return Verdict(
        key=key,
        candidate=candidate_digest,
        champion=champion.version if champion else None,
        anchor=best.version if best else None,
        test_digest=test_digest,
        outcome=outcome,
        reason=reason,
        gates=results,
        level=evidence.level,
        look=evidence.candidate_number,
        off=tuple(name for name in available() if not is_enabled(gates, name)),
        tested=tuple(tested),
        left_out=evidence.exposure.left_out if evidence.exposure else (),
    )


def check_metrics(gates: GatesParams, metrics: Mapping[str, tuple[float, float]], baselines: Sequence[str]) -> None:
    """Check the settings of every enabled gate against the task's `metrics`, each with its bounds, and `baselines`.

    Raises:
        BadParams: with every fault, such as an unknown name, a value out of bounds, or gates that want the same evidence differently.
    """
    enabled = [name for name in available() if is_enabled(gates, name)]
    faults = [f"{name}.{fault}" for name in enabled for fault in getattr(gates, name).faults(metrics, baselines)]
    if faults := [*faults, *conflicts(gates)]:
        raise BadParams("\n".join(f"params.yaml: gates.{fault}" for fault in faults))


def _check_same_rows(candidate: Predictions, other: Predictions, name: str) -> None:
    """Raise RetuneError unless both predictions are on the same rows with the same labels."""
    if not np.array_equal(candidate.ids, other.ids):
        expected, actual = Counter(candidate.ids.tolist()), Counter(other.ids.tolist())
        missing, extra = sorted((expected - actual).elements()), sorted((actual - expected).elements())
        difference = (
            f"{len(missing)} missing{_first(missing)}, {len(extra)} unknown{_first(extra)}" if missing or extra else "another order"
        )
        raise RetuneError(f"predictions of {name} are not on the candidate's {len(candidate.ids)} test rows: {difference}; predict again")
    changed = np.flatnonzero(candidate.expected != other.expected)
    if len(changed):
        row = str(candidate.ids[changed[0]])
        raise RetuneError(f"predictions of {name} have another expected label on {len(changed)} test rows, first {row!r}; predict again")


def _first(ids: list[str]) -> str:
    return f" (first {ids[0]!r})" if ids else ""
