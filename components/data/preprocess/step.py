"""The step `preprocess`.

Reads data/validated (kept.parquet, report.json) and data/base (the tokenizer).
Writes data/prepared: learn/ (train.parquet, validation.parquet, labels.json, retune.json, encoded/*.arrow),
test/test.parquet, removed.parquet and profile.json; what is encoded for another base model stands in learn/others/NAME/encoded.
The same rows in any order give the same bytes.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.manifest import MAIN, OTHERS, base_folder, base_names
from components.artifacts.profile import Profile, SplitProfile, TokenLengths
from components.artifacts.rows import AUGMENTED, GIVEN_SPLIT, PSEUDO, in_order, pseudo_labelled, read_rows, write_rows
from components.artifacts.training import ModelSpec
from components.artifacts.validation import ValidationReport
from components.core.errors import BadData, BadParams
from components.core.output_dir import fresh
from components.core.section import NOTHING, OpenSection, nearest
from components.core.text import grouped, normalise, text_key
from components.data.preprocess import augment, duplicates, given_splits, pseudo_labels
from components.data.preprocess.checks import check
from components.data.preprocess.settings import PreprocessParams, check_copies
from components.data.preprocess.splits import SPLITS, assign
from components.model import tasks

log = logging.getLogger(__name__)

Step = Callable[[pd.DataFrame], pd.DataFrame]

LEARNT = ("train", "validation")

_OWN_SPLIT = "split of the source"  # what a column `split` of the data is called while rows have that of ours

_BINS = 32
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


def preprocess(
    validated: Path, base: Path, out: Path, *, task: str, preprocess: PreprocessParams, task_options: OpenSection = NOTHING
) -> None:
    """Clean, deduplicate, split and encode the validated rows.

    Raises:
        NotThere: validation has not run.
        BadData: validation rejected the data, a column is missing, or the rows left cannot be learnt and tested.
        BadModel: the base model has no usable tokenizer.
        BadParams: max_length is more than the base model can read.
    """
    kind = tasks.load(task, task_options.fields)
    check_copies(preprocess, kind.unsupported_settings)
    rows = _validated(validated, kind.columns)
    tokenizers = {name: _tokenizer(kind, base_folder(base, name), preprocess.max_length) for name in base_names(base)}
    report = ValidationReport.read(validated)
    kept, removed = prepare(rows, preprocess, kind, report.grouped)
    check(kept[~pseudo_labelled(kept)], removed, kind.classes)
    spec = ModelSpec(
        task=task,
        labels=kind.labels_of(kept),
        max_length=preprocess.max_length,
        unicode_form=preprocess.unicode_form,
        options=kind.Options.parse(task_options.fields, "task_options").model_dump(mode="json"),
    )
    parts = {split: _part(kept, split) for split in SPLITS}
    spec = spec.model_copy(update={"options": {**spec.options, **kind.fit_options(parts["train"])}})
    lengths = token_lengths(kind.lengths(kept, tokenizers[MAIN]), preprocess.max_length, kind.splits_long_rows)
    profile = describe(report.snapshot, len(rows), parts, removed, kind, spec.labels, lengths, preprocess.warn_cut_share)
    warnings = (*profile.warnings, *_warnings_of_splits(rows, kept, removed))
    profile = profile.model_copy(update={"split_by": split_by(rows, preprocess, report.grouped), "warnings": warnings})
    for warning in profile.warnings:
        log.warning("%s", warning)
    profile = profile.model_copy(update={"warnings": (*report.warnings, *profile.warnings)})  # the first were logged by validation
    if preprocess.augment_copies:
        unseen = pd.concat([parts["test"], parts["validation"]], ignore_index=True)
        parts["train"] = augment.with_copies(parts["train"], unseen, preprocess, kind)
        learnt = digest_rows(parts["train"], parts["validation"])
        profile = profile.model_copy(update={"augmented": int(parts["train"][AUGMENTED].notna().sum()), "learn_digest": learnt})

    folder = fresh(out)
    _write_learn(folder / "learn", parts, spec)
    for name, tokenizer in tokenizers.items():
        _write_encoded(folder / "learn" if name == MAIN else folder / "learn" / OTHERS / name, parts, spec, kind, tokenizer)
    (folder / "test").mkdir()
    write_rows(parts["test"], folder / "test" / "test.parquet")
    write_rows(removed, folder / "removed.parquet")
    profile.write(folder)
    log.info(
        "kept %d of %d rows (%d train, %d validation, %d test); removed %d exact duplicates, %d near duplicates, %d conflicting",
        *(profile.kept, profile.rows_in, *(profile.splits[split].rows for split in reversed(SPLITS))),
        *(profile.exact_duplicates, profile.near_duplicates, profile.conflicting),
    )
    log.info("splits follow from the %s of a row%s", profile.split_by, "" if profile.split_by == "group" else " (preprocess.split_by)")
    for version, count in profile.pseudo.items():
        log.info("%d of the training rows have a pseudo-label of %s", count, version)
    for reason, count in profile.pseudo_removed.items():
        log.info("removed %d rows: %s", count, reason)


def prepare(
    rows: pd.DataFrame, params: PreprocessParams, kind: tasks.Task, given_groups: bool | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the kept rows with their split, and the removed ones with reason, duplicate_of and split; both ordered by id.

    `given_groups` is as in `split_by`.
    """
    if kind.normalised:
        rows = rows.assign(text=[normalise(text, params.unicode_form) for text in rows["text"]])
    rows = rows.rename(columns={"split": _OWN_SPLIT}).sort_values("id", ignore_index=True)
    if split_by(rows, params, given_groups) == "text":
        rows["group"] = [text_key(text) for text in rows["text"]]
    rows["split"] = assign(rows["group"], params.split_seed, params.test_share, params.validation_share)
    rows["split"] = given_splits.apply_given_splits(rows)
    gone = []
    left = rows
    steps: list[Step] = [pseudo_labels.outside, pseudo_labels.labelled] if PSEUDO in rows else []
    steps += [duplicates.crossing] if given_splits.has_given_splits(rows) else []  # first: a training row takes no given test row with it
    steps += [duplicates.conflicting] if kind.one_answer else []
    steps += [lambda rest: duplicates.exact(rest, ("text",) if kind.one_answer else ("text", "label"))]
    steps += [] if kind.one_answer else [duplicates.crossing]
    steps += [lambda rest: duplicates.near(rest, params.near_duplicate)]
    steps += [lambda rest: pseudo_labels.unknown(rest, kind)] if PSEUDO in rows else []  # last: the others may take a label's true rows
    for step in steps:
        gone.append(step(left))
        left = left[~left["id"].isin(gone[-1]["id"])].reset_index(drop=True)
    removed = pd.concat(gone, ignore_index=True).merge(rows[["id", "split", "text", "label"]], on="id", validate="1:1")
    return left, removed.sort_values("id", ignore_index=True)


