"""Validate a snapshot: move bad rows to quarantine with a reason, and reject the snapshot if the rest is unfit for training."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import in_order, pseudo_labelled, read_snapshot, write_rows
from components.artifacts.validation import Check, ValidationReport
from components.core.errors import BadData, listed, shorten
from components.core.output_dir import fresh
from components.core.section import NOTHING, OpenSection, nearest
from components.data.validate import suite
from components.data.validate.hints import hints
from components.data.validate.label_spelling import merge_label_spellings
from components.data.validate.row_ids import SUPERSEDED, add_ids_and_groups, resolve_shared_ids
from components.data.validate.settings import ValidateParams
from components.model import tasks

log = logging.getLogger(__name__)

_NAMED = 10  # values in a message


@dataclass(frozen=True)
class ValidationOutcome:
    """Kept and quarantined rows (with a column `reason`); `reasons` counts rows by reason, a row once per reason."""

    kept: pd.DataFrame
    quarantined: pd.DataFrame
    reasons: dict[str, int]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()


def validate(raw: Path, out: Path, *, task: str, validate: ValidateParams, task_options: OpenSection = NOTHING) -> None:
    """Write the kept rows of the snapshot `raw`, the quarantined rows and the report to `out`.

    Raises:
        BadData: the snapshot is rejected; the message lists all reasons, and the report is written.
    """
    plugin = tasks.load(task, task_options.fields)
    manifest = SnapshotManifest.read(raw)
    frame = read_snapshot(raw)
    outcome = validate_rows(frame, plugin, validate)
    fresh(out)
    write_rows(outcome.kept, out / "kept.parquet")
    write_rows(outcome.quarantined, out / "quarantine.parquet")
    report = ValidationReport(
        snapshot=manifest.digest,
        accepted=not _failed(outcome.checks),
        rows_in=len(frame),
        kept=len(outcome.kept),
        quarantined=len(outcome.quarantined),
        reasons=outcome.reasons,
        checks=outcome.checks,
        grouped="group" in frame,
        warnings=outcome.warnings,
    )
    report.write(out)
    for warning in report.warnings:
        log.warning("%s", warning)
    log.info("kept %d of %d rows; %d quarantined; %d checks", report.kept, report.rows_in, report.quarantined, len(report.checks))
    if not report.accepted:
        failed = {check.name: f"- {check.name}: expected {check.expected}, found {check.observed}" for check in _failed(outcome.checks)}
        labels = frame["label"].dropna() if "label" in frame else pd.Series(dtype="str")
        faults = [*failed.values(), *hints(plugin, labels, failed.keys(), outcome.reasons)]
        raise BadData(
            "\n".join([f"the snapshot of {manifest.source} is rejected (see {out}/report.json and quarantine.parquet):", *faults])
        )


def validate_rows(frame: pd.DataFrame, task: tasks.Task, settings: ValidateParams) -> ValidationOutcome:
    """Run all checks on the rows of a snapshot, then let the task read the rows that pass and report bad ones."""
    structure = _check_structure(frame, task.columns)
    if _failed(structure):
        return ValidationOutcome(frame, frame.head(0).assign(reason=pd.Series(dtype="str")), {}, structure)
    if lost := [name for name in ("text", "label") if name in frame and name not in task.columns]:
        log.warning("the task computes the column %s and replaces yours; to keep it, rename it in snapshot.columns", ", ".join(lost))
    rows = add_ids_and_groups(frame, [name for name in task.columns if name != "label"])
    rows, warnings = merge_label_spellings(rows, task, settings)
    reasons, row_checks = _check_rows(rows, [name for name in ("id", "group") if name in frame], task, settings)
    read, faults = task.read(rows.drop(index=list(reasons)).reset_index(drop=True))
    passed = rows.index.difference(list(reasons))
    reasons |= {int(passed[index]): reason for index, reason in faults.items()}
    if faults or not task.classes:
        expected, observed = f"{', '.join(task.columns)} that belong together", f"{len(faults)} of {len(read)} rows fail"
        readable = Check(name="readable", scope="row", passed=not faults, expected=expected, observed=observed, failures=len(faults))
        row_checks.append(readable)
    bad = pd.Series(reasons, dtype="str").sort_index()
    kept = read.drop(index=list(faults))
    kept = kept[in_order(list(kept.columns))].sort_values("id", kind="stable", ignore_index=True)
    data = rows.rename(columns={"reason": "source_reason"}).loc[bad.index]
    quarantined = data.assign(reason=bad).sort_values("id", kind="stable", ignore_index=True)
    counts = bad.str.split("; ").explode().value_counts().sort_index().to_dict()
    by_reason = {str(reason): int(count) for reason, count in counts.items()}
    labelled = kept[~pseudo_labelled(kept)].reset_index(drop=True)  # pseudo-labels must not satisfy a requirement
    superseded = int((bad == SUPERSEDED).sum())
    quarantine = _check_quarantine(len(bad) - superseded, len(rows), by_reason, settings)
    checks = (*structure, *row_checks, *_check_table(labelled, task, settings), quarantine)
    return ValidationOutcome(kept, quarantined, by_reason, checks, warnings)


def _check_structure(frame: pd.DataFrame, columns: Sequence[str]) -> tuple[Check, ...]:
    results = suite.run_checks(suite.columns_exist(columns), frame)
    hints = ["it" if result.passed else f"none{nearest(str(spec.column), list(frame.columns))}" for spec, result in results]
    return tuple(_check(*pair, observed) for pair, observed in zip(results, hints, strict=True))


def _check_rows(
    rows: pd.DataFrame, identities: Sequence[str], task: tasks.Task, settings: ValidateParams
) -> tuple[dict[int, str], list[Check]]:
    """Return the reasons by row, joined by `; `, and the checks."""
    texts = [name for name in task.columns if name != "label"]
    limits = settings.model_dump(include={"min_characters", "max_characters"})
    labels = settings.labels if task.classes else ()
    specs = suite.row_expectations(texts, identities, labels=labels if "label" in task.columns else None, **limits)
    reasons: defaultdict[int, dict[str, None]] = defaultdict(dict)  # in order of the checks, each once
    checks = []
    for spec, result in suite.run_checks(specs, rows[["id", "group", *task.columns]]):
        bad = rows.loc[result.rows]
        for reason, indexes in (resolve_shared_ids(bad) if spec.name == "unique_id" else {spec.reason: result.rows}).items():
            for index in indexes:
                reasons[index][reason] = None
        observed = f"{len(bad)} of {len(rows)} rows fail"
        if spec.scope == "suite":
            observed = f"the type {result.value}"
        elif spec.name == "labels" and len(bad):
            observed = f"{_label_counts(bad['label'])} in {len(bad)} of {len(rows)} rows"
        checks.append(_check(spec, result, observed))
    return {index: "; ".join(row_reasons) for index, row_reasons in reasons.items()}, checks


def _check_table(kept: pd.DataFrame, task: tasks.Task, settings: ValidateParams) -> list[Check]:
    """Check the rows after quarantine; without rows, only their number is checked."""
    specs = suite.table_expectations(min_rows=settings.min_rows, max_duplicate_share=settings.max_duplicate_share, classes=task.classes)
    rows = kept[["id", "group", "text", "label"]]
    if not task.one_answer:  # a text may be in several rows with different answers
        rows = rows.assign(text=rows["text"] + "\x1f" + rows["label"])
    results = suite.run_checks(specs[:1] if kept.empty else specs, rows)
    checks = [_check(spec, result, _observed(spec.name, result.value, kept)) for spec, result in results]
    return checks if kept.empty or not task.classes else [*checks, *_check_classes(kept, settings)]


def _check_classes(kept: pd.DataFrame, settings: ValidateParams) -> list[Check]:
    counts = kept["label"].value_counts().reindex(sorted({*kept["label"], *settings.labels}), fill_value=0)
    classes = pd.DataFrame({"label": pd.Series(counts.index.tolist(), dtype="str"), "rows": counts.to_numpy()})
    refuse_numbers = settings.numeric_labels == "refuse" and not settings.labels
    specs = suite.class_expectations(min_rows_per_class=settings.min_rows_per_class, refuse_numbers=refuse_numbers)
    checks = []
    for spec, result in suite.run_checks(specs, classes):
        bad = classes.loc[result.rows].sort_values(["rows", "label"], kind="stable")
        names = [f"{label!r} ({rows})" for label, rows in zip(bad["label"], bad["rows"], strict=True)]
        observed = f"{len(bad)} of {len(classes)} labels fail" + (f": {listed(names, _NAMED)}" if names else "")
        checks.append(_check(spec, result, observed))
    return checks


def _check_quarantine(bad: int, rows: int, reasons: dict[str, int], settings: ValidateParams) -> Check:
    passed = bad <= settings.max_quarantined_share * rows
    by_reason = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1]))
    return Check(
        name="quarantined_share",
        scope="suite",
        passed=passed,
        expected=f"at most {settings.max_quarantined_share:.1%} of the rows in quarantine (validate.max_quarantined_share)",
        observed=f"{bad} of {rows}" + (f" ({by_reason})" if by_reason else ""),
        failures=int(not passed),
    )


def _observed(name: str, value: object, kept: pd.DataFrame) -> str:
    if name == "min_rows":
        return f"{value} rows after quarantine"
    if name == "two_classes":
        return f"{value}: {_label_counts(kept['label'])}"
    if name == "texts_differ":
        return f"{value}" + (f", {shorten(repr(kept['text'].iloc[0]), 80)} in all {len(kept)} rows" if value == 1 else "")
    return f"{1 - float(str(value)):.1%}"


def _check(spec: suite.CheckSpec, result: suite.CheckResult, observed: str) -> Check:
    return Check(
        name=spec.name,
        scope=spec.scope,
        column=spec.column,
        passed=result.passed,
        expected=spec.expected,
        observed=observed,
        failures=len(result.rows) if spec.scope == "row" else int(not result.passed),
    )


def _failed(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.scope == "suite" and not check.passed]


def _label_counts(labels: "pd.Series[str]") -> str:
    return listed([f"{shorten(repr(label), 80)} ({count})" for label, count in labels.value_counts().items()], _NAMED)
