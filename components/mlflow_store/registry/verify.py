"""Check a version's package, then verify it or answer rows with it; read and write cached predictions.

Reads the registry and the packages.
"""

import atexit
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from components.artifacts.predictions import ModelOutput, Predictions, answer_distance, served_columns
from components.artifacts.training import ModelSpec
from components.core.atomic import replacing
from components.core.errors import BadModel, NotFound, RetuneError, Unavailable
from components.core.hashing import digest_folder
from components.mlflow_store.connection import connect, translated_errors
from components.mlflow_store.registry import package
from components.mlflow_store.registry.register import fetch
from components.mlflow_store.registry.versions import ADAPTER, CHALLENGER, CHAMPION, PACKAGE, WEIGHTS, Version, aliases_of, find
from components.mlflow_store.registry.worker_client import WorkerReply, answer_rows
from components.model.base_resolver import find_base

log = logging.getLogger(__name__)

# Serving computes in float32 and in batches of other lengths than evaluation: the measured difference is below 1e-6 on a CPU. bfloat16
# or other hardware may differ by more, another model or preprocessing by far more.
TOLERANCE = 1e-3

_UNTIL_EXIT = ExitStack()
atexit.register(_UNTIL_EXIT.close)
_MERGED: dict[str, Path] = {}
"""Folders of models that this process merged from adapters, by the adapter's digest."""


@dataclass(frozen=True)
class VerifiedVersion:
    """The result of a verification: number of rows, largest difference of a probability, and folder of the version's code."""

    rows: int
    difference: float
    code: Path


def verify(uri: str, name: str, number: int) -> VerifiedVersion:
    """Check a version's package, load it in a new process, and compare its answers to ten rows with the evaluated ones.

    Raises:
        NotFound: the version does not exist.
        BadModel: the package differs from the registered one, contains forbidden files, or gives other answers.
    """
    version = registered_version(uri, name, number)
    folder = checked_package(uri, version)
    questions = folder / "artifacts/questions.parquet"
    rows = pq.read_table(questions).drop_columns(["predicted", "probabilities"]).to_pandas()
    expected, reply = WorkerReply.read(questions), answer_rows(uri, version.uri, rows)
    difference = _compare(version, expected, reply)
    log.info("%s: %d rows answered as evaluated, largest difference %.1e", version.uri, len(rows), difference)
    return VerifiedVersion(len(rows), difference, reply.code)


def registered_version(uri: str, name: str, number: int) -> Version:
    """Return a completely registered version.

    Raises:
        NotFound: the version does not exist.
        BadModel: its registration is incomplete.
    """
    with translated_errors(uri):
        version = find(connect(uri), name, number)
    if not version.complete:
        raise BadModel(f"{version.uri} is not completely registered (it has no tag retune.complete); run `retune register` again")
    return version


def checked_package(uri: str, version: Version) -> Path:
    """Check the files of a version's package without running its code, and return its folder.

    Raises:
        BadModel: it is missing, differs from the registered package, or contains forbidden files.
        Unavailable: the registry or its store is busy or unreachable.
    """
    try:
        with translated_errors(uri):
            client = connect(uri)
            folder = fetch(client, uri, client.get_model_version_download_uri(version.name, str(version.number)))
    except Unavailable:
        raise  # the package may be intact
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):  # HTTP errors are OSErrors too
            raise Unavailable(f"{version.uri}: its package cannot be fetched at present: {error}") from error
        raise BadModel(f"{version.uri}: its package is missing: {error}") from error
    except RetuneError as error:
        raise BadModel(f"{version.uri}: its package cannot be fetched: {error}") from error
    package.check_files(folder, version.tags.get(WEIGHTS, ""), version.tags.get(PACKAGE, ""), version.tags.get(ADAPTER))
    return folder


def _compare(version: Version, expected: ModelOutput, output: ModelOutput) -> float:
    """Return the largest difference between two outputs; raise BadModel if it exceeds the tolerance."""
    if output.labels != expected.labels:
        raise BadModel(f"{version.uri} has the labels {', '.join(output.labels)}; evaluated: {', '.join(expected.labels)}")
    if not expected.labels:
        differences = np.array([answer_distance(*pair) for pair in zip(expected.predicted, output.predicted, strict=True)])
        if (worst := float(differences.max(initial=0.0))) > TOLERANCE:
            at = int(differences.argmax())
            answers = [text if len(text) <= 80 else text[:77] + "…" for text in (output.predicted[at], expected.predicted[at])]
            detail = f"{answers[0]!r}; evaluated: {answers[1]!r}"
            raise BadModel(f"{version.uri} answers {int((differences > TOLERANCE).sum())} of {len(differences)} rows differently: {detail}")
        return worst
    differences = np.abs(output.probabilities - expected.probabilities).max(axis=1)
    differences = np.where(np.isnan(differences), np.inf, differences)  # NaN exceeds no limit
    if (worst := float(differences.max())) > TOLERANCE:
        count = int((differences > TOLERANCE).sum())
        raise BadModel(
            f"{version.uri} answers {count} of {len(differences)} rows differently than evaluated: a probability differs by {worst:.3g}"
        )
    top = np.sort(expected.probabilities, axis=1)
    clear_winner = top[:, -1] - top[:, -2] > 2 * TOLERANCE if len(expected.labels) > 1 else np.ones(len(top), dtype=bool)
    for row in np.flatnonzero(clear_winner):
        if output.predicted[row] != expected.predicted[row]:
            raise BadModel(f"{version.uri} answers row {row} with {output.predicted[row]!r}; evaluated: {expected.predicted[row]!r}")
    return worst


