"""Score rows in parts: read, ask the version in a process of its own, write; after a kill go on behind the last part that is whole."""

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
from components.serving.batch.records import OnBadRow, RowCounts, ScoringManifest, ScoringPlan
from components.serving.batch.rows import QUARANTINE, add_answers, answer_columns, check_added_columns, check_rows, input_columns, shares

log = logging.getLogger(__name__)


OpenSource = Callable[[], AbstractContextManager[Files]]
"""Brings the rows to score, from wherever they lie, for as long as they are read."""


@dataclass(frozen=True)
class ScoringSettings:
    """How rows are scored: `rows_per_part` of the input, what becomes of a bad row, and what stands before the names of the answers.

    `columns` gives the column of an input that is not called as the input is; `usual` does where there is such a column.
    """

    rows_per_part: int = 10_000
    on_bad_row: OnBadRow = "error"
    prefix: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    usual: Mapping[str, str] = field(default_factory=dict)


class ScoringOutput(Protocol):
    """Where parts are written, each once; it knows after a kill what of them is whole."""

    added_columns: tuple[str, ...]
    """The columns that it has beside those of the input and the answers."""

    def locked(self) -> AbstractContextManager[None]:
        """Hold it for this process alone; raise Unavailable where another one does."""

    def unfinished(self) -> ScoringPlan | None:
        """Return what was begun and is not complete, None where there is nothing; raise BadInput where there is anything else."""

    def clear(self) -> None:
        """Remove what `retune score` has written there; raise BadInput where it has not written it."""

    def begin(self, plan: ScoringPlan) -> None:
        """Write down what is begun."""

    def resume(self) -> RowCounts:
        """Return what of the input is done, from its first row on."""

    def add(self, numbers: Sequence[int], scored: pa.Table, bad: pa.Table) -> None:
        """Write the next part: the rows `numbers` of the input with their answers, and those of the same share that go to quarantine."""

    def finish(self, manifest: ScoringManifest) -> ScoringManifest:
        """Write down that all is there, and return the manifest as it stands."""


def score(
    uri: str, asked: str, bring: OpenSource, output: ScoringOutput, settings: ScoringSettings, replace: bool = False
) -> ScoringManifest:
    """Let the registered version `asked`, named as for `registry.predict`, answer every row that `bring` brings; write rows with answers.

    An alias is followed once, at the very beginning. Nothing is brought for a version or an output that would not do.

    Raises:
        BadInput: there is nothing to score, or a bad row; or what stands in `output` is complete, or was begun otherwise.
        NotThere: no such version.
        BadModel: its package is not what was registered, or does not answer.
        Unavailable: another process scores into `output`, or there is no room; the parts that are whole stay.
    """
    version = registry.resolve(uri, asked.removeprefix("models:/"))
    with output.locked():
        standing = None if replace else output.unfinished()
        check_version(str(output), asked, version, standing)
        task = tasks.of(registry.spec_of(uri, f"{version.name}/{version.number}"))
        with bring() as source:
            inputs, answers = resolve_columns(task, source, output, settings)
            plan = make_plan(asked, version, source, inputs, settings)
            plan = check_same_plan(str(output), plan, standing) if standing else begin(plan, source, output, replace)
            with registry.Session(uri, version.uri) as session:
                counts = score_parts(session, source, output, plan, answers)
            if counts.rows != plan.rows or source.changed(plan.input_digest):
                raise BadSource(f"{source.called} was changed while it was scored; --replace begins anew")
            return output.finish(make_manifest(plan, counts))


