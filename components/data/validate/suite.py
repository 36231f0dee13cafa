"""Build and run the Great Expectations checks of the section `validate`; the only module that imports Great Expectations.

Row expectations select rows for quarantine; table expectations check the remaining rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation

from components.core.errors import RetuneError

gxe: Any = gx.expectations  # a typed package that does not mark its names as exported

# A text of spaces and invisible characters is empty, as in components.core.text.normalise.
_VISIBLE = "[^\\s\u00ad\u200b\u2060\ufeff]"
# C0 without tab and line ends, DEL, and C1 without NEL: damaged text, or text decoded with the wrong encoding.
_CONTROL = r"[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f]"
_NUMBER = r"^\s*[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?\s*$"


@dataclass(frozen=True)
class CheckSpec:
    """An expectation and its texts: `expected` for messages, `reason` for quarantine."""

    name: str
    scope: Literal["row", "suite"]
    column: str | None
    expected: str
    expectation: Expectation
    reason: str = ""


@dataclass(frozen=True)
class CheckResult:
    """The result of a check: positions of the rows that fail, and the observed value of a table expectation."""

    passed: bool
    rows: list[int]
    value: Any


def columns_exist(columns: Sequence[str]) -> list[CheckSpec]:
    """Expect the columns to exist."""
    return [CheckSpec("column_exists", "suite", name, f"a column {name!r}", gxe.ExpectColumnToExist(column=name)) for name in columns]


def row_expectations(
    texts: Sequence[str], identities: Sequence[str], *, min_characters: int, max_characters: int, labels: Sequence[str] | None
) -> list[CheckSpec]:
    """Expect of every row: no empty cells, texts of valid length without control characters, a known label, and a unique id.

    `labels` are the allowed labels, empty to allow all; None if the rows have no column `label`.
    """
    specs: list[CheckSpec] = []
    for name in (*identities, *texts, *(["label"] if labels is not None else [])):
        text = gxe.ExpectColumnValuesToBeOfType(column=name, type_="str")
        specs.append(CheckSpec("type", "suite", name, f"a column {name!r} of text", text))
        null = gxe.ExpectColumnValuesToNotBeNull(column=name)
        specs.append(CheckSpec("not_null", "row", name, f"{name} in every row", null, f"{name} is empty"))
        blank = gxe.ExpectColumnValuesToMatchRegex(column=name, regex=_VISIBLE)
        specs.append(CheckSpec("not_blank", "row", name, f"a visible character in {name}", blank, f"{name} is empty"))
    for name in texts:
        fewer, more = f"{min_characters} characters (validate.min_characters)", f"{max_characters} characters (validate.max_characters)"
        short = gxe.ExpectColumnValueLengthsToBeBetween(column=name, min_value=min_characters)
        long = gxe.ExpectColumnValueLengthsToBeBetween(column=name, max_value=max_characters)
        control = gxe.ExpectColumnValuesToNotMatchRegex(column=name, regex=_CONTROL)
        specs.append(CheckSpec("min_characters", "row", name, f"at least {fewer} in {name}", short, f"{name} has fewer than {fewer}"))
        specs.append(CheckSpec("max_characters", "row", name, f"at most {more} in {name}", long, f"{name} has more than {more}"))
        specs.append(CheckSpec("no_control", "row", name, f"no control character in {name}", control, f"{name} has a control character"))
    if labels:
        allowed = gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(labels))
        specs.append(CheckSpec("labels", "row", "label", "a label of validate.labels", allowed, "label is not in validate.labels"))
    if "id" in identities:
        unique = gxe.ExpectColumnValuesToBeUnique(column="id")
        specs.append(CheckSpec("unique_id", "row", "id", "an id for each row", unique))
    return specs


def table_expectations(*, min_rows: int, max_duplicate_share: float, classes: bool = True) -> list[CheckSpec]:
    """Expect of the remaining rows: enough rows, two classes if the task has `classes`, and different texts."""
    rows = gxe.ExpectTableRowCountToBeBetween(min_value=min_rows)
    two = gxe.ExpectColumnUniqueValueCountToBeBetween(column="label", min_value=2)
    differ = gxe.ExpectColumnUniqueValueCountToBeBetween(column="text", min_value=2)
    unique = gxe.ExpectColumnProportionOfUniqueValuesToBeBetween(column="text", min_value=1 - max_duplicate_share)
    share = f"at most {max_duplicate_share:.1%} of the rows with a text of an earlier row (validate.max_duplicate_share)"
    return [
        CheckSpec("min_rows", "suite", None, f"at least {min_rows} rows (validate.min_rows)", rows),
        *([CheckSpec("two_classes", "suite", "label", "at least two different labels", two)] if classes else []),
        CheckSpec("texts_differ", "suite", "text", "more than one different text", differ),
        CheckSpec("duplicate_share", "suite", "text", share, unique),
    ]


def class_expectations(*, min_rows_per_class: int, refuse_numbers: bool) -> list[CheckSpec]:
    """Expect of the table of classes (columns `label` and `rows`): enough rows per class, and names that are not numbers."""
    enough = gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=min_rows_per_class)
    expected = f"at least {min_rows_per_class} rows of every label (validate.min_rows_per_class)"
    specs = [CheckSpec("min_rows_per_class", "suite", "label", expected, enough)]
    if refuse_numbers:
        words = gxe.ExpectColumnValuesToNotMatchRegex(column="label", regex=_NUMBER)
        hint = "labels that are not numbers (if numbers are class names, set validate.numeric_labels: allow)"
        specs.append(CheckSpec("numeric_labels", "suite", "label", hint, words))
    return specs


def run_checks(specs: Sequence[CheckSpec], frame: pd.DataFrame) -> list[tuple[CheckSpec, CheckResult]]:
    """Return each of `specs` with its result, in the same order.

    Raises:
        RetuneError: a check crashed; the data may be fine.
    """
    # The plain index is the row number. With `unexpected_index_column_names`, each bad row is looked up separately:
    # 20 s instead of 1 s for 100,000 rows.
    numbered = frame.reset_index(drop=True)
    batch = _batches().get_batch(batch_parameters={"dataframe": numbered})
    for number, spec in enumerate(specs):
        spec.expectation.meta = {"number": number}
    suite = gx.ExpectationSuite(name="validate", expectations=[spec.expectation for spec in specs])
    result_format = {"result_format": "COMPLETE", "exclude_unexpected_values": True}
    results = batch.validate(suite, result_format=result_format).results
    by_number = {int(result.expectation_config.meta["number"]): result for result in results}  # the order differs
    return [(spec, _result(spec, by_number[number])) for number, spec in enumerate(specs)]


@cache
def _batches() -> Any:
    """Return an in-memory batch definition for frames; the default context leaves a temporary folder for Data Docs behind."""
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
    context = gx.get_context(project_config=config, mode="ephemeral")
    return context.data_sources.add_pandas("snapshot").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")


def _result(spec: CheckSpec, result: Any) -> CheckResult:
    infos = [result.exception_info] if "raised_exception" in result.exception_info else list(result.exception_info.values())
    crashed = [str(info["exception_message"]) for info in infos if info["raised_exception"]]
    if crashed:
        where = f" of column {spec.column!r}" if spec.column else ""
        raise RetuneError(f"the check {spec.name}{where} crashed; the data may be fine: {crashed[0]}")
    rows = [int(row) for row in result.result.get("unexpected_index_list") or []]
    return CheckResult(bool(result.success), rows, result.result.get("observed_value"))