def write_cache(cache: Path, scored: Predictions) -> None:
    """Write predictions to the file `cache` by rename."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cache) as partial:
        scored.write(partial)


def read_cache(cache: Path, rows: pd.DataFrame) -> Predictions | None:
    """Return the cached predictions, or None if they are missing, damaged or of other rows."""
    try:
        cached = Predictions.read(cache)
    except NotFound:
        return None
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be read and is computed again: %s", cache, error)
        return None
    return cached if sorted(rows["id"]) == cached.ids.tolist() else None


def predict(uri: str, model: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Answer rows (a table with the task's inputs) with the model NAME (its champion), NAME@ALIAS or NAME/VERSION.

    Returns:
        The rows with label, probability and probabilities (label to probability), or with answer for tasks without classes.

    Raises:
        NotFound: the version or alias does not exist.
        BadModel: the package differs from the registered one, or does not answer.
    """
    version = resolve(uri, model)
    checked_package(uri, version)
    columns = served_columns(answer_rows(uri, version.uri, rows))
    objects = {name: pd.Series(values, dtype="object", index=rows.index) for name, values in columns.items() if name == "probabilities"}
    return rows.assign(**(columns | objects))


def spec_of(uri: str, model: str) -> ModelSpec:
    """Return the spec (task and inputs) of the registered `model`, named as for `predict`.

    Raises:
        NotFound: the version or alias does not exist.
        BadModel: the package differs from the registered one.
    """
    return ModelSpec.read(package.spec_folder(checked_package(uri, resolve(uri, model))))


def model_folder(uri: str, model: str) -> tuple[Path, str]:
    """Return the folder of weights and tokenizer of the registered `model`, named as for `predict`, and its models:/NAME/VERSION.

    An adapter is merged into its base, in a temporary folder that is kept until this process ends.

    Raises:
        NotFound: the version or alias does not exist.
        BadModel: the package differs from the registered one, or its base is missing or differs.
    """
    version = resolve(uri, model)
    stored = package.spec_folder(checked_package(uri, version))
    if stored.name == package.MODEL:
        return stored, version.uri
    if (merged := _MERGED.get(version.tags[ADAPTER])) is not None:
        return merged, version.uri
    from components.model import adapter

    folder = _UNTIL_EXIT.enter_context(
        adapter.merged(stored, lambda record: find_base(record, lambda base: model_folder(uri, base)[0], uri))
    )
    if digest_folder(folder) != version.tags.get(WEIGHTS):
        raise BadModel(
            f"{version.uri} is stored as an adapter, and its merged weights differ here from those of its training (another CPU or library "
            "version), so it cannot be used as a base. Train on hardware like that of its training, or start from a version stored as a "
            "full model"
        )
    return _MERGED.setdefault(version.tags[ADAPTER], folder), version.uri


def resolve(uri: str, model: str) -> Version:
    """Return the version that NAME (its champion), NAME@ALIAS or NAME/VERSION means; a leading `models:/` is ignored.

    Raises:
        NotFound: the version does not exist.
    """
    model = model.removeprefix("models:/")
    name, slash, number = model.partition("/")
    if slash and name and number.isdecimal() and len(number) < 10:
        return registered_version(uri, name, int(number))
    name, _, alias = model.partition("@")
    if slash or not name:
        raise NotFound(f"{model!r} is not a version: expected NAME, NAME@ALIAS or NAME/VERSION")
    with translated_errors(uri):
        aliases = aliases_of(connect(uri), name)
    if (version := aliases.get(alias or CHAMPION)) is not None:
        return registered_version(uri, name, version)
    step = f"`retune promote {name} VERSION` makes a version that passed the {CHAMPION}"
    if (newest := aliases.get(CHALLENGER)) is not None and alias in ("", CHAMPION):
        waiting = registered_version(uri, name, newest)
        approve = f'version {newest} waits for a decision: `retune approve {waiting.run_id[:12]} --why "…"` makes it the {CHAMPION}'
        step = approve if waiting.verdict is not None else f"version {newest} is not judged yet: `retune run` judges it"
    raise NotFound(f"{name} has no {alias or CHAMPION}; {step}")
