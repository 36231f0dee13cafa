"""The expectations that the section `validate` asks for, and their results; the only module that imports Great Expectations.

Row expectations find rows for quarantine; table expectations judge what is left.
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

gxe: Any = gx.expectations  # a package with types that does not mark its names as exported

# A text with nothing but space and characters that nobody sees is empty, as components.core.text.normalise has it.
_VISIBLE = "[^\\s\u00ad\u200b\u2060\ufeff]"
# C0 without tab and line ends, DEL, and C1 without NEL: damage, or a text that was decoded with the wrong encoding.
_CONTROL = r"[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f]"
_NUMBER = r"^\s*[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?\s*$"


@dataclass(frozen=True)
class CheckSpec:
    """An expectation with the words that a reader sees: `expected` in a sentence, `reason` in quarantine."""

    name: str
    scope: Literal["row", "suite"]
    column: str | None
    expected: str
    expectation: Expectation
    reason: str = ""


@dataclass(frozen=True)
class CheckResult:
    """What came out: `rows` are the positions of the rows that fail, `value` is the number of a table expectation."""

    passed: bool
    rows: tuple[int, ...]
    value: Any


def columns_exist(columns: Sequence[str]) -> list[CheckSpec]:
    """Expect the columns to be there."""
    return [CheckSpec("column_exists", "suite", name, f"a column {name!r}", gxe.ExpectColumnToExist(column=name)) for name in columns]


def row_expectations(
    texts: Sequence[str], identities: Sequence[str], *, min_characters: int, max_characters: int, labels: Sequence[str] | None
) -> list[CheckSpec]:
    """Expect of every row: nothing empty, texts of a sane length without control characters, a known label, an id of its own.

    `labels` are those that are allowed, all where it is empty; None where the rows have no column of that name.
    """
    found: list[CheckSpec] = []
    for name in (*identities, *texts, *(["label"] if labels is not None else [])):
        text = gxe.ExpectColumnValuesToBeOfType(column=name, type_="str")
        found.append(CheckSpec("type", "suite", name, f"a column {name!r} of text", text))
        null = gxe.ExpectColumnValuesToNotBeNull(column=name)
        found.append(CheckSpec("not_null", "row", name, f"{name} in every row", null, f"{name} is empty"))
        blank = gxe.ExpectColumnValuesToMatchRegex(column=name, regex=_VISIBLE)
        found.append(CheckSpec("not_blank", "row", name, f"a visible character in {name}", blank, f"{name} is empty"))
    for name in texts:
        fewer, more = f"{min_characters} characters (validate.min_characters)", f"{max_characters} characters (validate.max_characters)"
        short = gxe.ExpectColumnValueLengthsToBeBetween(column=name, min_value=min_characters)
        long = gxe.ExpectColumnValueLengthsToBeBetween(column=name, max_value=max_characters)
        control = gxe.ExpectColumnValuesToNotMatchRegex(column=name, regex=_CONTROL)
        found.append(CheckSpec("min_characters", "row", name, f"at least {fewer} in {name}", short, f"{name} has fewer than {fewer}"))
        found.append(CheckSpec("max_characters", "row", name, f"at most {more} in {name}", long, f"{name} has more than {more}"))
        found.append(CheckSpec("no_control", "row", name, f"no control character in {name}", control, f"{name} has a control character"))
    if labels:
        known = gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(labels))
        found.append(CheckSpec("labels", "row", "label", "a label of validate.labels", known, "label is not in validate.labels"))
    if "id" in identities:
        unique = gxe.ExpectColumnValuesToBeUnique(column="id")
        found.append(CheckSpec("unique_id", "row", "id", "an id for each row", unique))
    return found


def table_expectations(text: str, *, min_rows: int, max_duplicate_share: float, classes: bool = True) -> list[CheckSpec]:
    """Expect of the rows that are left: enough of them, two classes where there are `classes`, and texts that differ."""
    rows = gxe.ExpectTableRowCountToBeBetween(min_value=min_rows)
    two = gxe.ExpectColumnUniqueValueCountToBeBetween(column="label", min_value=2)
    differ = gxe.ExpectColumnUniqueValueCountToBeBetween(column=text, min_value=2)
    unique = gxe.ExpectColumnProportionOfUniqueValuesToBeBetween(column=text, min_value=1 - max_duplicate_share)
    share = f"at most {max_duplicate_share:.1%} of the rows with a {text} that an earlier row has (validate.max_duplicate_share)"
    return [
        CheckSpec("min_rows", "suite", None, f"at least {min_rows} rows (validate.min_rows)", rows),
        *([CheckSpec("two_classes", "suite", "label", "at least two different labels", two)] if classes else []),
        CheckSpec("texts_differ", "suite", text, f"more than one different {text}", differ),
        CheckSpec("duplicate_share", "suite", text, share, unique),
    ]


def class_expectations(*, min_rows_per_class: int, refuse_numbers: bool) -> list[CheckSpec]:
    """Expect of the table of classes (columns `label` and `rows`): enough rows each, and names that are no numbers."""
    enough = gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=min_rows_per_class)
    each = f"at least {min_rows_per_class} rows of every label (validate.min_rows_per_class)"
    found = [CheckSpec("min_rows_per_class", "suite", "label", each, enough)]
    if refuse_numbers:
        words = gxe.ExpectColumnValuesToNotMatchRegex(column="label", regex=_NUMBER)
        hint = "labels that are no numbers (if numbers are class names here, set validate.numeric_labels: allow)"
        found.append(CheckSpec("numeric_labels", "suite", "label", hint, words))
    return found


def run_checks(expectations: Sequence[CheckSpec], frame: pd.DataFrame) -> list[CheckResult]:
    """Return what came out, in the order of the expectations.

    Raises:
        RetuneError: a check crashed, which says nothing about the data.
    """
    # The plain index is our row number. Naming a column for it (`unexpected_index_column_names`) looks up each bad row by itself:
    # 20 s for 100,000 of them instead of one.
    numbered = frame.reset_index(drop=True)
    batch = _batches().get_batch(batch_parameters={"dataframe": numbered})
    for number, each in enumerate(expectations):
        each.expectation.meta = {"number": number}
    suite = gx.ExpectationSuite(name="validate", expectations=[each.expectation for each in expectations])
    form = {"result_format": "COMPLETE", "exclude_unexpected_values": True}
    results = batch.validate(suite, result_format=form).results
    found = {_number(result): result for result in results}  # they come back in another order
    return [_found(each, found[number]) for number, each in enumerate(expectations)]


@cache
def _batches() -> Any:
    """Return what turns a frame into a batch, in memory altogether: the default context leaves a temporary folder for Data Docs behind."""
    quiet = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        analytics_enabled=False,
    )
    context = gx.get_context(project_config=quiet, mode="ephemeral")
    return context.data_sources.add_pandas("snapshot").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")


def _number(result: Any) -> int:
    return int(result.expectation_config.meta["number"])


def _found(expected: CheckSpec, result: Any) -> CheckResult:
    infos = [result.exception_info] if "raised_exception" in result.exception_info else list(result.exception_info.values())
    crashed = [str(info["exception_message"]) for info in infos if info["raised_exception"]]
    if crashed:
        where = f" of column {expected.column!r}" if expected.column else ""
        raise RetuneError(f"the check {expected.name}{where} could not be carried out, which says nothing about the data: {crashed[0]}")
    rows = tuple(map(int, result.result.get("unexpected_index_list") or []))
    return CheckResult(bool(result.success), rows, result.result.get("observed_value"))
