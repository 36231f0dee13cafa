"""Judge a snapshot: bad rows to quarantine with a reason each, and the whole rejected where what is left is not fit to train on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import in_order, pseudo_labelled, read_snapshot, write_rows
from components.artifacts.validation import Check, ValidationReport
from components.core.errors import BadData, shorten
from components.core.output_dir import fresh
from components.core.section import NOTHING, OpenSection, nearest
from components.data.validate.label_spelling import relabel
from components.data.validate.row_ids import OUTDONE, sharing, with_identity
from components.data.validate.settings import ValidateParams
from components.model import tasks

if TYPE_CHECKING:
    from components.data.validate.suite import CheckResults, CheckSpec

log = logging.getLogger(__name__)

_NAMED = 10  # values that a message lists


@dataclass(frozen=True)
class ValidationOutcome:
    """What became of the rows: `quarantined` has a column `reason`; `reasons` counts rows, one with two reasons twice."""

    kept: pd.DataFrame
    quarantined: pd.DataFrame
    reasons: dict[str, int]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()


def validate(raw: Path, out: Path, *, task: str, validate: ValidateParams, task_options: OpenSection = NOTHING) -> None:
    """Write the rows of the snapshot `raw` that are fit to train on, those that are not, and the report into `out`.

    Raises:
        BadData: the snapshot is rejected, with every reason; the report is written all the same.
    """
    kind = tasks.load(task, task_options.fields)
    manifest = SnapshotManifest.read(raw)
    frame = read_snapshot(raw)
    judged = judge(frame, kind, validate)
    fresh(out)
    write_rows(judged.kept, out / "kept.parquet")
    write_rows(judged.quarantined, out / "quarantine.parquet")
    report = ValidationReport(
        snapshot=manifest.digest,
        accepted=not _failed(judged.checks),
        rows_in=len(frame),
        kept=len(judged.kept),
        quarantined=len(judged.quarantined),
        reasons=judged.reasons,
        checks=judged.checks,
        grouped="group" in frame,
        warnings=judged.warnings,
    )
    report.write(out)
    for warning in report.warnings:
        log.warning("%s", warning)
    log.info("kept %d of %d rows; %d quarantined; %d checks", report.kept, report.rows_in, report.quarantined, len(report.checks))
    if not report.accepted:
        faults = [f"- {check.name}: expected {check.expected}, found {check.observed}" for check in _failed(judged.checks)]
        raise BadData(
            "\n".join([f"the snapshot of {manifest.source} is rejected (see {out}/report.json and quarantine.parquet):", *faults])
        )


def judge(frame: pd.DataFrame, kind: tasks.Task, settings: ValidateParams) -> ValidationOutcome:
    """Carry out all checks on the rows of a snapshot; then the task reads those that pass, and says which of them are bad."""
    structure = _check_structure(frame, kind.columns)
    if _failed(structure):
        return ValidationOutcome(frame, frame.head(0).assign(reason=pd.Series(dtype="str")), {}, structure)
    if lost := [name for name in ("text", "label") if name in frame and name not in kind.columns]:
        log.warning("column %s is what the task makes of each row: yours is replaced; snapshot.columns can rename it", ", ".join(lost))
    rows = with_identity(frame, [name for name in kind.columns if name != "label"])
    rows, warnings = relabel(rows, kind, settings)
    reasons, row_checks = _check_rows(rows, [name for name in ("id", "group") if name in frame], kind, settings)
    read, faults = kind.read(rows.drop(index=list(reasons)).reset_index(drop=True))
    sound = rows.index.difference(list(reasons))
    reasons |= {int(sound[place]): reason for place, reason in faults.items()}
    if faults or not kind.classes:
        row_checks.append(_check_read(kind.columns, len(faults), len(read)))
    bad = pd.Series(reasons, dtype="str").sort_index()
    whole = read.drop(index=list(faults))
    kept = whole[in_order(list(whole.columns))].sort_values("id", kind="stable", ignore_index=True)
    data = rows.rename(columns={"reason": "source_reason"}).loc[bad.index]
    quarantined = data.assign(reason=bad).sort_values("id", kind="stable", ignore_index=True)
    counts = bad.str.split("; ").explode().value_counts().sort_index().to_dict()
    by_reason = {str(reason): int(count) for reason, count in counts.items()}
    table = _check_table(kept[~pseudo_labelled(kept)].reset_index(drop=True), kind, settings)  # a pseudo-label proves nothing of the data
    outdone = int((bad == OUTDONE).sum())
    checks = (*structure, *row_checks, *table, _check_quarantine(len(bad) - outdone, len(rows), by_reason, settings))
    return ValidationOutcome(kept, quarantined, by_reason, checks, warnings)


def _check_read(columns: Sequence[str], bad: int, rows: int) -> Check:
    """Write down how many of the rows that passed all else the task can read."""
    return Check(
        name="readable",
        scope="row",
        column=None,
        passed=not bad,
        expected=f"{', '.join(columns)} that belong together",
        observed=f"{bad} of {rows} rows otherwise",
        failures=bad,
    )


def _check_structure(frame: pd.DataFrame, columns: Sequence[str]) -> tuple[Check, ...]:
    from components.data.validate import suite

    expectations = suite.columns_exist(columns)
    checks = []
    for each, found in zip(expectations, suite.carry_out(expectations, frame), strict=True):
        observed = "it" if found.passed else f"none{nearest(str(each.column), list(frame.columns))}"
        checks.append(_check(each, found, observed))
    return tuple(checks)


def _check_rows(
    rows: pd.DataFrame, identities: Sequence[str], kind: tasks.Task, settings: ValidateParams
) -> tuple[dict[int, str], list[Check]]:
    """Return the reasons by row, joined by `; `, and the checks."""
    from components.data.validate import suite

    texts = [name for name in kind.columns if name != "label"]
    limits = settings.model_dump(include={"min_characters", "max_characters"})
    labels = settings.labels if kind.classes else ()
    expectations = suite.row_expectations(texts, identities, labels=labels if "label" in kind.columns else None, **limits)
    wanted = rows[[name for name in ("id", "group", *kind.columns)]]
    reasons: dict[int, list[str]] = {}
    checks = []
    for each, found in zip(expectations, suite.carry_out(expectations, wanted), strict=True):
        by_reason = sharing(rows.loc[list(found.rows)]) if each.name == "unique_id" else {each.reason: list(found.rows)}
        for reason, places in by_reason.items():
            for place in places:
                if reason not in reasons.setdefault(place, []):
                    reasons[place].append(reason)
        observed = f"{len(found.rows)} of {len(rows)} rows otherwise"
        if each.scope == "suite":
            observed = f"the type {found.value}"
        elif each.name == "labels" and found.rows:
            observed = f"{_named(rows.loc[list(found.rows), 'label'])} in {len(found.rows)} of {len(rows)} rows"
        checks.append(_check(each, found, observed))
    return {place: "; ".join(found) for place, found in reasons.items()}, checks


def _check_table(kept: pd.DataFrame, kind: tasks.Task, settings: ValidateParams) -> list[Check]:
    """Check what is left after quarantine; of no rows at all only the number is worth a message."""
    from components.data.validate import suite

    expectations = suite.table_expectations(
        "text", min_rows=settings.min_rows, max_duplicate_share=settings.max_duplicate_share, classes=kind.classes
    )
    if kept.empty:
        expectations = expectations[:1]
    rows = kept[["id", "group", "text", "label"]]
    if not kind.one_answer:  # then a text may stand in several rows, with another answer in each
        rows = rows.assign(text=rows["text"] + "\x1f" + rows["label"])
    checks = []
    for each, found in zip(expectations, suite.carry_out(expectations, rows), strict=True):
        checks.append(_check(each, found, _observed(each.name, found.value, kept, "text")))
    return checks if kept.empty or not kind.classes else [*checks, *_check_classes(kept, settings)]


def _check_classes(kept: pd.DataFrame, settings: ValidateParams) -> list[Check]:
    from components.data.validate import suite

    counts = kept["label"].value_counts().reindex(sorted({*kept["label"], *settings.labels}), fill_value=0)
    classes = pd.DataFrame({"label": pd.Series(counts.index.tolist(), dtype="str"), "rows": counts.to_numpy()})
    expectations = suite.class_expectations(
        min_rows_per_class=settings.min_rows_per_class,
        refuse_numbers=settings.numeric_labels == "refuse" and not settings.labels,
    )
    checks = []
    for each, found in zip(expectations, suite.carry_out(expectations, classes), strict=True):
        bad = classes.loc[list(found.rows)].sort_values(["rows", "label"], kind="stable")
        few = [f"{label!r} ({rows})" for label, rows in zip(bad["label"], bad["rows"], strict=True)]
        observed = f"{len(bad)} of {len(classes)} labels otherwise" + (f": {_shortened(few)}" if few else "")
        checks.append(_check(each, found, observed))
    return checks


def _check_quarantine(bad: int, rows: int, reasons: dict[str, int], settings: ValidateParams) -> Check:
    passed = bad <= settings.max_quarantined_share * rows
    most = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1]))
    return Check(
        name="quarantined_share",
        scope="suite",
        column=None,
        passed=passed,
        expected=f"at most {settings.max_quarantined_share:.1%} of the rows in quarantine (validate.max_quarantined_share)",
        observed=f"{bad} of {rows}" + (f" ({most})" if most else ""),
        failures=int(not passed),
    )


def _observed(name: str, value: object, kept: pd.DataFrame, text: str) -> str:
    if name == "min_rows":
        return f"{value} rows after quarantine"
    if name == "two_classes":
        return f"{value}: {_named(kept['label'])}"
    if name == "texts_differ":
        return f"{value}" + (f", {shorten(repr(kept[text].iloc[0]), 80)} in all {len(kept)} rows" if value == 1 else "")
    return f"{1 - float(str(value)):.1%}"


def _check(each: "CheckSpec", found: "CheckResults", observed: str) -> Check:
    """Write a result down; `failures` counts rows where the check is one of rows."""
    failures = len(found.rows) if each.scope == "row" else int(not found.passed)
    return Check(
        name=each.name,
        scope=each.scope,
        column=each.column,
        passed=found.passed,
        expected=each.expected,
        observed=observed,
        failures=failures,
    )


def _failed(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.scope == "suite" and not check.passed]


def _named(labels: "pd.Series[str]") -> str:
    return _shortened([f"{shorten(repr(label), 80)} ({count})" for label, count in labels.value_counts().items()])


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
