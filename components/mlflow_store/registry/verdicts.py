"""A verdict beside the run that it judges: the whole of it among the artifacts, what is searched by as tags of the version.

Writes `verdict/verdict.json`, the newest, and `verdict/EVIDENCE.json`, which stays when the version is judged again: the ledger names it.
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
    Version,
    find,
)

log = logging.getLogger(__name__)

FOLDER = "verdict"
REASON_CHARACTERS = 2_000  # of the description, which holds 5,000
_RUN = "retune.verdict_run"
_JUDGED = "\n\nVerdict: "


def verdict_lock(uri: str, name: str) -> AbstractContextManager[None]:
    """Hold the lock of a model's verdicts: none is attached meanwhile."""
    return store_lock(uri, f"verdict {name}")


def attach_verdict(uri: str, run_id: str, name: str, number: int, verdict: Verdict) -> Version:
    """Put a verdict into the artifacts of its run and into the tags of its version; the same verdict again changes nothing.

    Who failed is no challenger any more; who did not is, unless it is the champion. An earlier person's answer is void.

    Raises:
        NotThere: no such version.
        Unavailable: the store is busy, or what it holds is not what was sent.
    """
    verdict = Verdict.model_validate_json(verdict.model_dump_json())  # as it will be read back: a NaN is none in JSON
    with translated_errors(uri), verdict_lock(uri, name):
        client = connect(uri)
        version = find(client, name, number)
        if version.evidence == verdict.evidence and version.verdict is verdict.outcome:
            return version
        if EVIDENCE in version.tags:  # until it is there again, no half of two verdicts is believed
            client.delete_model_version_tag(name, str(number), EVIDENCE)
        _upload(client, run_id, verdict)
        client.update_model_version(name, str(number), _described(version.description, verdict))
        _move_challenger(client, version, verdict.outcome)
        if ANSWER in version.tags:
            client.delete_model_version_tag(name, str(number), ANSWER)
        client.set_model_version_tag(name, str(number), _RUN, run_id)
        for tag, value in _tags(verdict).items():  # the evidence is last: with it, all of the above is done
            client.set_tag(run_id, tag, value)
            client.set_model_version_tag(name, str(number), tag, value)
        return find(client, name, number)


def read_verdict(uri: str, version: Version, evidence: str | None = None) -> Verdict | None:
    """Return the whole verdict on a version: the newest, or the one with that digest; None where there is none.

    A version of an earlier layout has none, and neither has one whose files were lost or are not what its tags say.
    """
    wanted = evidence or version.evidence
    if wanted is None:
        return None
    try:
        with translated_errors(uri), temporary() as folder:
            path = connect(uri).download_artifacts(version.tags.get(_RUN, version.run_id), f"{FOLDER}/{wanted}.json", str(folder))
            verdict = Verdict.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except Unavailable:
        raise
    except (OSError, ValidationError, RetuneError) as error:
        log.warning("%s: its verdict cannot be read: %s", version.uri, error)
        return None
    if verdict.evidence != wanted:
        log.warning("%s: its verdict is not what was judged (its hash differs)", version.uri)
        return None
    return verdict


def record_decision(uri: str, version: Version, answer: str, *, withdrawn: bool) -> None:
    """Tell in a version's tags what a person said of it; one that is `withdrawn` is no challenger any more. Repeatable."""
    with translated_errors(uri), verdict_lock(uri, version.name):
        client = connect(uri)
        version = find(client, version.name, version.number)
        if withdrawn:
            _withdraw(client, version)
        if version.tags.get(ANSWER) != answer:
            client.set_model_version_tag(version.name, str(version.number), ANSWER, answer[:TAG_CHARACTERS])


def reopen(uri: str, version: Version) -> None:
    """Forget an answer, since the same verdict waits for another one: the version is the challenger again."""
    with translated_errors(uri), verdict_lock(uri, version.name):
        client = connect(uri)
        version = find(client, version.name, version.number)
        _move_challenger(client, version, version.verdict or Outcome.INCONCLUSIVE)
        client.delete_model_version_tag(version.name, str(version.number), ANSWER)  # last: without it nobody looks here again


def _withdraw(client: MlflowClient, version: Version) -> None:
    if CHALLENGER in version.aliases:
        client.delete_registered_model_alias(version.name, CHALLENGER)


def _upload(client: MlflowClient, run_id: str, verdict: Verdict) -> None:
    with temporary() as folder:
        newest = verdict.write(folder)
        newest.with_name(f"{verdict.evidence}.json").write_bytes(newest.read_bytes())
        upload(client, run_id, folder, FOLDER)


def _tags(verdict: Verdict) -> dict[str, str]:
    return {
        VERDICT: verdict.outcome.value,
        VERDICT_KEY: verdict.key,
        JUDGED_AGAINST: verdict.champion or "none",
        EVIDENCE: verdict.evidence,
    }


def _move_challenger(client: MlflowClient, version: Version, outcome: Outcome) -> None:
    if outcome is Outcome.FAIL:
        _withdraw(client, version)
    elif CHAMPION not in version.aliases:
        client.set_registered_model_alias(version.name, CHALLENGER, str(version.number))


def _described(description: str, verdict: Verdict) -> str:
    """Return the description with what was judged at its end, in place of an earlier verdict."""
    reason = verdict.reason if len(verdict.reason) <= REASON_CHARACTERS else f"{verdict.reason[:REASON_CHARACTERS]}…"
    return f"{description.partition(_JUDGED)[0]}{_JUDGED}{verdict.outcome.value}: {escape(reason)}"


def verdict_text(version: Version) -> str:
    """Return the verdict and its reason as a version's description has them; empty where nobody judged."""
    return unescape(version.description.partition(_JUDGED)[2])
