"""A version is asked only after its package was checked: to verify it, to score it on today's rows, to answer texts.

Reads the registry and the packages; writes a cache of predictions where one is named.
"""

import atexit
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from components.artifacts.predictions import Predictions, answer_distance
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, NotFound, RetuneError, Unavailable, shorten
from components.core.hashing import digest_folder
from components.core.temporary import partial_of
from components.mlflow_store.connection import connect, reaching
from components.mlflow_store.registry import package
from components.mlflow_store.registry.register import fetch
from components.mlflow_store.registry.versions import ADAPTER, CHAMPION, PACKAGE, WEIGHTS, Version, aliases_of, find
from components.mlflow_store.registry.worker_client import WorkerReply, ask, predictions_of
from components.model.base_resolver import find_base

log = logging.getLogger(__name__)

# Serving computes in float32 and in batches of other lengths than evaluation did: measured below 1e-6 on a CPU; bfloat16 or
# another machine may differ by more, another model or another preprocessing differs by far more.
TOLERANCE = 1e-3

_UNTIL_EXIT = ExitStack()
atexit.register(_UNTIL_EXIT.close)
_MERGED: dict[str, Path] = {}
"""The folders of whole models that were made of adapters in this process, by the adapter's digest."""


@dataclass(frozen=True)
class VerifiedVersion:
    """What a verification saw: rows asked, the largest difference of a probability, and the folder of the code that answered."""

    rows: int
    difference: float
    code: Path


def verify(uri: str, name: str, number: int) -> VerifiedVersion:
    """Check the package's files, then load it in a fresh process and compare its answers to ten rows with the evaluated ones.

    Raises:
        NotThere: no such version.
        BadModel: the package is not what was registered, holds what must not be loaded, or answers otherwise.
    """
    version = known_version(uri, name, number)
    folder = inspected(uri, version)
    questions = folder / "artifacts/questions.parquet"
    asked = pq.read_table(questions).drop_columns(["predicted", "probabilities"]).to_pandas()
    expected, found = WorkerReply.read(questions), ask(uri, version.uri, asked)
    difference = _compare(version, expected, found)
    log.info("%s: %d rows answered as evaluated, largest difference %.1e", version.uri, len(asked), difference)
    return VerifiedVersion(len(asked), difference, found.code)


def known_version(uri: str, name: str, number: int) -> Version:
    """Return a version that was registered whole.

    Raises:
        NotThere: no such version.
        BadModel: its registration was cut short.
    """
    with reaching(uri):
        version = find(connect(uri), name, number)
    if not version.complete:
        raise BadModel(f"{version.uri} was not registered whole by Retune (no tag retune.complete); `retune register` makes it anew")
    return version


def inspected(uri: str, version: Version) -> Path:
    """Return the folder of a version's package after its files were checked; nothing of it was run.

    Raises:
        BadModel: it is gone, is not what was registered, or holds what must not be loaded.
        Unavailable: the registry or its store is busy or out of reach.
    """
    try:
        with reaching(uri):
            client = connect(uri)
            folder = fetch(client, uri, client.get_model_version_download_uri(version.name, str(version.number)))
    except Unavailable:
        raise  # it may be whole
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):  # an HTTP error is an OSError, too
            raise Unavailable(f"{version.uri}: its package cannot be fetched now: {error}") from error
        raise BadModel(f"{version.uri}: its package is gone: {error}") from error
    except RetuneError as error:
        raise BadModel(f"{version.uri}: its package cannot be fetched: {error}") from error
    package.inspect(folder, version.tags.get(WEIGHTS, ""), version.tags.get(PACKAGE, ""), version.tags.get(ADAPTER))
    return folder


def _compare(version: Version, expected: WorkerReply, found: WorkerReply) -> float:
    if found.labels != expected.labels:
        raise BadModel(f"{version.uri} answers with the labels {', '.join(found.labels)}; evaluated: {', '.join(expected.labels)}")
    if not expected.labels:
        differences = np.array([answer_distance(one, other) for one, other in zip(expected.predicted, found.predicted, strict=True)])
        if (worst := float(differences.max(initial=0.0))) > TOLERANCE:
            at = int(differences.argmax())
            said = f"{shorten(found.predicted[at], 80)!r}; evaluated: {shorten(expected.predicted[at], 80)!r}"
            raise BadModel(f"{version.uri} answers {int((differences > TOLERANCE).sum())} of {len(differences)} rows otherwise: {said}")
        return worst
    differences = np.abs(found.probabilities - expected.probabilities).max(axis=1)
    differences = np.where(np.isnan(differences), np.inf, differences)  # NaN is above no limit
    if (worst := float(differences.max())) > TOLERANCE:
        count = int((differences > TOLERANCE).sum())
        raise BadModel(
            f"{version.uri} answers {count} of {len(differences)} rows otherwise than evaluated: a probability differs by {worst:.3g}"
        )
    top = np.sort(expected.probabilities, axis=1)
    clear = top[:, -1] - top[:, -2] > 2 * TOLERANCE if len(expected.labels) > 1 else np.ones(len(top), dtype=bool)
    for row in np.flatnonzero(clear):
        if found.predicted[row] != expected.predicted[row]:
            raise BadModel(f"{version.uri} answers row {row} with {found.predicted[row]!r}; evaluated: {expected.predicted[row]!r}")
    return worst