def resolve_columns(
    task: tasks.Task, source: Files, output: ScoringOutput, settings: ScoringSettings
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the column of each input, and that of each answer.

    Raises:
        BadInput: one of the first is not there, or one that is added is.
    """
    inputs = input_columns(task, source, settings.columns, settings.usual)
    answers = answer_columns(task, settings.prefix)
    quarantine = QUARANTINE.names if settings.on_bad_row == "quarantine" else []
    check_added_columns(source, [*answers.values(), *output.added_columns, *quarantine])
    return inputs, answers


def begin(plan: ScoringPlan, source: Files, output: ScoringOutput, replace: bool) -> ScoringPlan:
    """Look through all rows, then begin; return the plan with their number.

    Raises:
        BadInput: there is nothing to score, or a bad row; nothing was written or removed.
    """
    plan = plan.model_copy(update={"rows": check_rows(source, plan.inputs, plan.on_bad_row)})
    if replace:
        output.clear()
    output.begin(plan)
    return plan


def check_version(where: str, asked: str, version: registry.Version, standing: ScoringPlan | None) -> None:
    """Check that what was begun was begun with this version, if anything was.

    Raises:
        BadInput: it was another one: an alias has moved since.
    """
    if standing is not None and (standing.model_uri, standing.package) != (version.uri, version.tags.get(PACKAGE, "")):
        raise BadInput(
            f"{where} was begun with {standing.model_uri}, and {asked} is version {version.number} now: "
            f"--model {standing.model_uri.removeprefix('models:/')} goes on, --replace begins anew"
        )


def make_plan(asked: str, version: registry.Version, source: Files, inputs: Mapping[str, str], settings: ScoringSettings) -> ScoringPlan:
    """Return what is to be done, in which the rows are not counted yet."""
    return ScoringPlan(
        asked=asked,
        model_uri=version.uri,
        version=version.number,
        package=version.tags.get(PACKAGE, ""),
        input=source.called,
        input_digest=source.digest(),
        rows=0,
        inputs=dict(inputs),
        rows_per_part=settings.rows_per_part,
        on_bad_row=settings.on_bad_row,
        prefix=settings.prefix,
    )


def check_same_plan(where: str, wanted: ScoringPlan, standing: ScoringPlan) -> ScoringPlan:
    """Return the plan that was begun, if what is wanted is the same.

    Raises:
        BadInput: the input or a setting is another one.
    """
    if standing.input_digest != wanted.input_digest:
        raise BadInput(f"{wanted.input} is not what {where} was begun with: bring that back to go on, or begin anew with --replace")
    before, now = standing.model_dump(), wanted.model_dump()
    if other := [name for name in ("inputs", "rows_per_part", "on_bad_row", "prefix") if before[name] != now[name]]:
        was = ", ".join(f"{name} {before[name]!r}" for name in other)
        raise BadInput(f"{where} was begun with {was}: give the same again to go on, or begin anew with --replace")
    return standing


def score_parts(
    session: registry.Session, source: Files, output: ScoringOutput, plan: ScoringPlan, answers: Mapping[str, str]
) -> RowCounts:
    """Score what is not done yet, and return what is done then."""
    counts = output.resume()
    if counts.rows:
        log.info("%s of %s rows are done; going on behind them", f"{counts.rows:,}", f"{plan.rows:,}")
    last: float | None = None  # when a part was done; the first has no rate, since the version is loaded meanwhile
    for share in shares(source.pieces(plan.inputs), plan.rows_per_part, skip=counts.rows):
        if share.bad.num_rows and plan.on_bad_row == "error":  # which a look through all rows did not find
            break
        found: Mapping[str, Sequence[Any]] = served_columns(session.answer(share.texts).output) if share.numbers else {}
        output.add(share.numbers, add_answers(share.good, found, answers), share.bad)
        counts = RowCounts(counts.rows + share.rows, counts.scored + len(share.numbers))
        rate = f", {share.rows / (time.monotonic() - last):,.0f} a second" if last else ""
        last = time.monotonic() if found or last else None
        log.info("%s of %s rows%s", f"{counts.rows:,}", f"{plan.rows:,}", rate)
    return counts


def make_manifest(plan: ScoringPlan, counts: RowCounts) -> ScoringManifest:
    """Return what stands at the end, but for the files."""
    kept = ("model_uri", "version", "package", "input", "input_digest", "inputs", "rows")
    fields = {name: value for name, value in plan.model_dump().items() if name in kept}
    return ScoringManifest(**fields, scored=counts.scored, quarantined=counts.rows - counts.scored)
