"""Verdicts in MLflow: the whole verdict as an artifact of the judged run, its searchable parts as tags of the version.

Writes `verdict/verdict.json`, the newest, and `verdict/EVIDENCE.json`, which is kept for the ledger when a version is judged again.
"""

import logging
from contextlib import AbstractContextManager
from pathlib import Path

from mlflow import MlflowClient
from pydantic import ValidationError

from components.artifacts.verdict import Outcome, Verdict
from components.core.errors import RetuneError, Unavailable
from components.core.markdown import escape, unescape
from components.core.temporary import temporary
from components.mlflow_store.connection import TAG_CHARACTERS, connect, store_lock, translated_errors, upload
from components.mlflow_store.registry.versions import (
    ANSWER,
    CHALLENGER,
    CHAMPION,
    EVIDENCE,
    JUDGED_AGAINST,
    VERDICT,
    VERDICT_KEY,
    VERDICT_RUN,
    Version,
    find,
)

log = logging.getLogger(__name__)

FOLDER = "verdict"
REASON_CHARACTERS = 2_000  # in the description, which holds 5,000
_JUDGED = "\n\nVerdict: "


def verdict_lock(uri: str, name: str) -> AbstractContextManager[None]:
    """Hold the lock of a model's verdicts, so that none is attached meanwhile."""
    return store_lock(uri, f"verdict {name}")


def attach_verdict(uri: str, run_id: str, name: str, number: int, verdict: Verdict) -> Version:
    """Store a verdict in its run's artifacts and its version's tags; storing the same verdict again changes nothing.

    A failed version loses the alias `challenger`; any other gets it, unless it is the champion. An earlier answer by a person is removed.

    Raises:
        NotFound: the version does not exist.
        Unavailable: the store is busy, or the stored files differ from those that were sent.
    """
    verdict = Verdict.model_validate_json(verdict.model_dump_json())  # as it is read back: JSON turns NaN into null
    with translated_errors(uri), verdict_lock(uri, name):
        client = connect(uri)
        version = find(client, name, number)
        if version.evidence == verdict.evidence and version.verdict is verdict.outcome:
            return version
        if EVIDENCE in version.tags:  # without it, a half-written verdict is ignored
            client.delete_model_version_tag(name, str(number), EVIDENCE)
        with temporary() as folder:
            newest = verdict.write(folder)
            newest.with_name(f"{verdict.evidence}.json").write_bytes(newest.read_bytes())
            upload(client, run_id, folder, FOLDER)
        client.update_model_version(name, str(number), _described(version.description, verdict))
        _move_challenger(client, version, verdict.outcome)
        if ANSWER in version.tags:
            client.delete_model_version_tag(name, str(number), ANSWER)
        client.set_model_version_tag(name, str(number), VERDICT_RUN, run_id)
        tags = {VERDICT: verdict.outcome.value, VERDICT_KEY: verdict.key, JUDGED_AGAINST: verdict.champion or "none"}
        for tag, value in (tags | {EVIDENCE: verdict.evidence}).items():  # the evidence is last: it marks the verdict as complete
            client.set_tag(run_id, tag, value)
            client.set_model_version_tag(name, str(number), tag, value)
        return find(client, name, number)


def read_verdict(uri: str, version: Version, evidence: str | None = None) -> Verdict | None:
    """Return the newest verdict on a version, or the one with the digest `evidence`; None if there is none.

    Versions of an early layout have none; neither do versions whose verdict was lost or differs from their tags.
    """
    digest = evidence or version.evidence
    if digest is None:
        return None
    try:
        with translated_errors(uri), temporary() as folder:
            path = connect(uri).download_artifacts(version.tags.get(VERDICT_RUN, version.run_id), f"{FOLDER}/{digest}.json", str(folder))
            verdict = Verdict.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except Unavailable:
        raise
    except (OSError, ValidationError, RetuneError) as error:
        log.warning("%s: its verdict cannot be read: %s", version.uri, error)
        return None
    if verdict.evidence != digest:
        log.warning("%s: its verdict was changed (its hash differs)", version.uri)
        return None
    return verdict


def record_decision(uri: str, version: Version, answer: str, *, withdrawn: bool) -> None:
    """Tag a version with a person's answer; `withdrawn` removes the alias `challenger`. Can be repeated."""
    with translated_errors(uri), verdict_lock(uri, version.name):
        client = connect(uri)
        version = find(client, version.name, version.number)
        if withdrawn:
            _withdraw(client, version)
        if version.tags.get(ANSWER) != answer:
            client.set_model_version_tag(version.name, str(version.number), ANSWER, answer[:TAG_CHARACTERS])


def reopen(uri: str, version: Version) -> None:
    """Remove an answer, because the same verdict is waiting again: the version is the challenger again."""
    with translated_errors(uri), verdict_lock(uri, version.name):
        client = connect(uri)
        version = find(client, version.name, version.number)
        _move_challenger(client, version, version.verdict or Outcome.INCONCLUSIVE)
        client.delete_model_version_tag(version.name, str(version.number), ANSWER)  # last, so that an interrupted call is repeated


def _withdraw(client: MlflowClient, version: Version) -> None:
    if CHALLENGER in version.aliases:
        client.delete_registered_model_alias(version.name, CHALLENGER)


def _move_challenger(client: MlflowClient, version: Version, outcome: Outcome) -> None:
    if outcome is Outcome.FAIL:
        _withdraw(client, version)
    elif CHAMPION not in version.aliases:
        client.set_registered_model_alias(version.name, CHALLENGER, str(version.number))


def _described(description: str, verdict: Verdict) -> str:
    """Return the description with the verdict appended, replacing an earlier one."""
    reason = verdict.reason if len(verdict.reason) <= REASON_CHARACTERS else f"{verdict.reason[:REASON_CHARACTERS]}…"
    return f"{description.partition(_JUDGED)[0]}{_JUDGED}{verdict.outcome.value}: {escape(reason)}"


def verdict_text(version: Version) -> str:
    """Return the verdict and its reason from a version's description; empty if there is none."""
    return unescape(version.description.partition(_JUDGED)[2])