def _at(uri: str, name: str, alias: str) -> int | None:
    with reaching(uri):
        return aliases_of(connect(uri), name).get(alias)


def score_version(uri: str, name: str, number: int, rows: pd.DataFrame, cache: Path | None = None) -> Predictions:
    """Score a version on rows (id, group, text, label) by its own code; `cache` keeps the answer.

    The name of `cache` must hold the version's key and the digest of the rows: a number means another model in another registry.

    Raises:
        NotThere: no such version.
        BadModel: its package is not what was registered, or does not answer.
    """
    if cache is not None and (known := kept(cache, rows)) is not None:
        log.info("%s/%d was scored before: %s", name, number, cache)
        return known
    version = known_version(uri, name, number)
    inspected(uri, version)
    scored = predictions_of(ask(uri, version.uri, rows), rows)
    if cache is not None:
        keep(cache, scored)
    return scored


def keep(cache: Path, scored: Predictions) -> None:
    """Keep predictions in the file `cache`, by rename."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    with partial_of(cache) as partial:
        scored.write(partial)


def kept(cache: Path, rows: pd.DataFrame) -> Predictions | None:
    """Return the cached predictions if they are whole and of these rows."""
    try:
        found = Predictions.read(cache)
    except NotFound:
        return None
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be read and is made anew: %s", cache, error)
        return None
    return found if sorted(rows["id"]) == found.ids.tolist() else None


def predict(uri: str, model: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Answer rows, a table with the task's inputs, by a registered model: NAME (its champion), NAME@ALIAS or NAME/VERSION.

    A leading `models:/` is no matter.

    Returns:
        The rows with label, probability and probabilities (label to probability), or with answer where there are no classes.

    Raises:
        NotThere: no such version or alias.
        BadModel: its package is not what was registered, or does not answer.
    """
    version = resolve(uri, model.removeprefix("models:/"))
    inspected(uri, version)
    columns = ask(uri, version.uri, rows).columns()
    told = {name: pd.Series(values, dtype="object", index=rows.index) for name, values in columns.items() if name == "probabilities"}
    return rows.assign(**(columns | told))


def spec_of(uri: str, model: str) -> ModelSpec:
    """Return what the registered `model`, named as for `predict`, is asked with.

    Raises:
        NotThere: no such version or alias.
        BadModel: its package is not what was registered.
    """
    return ModelSpec.read(package.contract(inspected(uri, resolve(uri, model.removeprefix("models:/")))))


def model_folder(uri: str, model: str) -> tuple[Path, str]:
    """Return the folder of weights and tokenizer of the registered `model`, named as for `predict`, and its models:/NAME/VERSION.

    A version that is stored as an adapter is merged into its base.

    Raises:
        NotThere: no such version or alias.
        BadModel: its package is not what was registered, or its base is not at hand, or is another one.
    """
    version = resolve(uri, model.removeprefix("models:/"))
    return _whole(uri, version), version.uri


def _whole(uri: str, version: Version) -> Path:
    """Return the folder of a version's model: of one that is stored as an adapter a temporary one, there until this process ends."""
    place = package.contract(inspected(uri, version))
    if place.name == package.MODEL:
        return place
    if (known := _MERGED.get(version.tags[ADAPTER])) is not None:
        return known
    from components.model import adapter

    folder = _UNTIL_EXIT.enter_context(
        adapter.merged(place, lambda record: find_base(record, lambda base: model_folder(uri, base)[0], uri))
    )
    if digest_folder(folder) != version.tags.get(WEIGHTS):
        raise BadModel(
            f"{version.uri} is stored as an adapter, and merged into its base it has other bits here than where it was trained, so what "
            "starts from it would start from another model. Train on a processor like the first, or from a version that is stored merged"
        )
    return _MERGED.setdefault(version.tags[ADAPTER], folder)


def resolve(uri: str, model: str) -> Version:
    """Return the version that NAME (its champion), NAME@ALIAS or NAME/VERSION means.

    Raises:
        NotThere: there is none.
    """
    name, slash, number = model.partition("/")
    if slash and name and number.isdecimal() and len(number) < 10:
        return known_version(uri, name, int(number))
    name, _, alias = model.partition("@")
    if slash or not name:
        raise NotFound(f"{model!r} names no version: expected NAME, NAME@ALIAS or NAME/VERSION")
    at = _at(uri, name, alias or CHAMPION)
    if at is None:
        raise NotFound(f"{name} has no {alias or CHAMPION}; `retune promote` makes a version the {CHAMPION}")
    return known_version(uri, name, at)