def split_by(rows: pd.DataFrame, params: PreprocessParams, given_groups: bool | None = None) -> str:
    """Return what the splits of `rows` (id, group) follow from: `group` where the data came with groups, else what the settings say.

    `given_groups` says whether they came with some, which the rows alone do not where each group is the id of its only row: the next
    snapshot may have two rows of one. A task may have made groups where none were given.
    """
    return "group" if given_groups or grouped(rows["id"], rows["group"]) else params.split_by


def token_lengths(lengths: npt.NDArray[np.int64], max_length: int, in_parts: bool = False) -> TokenLengths:
    """Return the profile of `lengths` (tokens before truncation, a row each) and what cutting at `max_length` takes away, if anything."""
    width = max(1, -(-int(lengths.max()) // _BINS))
    starts, counts = np.unique(lengths // width * width, return_counts=True)
    cut = np.zeros_like(lengths) if in_parts else np.maximum(lengths - max_length, 0)
    return TokenLengths(
        max_length=max_length,
        mean=round(float(lengths.mean()), 3),
        quantiles={name: int(np.quantile(lengths, share, method="inverted_cdf")) for name, share in _QUANTILES.items()},
        histogram=tuple((int(start), int(count)) for start, count in zip(starts, counts, strict=True)),
        cut_rows=int((cut > 0).sum()),
        cut_share=float((cut > 0).mean()),
        cut_token_share=float(cut.sum() / lengths.sum()),
    )


def describe(
    snapshot: str,
    rows_in: int,
    parts: dict[str, pd.DataFrame],
    removed: pd.DataFrame,
    kind: tasks.Task,
    labels: tuple[str, ...],
    tokens: TokenLengths,
    warn_above: float,
) -> Profile:
    """Return the account of the rows, with a warning for each thing that a person should know before training."""
    reasons = removed["reason"].value_counts()
    splits = {name: _split_profile(rows, kind.label_counts(rows), labels) for name, rows in parts.items()}
    warnings = [f"no row of the label {label!r} fell into validation" for label in labels if _missing(label, splits)]
    if tokens.cut_share > warn_above:
        share = f"{tokens.cut_share:.1%} of the rows are cut at {tokens.max_length} tokens, above {warn_above:.1%}"
        warnings.append(f"{share}; raise preprocess.max_length (99 % of the rows have {tokens.quantiles['p99']} tokens or fewer)")
    return Profile(
        snapshot=snapshot,
        rows_in=rows_in,
        kept=sum(split.rows for split in splits.values()),
        exact_duplicates=int(reasons.get(duplicates.EXACT, 0)),
        near_duplicates=int(reasons.get(duplicates.NEAR, 0)),
        conflicting=int(reasons.get(duplicates.CONFLICTING, 0)),
        pseudo=pseudo_labels.by_version(parts["train"]),
        pseudo_removed={reason: int(reasons[reason]) for reason in pseudo_labels.REASONS if reason in reasons},
        labels=labels,
        splits=splits,
        tokens=tokens,
        test_digest=digest_rows(parts["test"]),
        learn_digest=digest_rows(parts["train"], parts["validation"]),
        warnings=tuple(warnings),
    )


def digest_rows(*tables: pd.DataFrame) -> str:
    """Return a sha256 over id, group, text and label of every row, table by table."""
    digest = hashlib.sha256()
    for table in tables:
        for row in table[["id", "group", "text", "label"]].itertuples(index=False):
            digest.update(json.dumps(list(row)).encode() + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()


def _part(kept: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split, with the columns of the data alone."""
    rows = kept[kept["split"] == split].drop(columns="split").rename(columns={_OWN_SPLIT: "split"}).reset_index(drop=True)
    return rows[in_order(list(rows.columns))]


def _warnings_of_splits(rows: pd.DataFrame, kept: pd.DataFrame, removed: pd.DataFrame) -> list[str]:
    """Say what a person should know of the splits that the data have of their own."""
    both = pd.concat([kept[["id", "split"]], removed[["id", "split"]]], ignore_index=True)
    warnings = given_splits.split_leaks(rows.drop(columns="split", errors="ignore").merge(both, on="id", validate="1:1"), removed)
    if "split" in rows and GIVEN_SPLIT not in rows:
        some = ", ".join(sorted({str(name)[:20] for name in rows["split"].dropna()})[:4])
        warnings.append(
            f"the column 'split' ({some}) is kept and not used: rows are split anew; snapshot.split_column: split takes its splits"
        )
    return warnings


def _missing(label: str, splits: Mapping[str, SplitProfile]) -> bool:
    """Return whether no validation row has a label that other rows have; a scheme of tags may name one that none has."""
    return not splits["validation"].labels[label] and any(split.labels[label] for split in splits.values())


def _validated(folder: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    report = ValidationReport.read(folder)
    if not report.accepted:
        failed = ", ".join(check.name for check in report.checks if not check.passed) or "no check named"
        raise BadData(f"{folder / report.FILE}: validation rejected the snapshot ({failed}); mend the data or the section `validate`")
    rows = read_rows(folder / "kept.parquet")
    if missing := [name for name in columns if name not in rows.columns]:
        hints = "; ".join(f"{name!r}{nearest(name, list(rows.columns))}" for name in missing)
        raise BadData(f"{folder / 'kept.parquet'} lacks columns of the task: {hints}. Name yours in snapshot.columns")
    return rows


def _split_profile(rows: pd.DataFrame, counts: Mapping[str, int], labels: tuple[str, ...]) -> SplitProfile:
    return SplitProfile(rows=len(rows), groups=int(rows["group"].nunique()), labels={label: int(counts.get(label, 0)) for label in labels})


def _tokenizer(kind: tasks.Task, base: Path, max_length: int) -> object:
    tokenizer = kind.load_tokenizer(base)
    if max_length > (longest := kind.longest_input(base, tokenizer)):
        raise BadParams(f"params.yaml: preprocess.max_length is {max_length}, and the base model in {base} reads at most {longest} tokens")
    return tokenizer


def _write_encoded(folder: Path, parts: dict[str, pd.DataFrame], spec: ModelSpec, kind: tasks.Task, tokenizer: object) -> None:
    (folder / "encoded").mkdir(parents=True)
    for split in LEARNT:
        table = kind.encode(parts[split], tokenizer, spec)
        with pa.OSFile(str(folder / "encoded" / f"{split}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)


def _write_learn(folder: Path, parts: dict[str, pd.DataFrame], spec: ModelSpec) -> None:
    folder.mkdir()
    for split in LEARNT:
        write_rows(parts[split], folder / f"{split}.parquet")
    numbers = {label: place for place, label in enumerate(spec.labels)}
    (folder / "labels.json").write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    spec.write(folder)
