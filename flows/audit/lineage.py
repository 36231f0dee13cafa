"""Trace a version back to code, data and run, and a snapshot or a row forward to every version that used it.

Reads the version's tags, the artifacts of its run, its package and the ledger.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
from pydantic import BaseModel

from components.artifacts.lineage import Lineage
from components.core.errors import BadInput, RetuneError
from components.ledger import Entry
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access, package
from components.mlflow_store.registry.verify import checked_package
from components.mlflow_store.tracking.rows import DIGITS, ROWS
from flows.audit.diff import read_manifest
from flows.audit.registered_model import RegisteredModel, shown

T = TypeVar("T")

SHORTEST = 6  # digits of a snapshot's digest prefix


class Trail(BaseModel, frozen=True):
    """The origin of a version. A part that could not be read is None, with the reason in `lost`."""

    model: str
    version: int
    candidate: str
    git_commit: str | None
    dirty: int
    code: str | None
    weights: str | None
    data: dict[str, Any]
    base: dict[str, Any]
    pseudo: dict[str, int]
    hashes: dict[str, str]
    params: dict[str, Any]
    tuned: dict[str, Any]
    machine: dict[str, Any]
    packages: dict[str, str]
    run: str
    flow_run: str | None
    verdict: str | None
    promotions: tuple[dict[str, Any], ...]
    lost: tuple[str, ...]


class VersionExposure(BaseModel, frozen=True):
    """A version that used a snapshot or a row; `as_what` is e.g. `snapshot`, `trained on` or `quarantined: empty text`."""

    version: int
    as_what: tuple[str, ...]
    aliases: tuple[str, ...]
    promoted: tuple[str, ...]


class Sightings(BaseModel, frozen=True):
    """All versions that used a snapshot or row; `unknown` are those whose runs have no list of rows."""

    model: str
    asked: str
    looked_at: int
    seen: tuple[VersionExposure, ...]
    unknown: tuple[int, ...]


def trace_version(model: RegisteredModel, number: int) -> Trail:
    """Return the trail of a version.

    Raises:
        NotFound: the version does not exist or was not registered by Retune.
    """
    version = model.version(number)
    tags, lost = version.tags, list[str]()
    hashes = model.hashes(version)
    lineage = _read(lost, lambda: Lineage.read(artifact_access.artifact(model.uri, version, Lineage.FILE).parent))
    training = _read(lost, lambda: artifact_access.read_json(model.uri, version, "training/training.json")) or {}
    manifest = (
        _read(lost, lambda: read_manifest(model, version).model_dump(include={"source", "rows", "taken_at", "columns"}, mode="json")) or {}
    )
    return Trail(
        model=model.name,
        version=number,
        candidate=version.key,
        git_commit=tags.get("retune.git_commit"),
        dirty=int(tags.get("retune.dirty", "0")),
        code=_read(lost, lambda: package.fingerprint(checked_package(model.uri, version) / "code")),
        weights=tags.get("retune.weights"),
        data={"digest": tags.get("retune.data_digest"), **manifest},
        base={"digest": tags.get("retune.base_digest"), "source": tags.get("retune.base_source")},
        pseudo=lineage.pseudo if lineage else {},
        hashes=hashes,
        params=_read(lost, lambda: artifact_access.read_json(model.uri, version, "params.json")) or {},
        tuned=(_read(lost, lambda: artifact_access.read_json(model.uri, version, "search/best.json")) or {}).get("settings", {}),
        machine={name: training.get(name) for name in ("device", "precision", "threads")} if training else {},
        packages={"python": lineage.python, **lineage.packages} if lineage else {},
        run=version.run_id,
        flow_run=tags.get("retune.flow_run"),
        verdict=tags.get("retune.verdict"),
        promotions=tuple(_promotion(entry) for entry in model.entries if entry.version == number),
        lost=tuple(dict.fromkeys(lost)),
    )


def find_exposures(model: RegisteredModel, query: str) -> Sightings:
    """Return the versions that used a snapshot (digest prefix) or a row (its id, or its text's digest).

    Raises:
        BadInput: the query is empty.
    """
    if not query.strip():
        raise BadInput("the query is empty: expected the digest of a snapshot, or the id of a row")
    seen, unknown = [], []
    for version in model.versions:
        as_what = [*matching_digests(version, query)]
        try:
            as_what += row_uses(artifact_access.artifact(model.uri, version, f"data/{ROWS}"), query)
        except (RetuneError, OSError):
            unknown += [] if as_what else [version.number]
        if as_what:
            since = tuple(shown(entry.at) for entry in model.entries if entry.version == version.number)
            seen.append(VersionExposure(version=version.number, as_what=tuple(as_what), aliases=version.aliases, promoted=since))
    return Sightings(model=model.name, asked=query, looked_at=len(model.versions), seen=tuple(seen), unknown=tuple(unknown))


def matching_digests(version: registry.Version, prefix: str) -> Iterable[str]:
    """Yield which of a version's snapshot, test set and base model have a digest with this prefix."""
    for name, tag in {"snapshot": "retune.data_digest", "test set": "retune.test_digest", "base model": "retune.base_digest"}.items():
        if len(prefix) >= SHORTEST and version.tags.get(tag, "").startswith(prefix.lower()):
            yield name


def row_uses(rows: Path, query: str) -> list[str]:
    """Return how one run used the row with this id, or the rows whose text has this digest."""
    filters = [[("id", "=", query)], *([[("text", "=", query[:DIGITS].lower())]] if len(query) >= DIGITS else [])]
    return sorted(set(pq.read_table(rows, columns=["split"], filters=filters).column("split").to_pylist()))


def _read(lost: list[str], read: Callable[[], T]) -> T | None:
    """Return the result of `read`; None if it fails, with the reason in `lost`, since the rest is still useful."""
    try:
        return read()
    except RetuneError as error:
        lost.append(str(error))
        return None


def _promotion(entry: Entry) -> dict[str, Any]:
    names = ("sequence", "action", "previous", "who", "why", "forced", "outcome", "origin")
    return {"at": shown(entry.at), **{name: getattr(entry, name) for name in names}}
