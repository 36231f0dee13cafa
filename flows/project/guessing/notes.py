"""What the user should know about a guess: the file, other columns and tasks that fit, what the test split can decide, the base model."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote

import pandas as pd

from components.artifacts.metrics import MIN_GROUPS
from components.core.errors import listed
from components.core.text import text_key
from components.data.preprocess.decidability import TEST_SHARES, decision_faults, describe_power
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.splits import assign_splits
from components.data.snapshot.given_splits import split_of
from components.data.snapshot.read_errors import short_list
from components.data.snapshot.settings import SnapshotParams
from components.data.validate.settings import ValidateParams
from flows.project.guessing.head import Head
from flows.project.guessing.shapes import ENCODER, SEQUENCES, Shape, TaskFit, Wanted
from flows.project.guessing.values import looks_like_text, readings, word_counts

CHOOSE = "choose with --label COLUMN, --text COLUMN (twice for a pair of texts), --task TASK and --group COLUMN"
_MOST = 8  # options in a list
_SLACK = 1.05  # groups that duplicates and bad rows may take


def convert_command(data: Path) -> str:
    """Return how to convert a file of another format."""
    out = f"{data.stem}.jsonl"
    return f"`retune convert {quote(str(data))} {quote(out)}` writes its rows, then `retune init {quote(out)}`"


def refused_flags(flags: Sequence[str], data: Path) -> str:
    """Return why a table with a column of 0 and 1 for each label is refused, and what to do."""
    return (
        f"the columns {short_list(flags)} are 0 or 1, probably one for each label: {convert_command(data)}, for several labels a row; "
        f"`--label {quote(flags[0])}` learns that column alone"
    )


def numbered_tags(column: str) -> str:
    """Return why tags that are numbers are refused, and what to do."""
    return (
        f"the tags in {column!r} are numbers, expected names such as B-PER: export them with their class names, or put the dataset's "
        "README.md with `dataset_info` next to the file (docs/sources.md, Class names)"
    )


def nothing_fits(frame: pd.DataFrame, wanted: Wanted) -> str:
    """Return why no task fits a table, with what each column looks like."""
    seen = []
    for name in map(str, frame.columns):
        found = readings(name, frame[name])
        text = f"texts of {word_counts(frame[name].dropna()).mean():.0f} words" if looks_like_text(frame[name]) else ""
        seen.append(f"{name!r}: {found[0].description if found else text or 'neither texts nor labels'}")
    texts = any(looks_like_text(frame[name]) for name in frame.columns)
    missing = f"no columns fit the task {wanted.task}" if wanted.task else f"no column looks like {'labels' if texts else 'texts'}"
    return f"{missing}; columns: {listed(seen, _MOST, '; ')}; {CHOOSE}; `retune tasks` lists the columns of each task"


def options_for(best: TaskFit, fits: Sequence[TaskFit], frame: pd.DataFrame) -> Iterator[str]:
    """Yield the options that choose the other candidates, and other columns with texts, each with a description."""
    seen, count = {(best.shape.name, *best.inputs, best.answer)}, 0
    for other in fits:
        identity = (other.shape.name, *other.inputs, other.answer)
        if identity in seen or count >= _MOST:
            continue
        seen.add(identity)
        count += 1
        options = [f"--task {other.shape.name}"] * (other.shape.name != best.shape.name)
        options += [f"--text {quote(name)}" for name in other.inputs] * (other.inputs != best.inputs)
        options += [f"--label {quote(other.answer)}"] * (other.answer != best.answer)
        yield f"{' '.join(options)}: {other.description or other.shape.task.replace('_', ' ')}"
    used = {*best.columns.values(), *(name for other in fits for name in (*other.inputs, other.answer))}
    for name in map(str, frame.columns):
        if name not in used and best.shape.task == "text_classification" and looks_like_text(frame[name]):
            yield f"--text {quote(name)}: texts of {word_counts(frame[name].dropna()).mean():.0f} words"


def of_file(settings: SnapshotParams) -> Iterator[str]:
    """Yield how the file is read, if not in the usual way."""
    if settings.encoding != "utf-8":
        yield f"the file is not UTF-8: it is read as {settings.encoding} (snapshot.encoding); check the accented letters"
    if settings.delimiter:
        yield f"the cells are separated by {settings.delimiter!r} (snapshot.delimiter)"
    if not settings.header:
        yield "the first line looks like a row, not like column names: it is read as one (snapshot.header: false)"


def of_unused(unused: Sequence[str]) -> Iterator[str]:
    """Yield the columns that the task does not read."""
    if unused:
        yield f"the task does not read {short_list(unused)}; any column can be a slice (gates.slices.columns)"


def of_base(shape: Shape) -> Iterator[str]:
    """Yield what the base model needs if it is on the hub and not in the local cache."""
    if shape.base == ENCODER:
        return
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(shape.base, "config.json"), str):
        other = (
            f"a folder or package with an encoder-decoder, or {ENCODER}, whose two copies are joined"
            if shape.task == SEQUENCES.task
            else ""
        )
        yield (
            f"base.model {shape.base} is on the Hugging Face hub and not in the local cache: run with HF_HUB_OFFLINE=0 to download it, or "
            f"set base.model to {other or 'a folder or package with a causal language model (examples/causal_lm builds one)'}"
        )


def plan(
    head: Head, frame: pd.DataFrame, best: TaskFit, group: str | None, labels: "pd.Series[str] | None", split: str | None
) -> tuple[float, list[str]]:
    """Return the test share with which the gates can decide, and what they could not decide even with it.

    `labels` are the classes of the rows, if the task has classes. Of a longer file only the first rows are known: it keeps the default.
    """
    share, told = TEST_SHARES[0], list(_class_notes(labels) if labels is not None else ())
    if not head.complete:
        return share, []
    if len(frame) < ValidateParams().min_rows:
        told.append(f"validation expects at least {ValidateParams().min_rows} rows (validate.min_rows), found {len(frame)}")
    rows = frame if labels is None else frame.loc[labels.index]
    classes = None if labels is None else labels.tolist()
    keys = _groups(rows, best, group)
    if split or head.split_files:
        test = [split_of(cell) == "test" for cell in head.frame.loc[rows.index, split]] if split else []
        return share, [*told, *(decision_faults(keys, test, classes, None) if any(test) else ())]
    settings = PreprocessParams()
    tests = {
        share: [name == "test" for name in assign_splits(keys, settings.split_seed, share, settings.validation_share)]
        for share in TEST_SHARES
    }
    units = {share: len({key for key, is_test in zip(keys, test, strict=True) if is_test}) for share, test in tests.items()}
    if _needs_groups(units[share], tests[share], labels):
        enough = (other for other in TEST_SHARES if units[other] >= MIN_GROUPS * _SLACK)
        share = next(enough, share)
    if share != TEST_SHARES[0]:
        unit = "groups" if group else "rows"
        told.append(
            f"preprocess.test_share is {share:g}: {TEST_SHARES[0]:g} would leave {units[TEST_SHARES[0]]} test {unit}, and the gates need "
            f"{MIN_GROUPS}"
        )
    told += decision_faults(keys, tests[share], classes, share)
    return share, [*told, describe_power(units[share], units[share] < sum(tests[share]))]


def _groups(rows: pd.DataFrame, best: TaskFit, group: str | None) -> list[str]:
    """Return the groups that stay in one split: those of the data, or rows with the same text."""
    if group:
        return rows[group].fillna("").tolist()
    inputs = [best.columns["context"]] if "context" in best.columns else best.inputs  # questions about one context stay together
    return [text_key(*map(str, cells)) for cells in rows[inputs].fillna("").itertuples(index=False, name=None)]


def _needs_groups(units: int, test: Sequence[bool], labels: "pd.Series[str] | None") -> bool:
    return units < MIN_GROUPS * _SLACK and (units < sum(test) or labels is None)


def _class_notes(labels: "pd.Series[str]") -> Iterator[str]:
    """Yield the classes that validation will reject."""
    least, counts = ValidateParams().min_rows_per_class, labels.value_counts()
    few = counts[counts < least].sort_values(kind="stable")
    if len(few):
        names = listed([f"{label!r} ({count})" for label, count in few.items()], 5)
        yield (
            f"{len(few)} of {len(counts)} labels have fewer than {least} rows (validate.min_rows_per_class), so validation will reject the "
            f"data: {names}; merge them (validate.label_map), add rows, or lower the limit"
        )
