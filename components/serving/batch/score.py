"""Score rows in parts: read, query the version in its own process, write; resume after the last complete part."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from components.artifacts.predictions import served_columns
from components.core.errors import BadInput, BadSource
from components.mlflow_store import registry
from components.mlflow_store.registry.versions import PACKAGE
from components.model import tasks
from components.serving.batch.files import Files
from components.serving.batch.records import OnBadRow, RowCounts, Scoring, ScoringManifest, ScoringPlan
from components.serving.batch.rows import (
    QUARANTINE,
    add_answers,
    answer_columns,
    check_added_columns,
    check_rows,
    input_columns,
    split_rows,
)

log = logging.getLogger(__name__)

OpenSource = Callable[[], AbstractContextManager[Files]]
"""Opens the rows to score for the time in which they are read."""


@dataclass(frozen=True)
class ScoringSettings:
    """Settings of a scoring: rows of the input per part, treatment of bad rows, and prefix of the answers' columns.

    `columns` maps inputs to columns of other names; `default_columns` does so only for columns that exist.
    """

    rows_per_part: int = 10_000
    on_bad_row: OnBadRow = "error"
    prefix: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    default_columns: Mapping[str, str] = field(default_factory=dict)


class ScoringOutput(Protocol):
    """A target for parts, each written once, which records the complete parts."""

    added_columns: tuple[str, ...]
    """The columns that it adds to those of the input and the answers."""

    def locked(self) -> AbstractContextManager[None]:
        """Lock the target for this process; raise Unavailable if another process holds the lock."""

    def unfinished(self) -> ScoringPlan | None:
        """Return the plan of an incomplete scoring, None if the target is empty; raise BadInput if it contains anything else."""

    def clear(self) -> None:
        """Remove what `retune score` wrote; raise BadInput if it wrote nothing there."""

    def begin(self, plan: ScoringPlan) -> None:
        """Write the plan."""

    def resume(self) -> RowCounts:
        """Return the number of finished rows of the input, from its first row on."""

    def add(self, numbers: Sequence[int], scored: pa.Table, bad: pa.Table) -> None:
        """Write the next part: the rows `numbers` of the input with their answers, and the quarantined rows of the same part."""

    def finish(self, manifest: ScoringManifest) -> ScoringManifest:
        """Mark the target as complete, and return the final manifest."""


def score(
    uri: str, model: str, open_source: OpenSource, output: ScoringOutput, settings: ScoringSettings, replace: bool = False
) -> ScoringManifest:
    """Answer all rows of a source with the registered version `model`, named as for `registry.predict`, and write them to `output`.

    An alias is resolved once, at the start. The source is only opened if version and output are valid.

    Raises:
        BadInput: there is nothing to score, or a bad row; or the output is complete, or was started with other settings.
        NotFound: the version does not exist.
        BadModel: the package differs from the registered one, or does not answer.
        Unavailable: another process scores into the output, or there is no space left; complete parts are kept.
    """
    version = registry.resolve(uri, model)
    with output.locked():
        unfinished = None if replace else output.unfinished()
        check_version(str(output), model, version, unfinished)
        task = tasks.of(registry.spec_of(uri, f"{version.name}/{version.number}"))
        with open_source() as source:
            inputs = input_columns(task, source, settings.columns, settings.default_columns)
            answers = answer_columns(task, settings.prefix)
            quarantine = QUARANTINE.names if settings.on_bad_row == "quarantine" else []
            check_added_columns(source, [*answers.values(), *output.added_columns, *quarantine])
            plan = make_plan(model, version, source, inputs, settings)
            plan = check_same_plan(str(output), plan, unfinished) if unfinished else begin(plan, source, output, replace)
            with registry.Session(uri, version.uri) as session:
                counts = score_parts(session, source, output, plan, answers)
            if counts.rows != plan.rows or source.changed(plan.input_digest):
                raise BadSource(f"{source.name} changed while it was scored; pass --replace to start again")
            return output.finish(make_manifest(plan, counts))


def begin(plan: ScoringPlan, source: Files, output: ScoringOutput, replace: bool) -> ScoringPlan:
    """Check all rows, then write the plan with their number and return it.

    Raises:
        BadInput: there is nothing to score, or a bad row; nothing was written or removed.
    """
    plan = plan.model_copy(update={"rows": check_rows(source, plan.inputs, plan.on_bad_row)})
    if replace:
        output.clear()
    output.begin(plan)
    return plan


def check_version(target: str, model: str, version: registry.Version, unfinished: ScoringPlan | None) -> None:
    """Check that an unfinished scoring was started with this version; raise BadInput if its alias has moved since."""
    if unfinished is not None and (unfinished.model_uri, unfinished.package) != (version.uri, version.tags.get(PACKAGE, "")):
        raise BadInput(
            f"{target} was started with {unfinished.model_uri}, but {model} is version {version.number} now: "
            f"pass --model-version {unfinished.model_uri.removeprefix('models:/')} to continue, or --replace to start again"
        )


def make_plan(model: str, version: registry.Version, source: Files, inputs: Mapping[str, str], settings: ScoringSettings) -> ScoringPlan:
    """Return the plan, without the number of rows."""
    return ScoringPlan(
        asked=model,
        model_uri=version.uri,
        version=version.number,
        package=version.tags.get(PACKAGE, ""),
        input=source.name,
        input_digest=source.digest(),
        rows=0,
        inputs=dict(inputs),
        rows_per_part=settings.rows_per_part,
        on_bad_row=settings.on_bad_row,
        prefix=settings.prefix,
    )


def check_same_plan(target: str, plan: ScoringPlan, unfinished: ScoringPlan) -> ScoringPlan:
    """Return the unfinished plan if the new plan is the same; raise BadInput if the input or a setting differs."""
    if unfinished.input_digest != plan.input_digest:
        raise BadInput(
            f"{plan.input} differs from the input that {target} was started with: restore that input, or pass --replace to start again"
        )
    before, now = unfinished.model_dump(), plan.model_dump()
    if changed := [name for name in ("inputs", "rows_per_part", "on_bad_row", "prefix") if before[name] != now[name]]:
        values = ", ".join(f"{name} {before[name]!r}" for name in changed)
        raise BadInput(f"{target} was started with {values}: use the same settings to continue, or pass --replace to start again")
    return unfinished


def score_parts(
    session: registry.Session, source: Files, output: ScoringOutput, plan: ScoringPlan, answers: Mapping[str, str]
) -> RowCounts:
    """Score the remaining rows, and return the number of finished rows."""
    counts = output.resume()
    if counts.rows:
        log.info("%s of %s rows are finished; continuing", f"{counts.rows:,}", f"{plan.rows:,}")
    last: float | None = None  # time of the last part; the first has no rate, because it includes loading the version
    for part in split_rows(source.pieces(plan.inputs), plan.rows_per_part, skip=counts.rows):
        if part.bad.num_rows and plan.on_bad_row == "error":  # `check_rows` did not find it, so the input changed
            break
        columns: Mapping[str, Sequence[Any]] = served_columns(session.answer(part.texts)) if part.numbers else {}
        output.add(part.numbers, add_answers(part.good, columns, answers), part.bad)
        counts = RowCounts(counts.rows + part.rows, counts.scored + len(part.numbers))
        rate = f", {part.rows / (time.monotonic() - last):,.0f} per second" if last else ""
        last = time.monotonic() if columns or last else None
        log.info("%s of %s rows%s", f"{counts.rows:,}", f"{plan.rows:,}", rate)
    return counts


def make_manifest(plan: ScoringPlan, counts: RowCounts) -> ScoringManifest:
    """Return the manifest, without the files."""
    shared = plan.model_dump(include=set(Scoring.model_fields))
    return ScoringManifest(**shared, scored=counts.scored, quarantined=counts.rows - counts.scored)
