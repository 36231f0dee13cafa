"""The step `preprocess`.

Reads data/validated (kept.parquet, report.json) and data/base (the tokenizer).
Writes data/prepared: learn/ (train.parquet, validation.parquet, labels.json, retune.json, encoded/*.arrow),
test/test.parquet, removed.parquet and profile.json; the rows encoded for another base model are in learn/others/NAME/encoded.
The same rows in any order give the same bytes.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

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
from components.data.preprocess import augment, duplicates, pseudo_labels
from components.data.preprocess.decidability import decision_faults, describe_power
from components.data.preprocess.settings import PreprocessParams, check_copies
from components.data.preprocess.splits import SPLITS, apply_given_splits, assign_splits, check_splits, has_given_splits, split_leaks
from components.model import tasks

log = logging.getLogger(__name__)

Filter = Callable[[pd.DataFrame], pd.DataFrame]

TRAINING_SPLITS = ("train", "validation")

_OWN_SPLIT = "split of the source"  # temporary name of a column `split` in the data

_BINS = 32
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


def preprocess(
    validated: Path, base: Path, out: Path, *, task: str, preprocess: PreprocessParams, task_options: OpenSection = NOTHING
) -> None:
    """Clean, deduplicate, split and encode the validated rows.

    Raises:
        NotFound: validation has not run.
        BadData: validation rejected the data, a column is missing, or the remaining rows cannot be trained on and tested.
        BadModel: the base model has no usable tokenizer.
        BadParams: max_length is more than the base model can read.
    """
    plugin = tasks.load(task, task_options.fields)
    check_copies(preprocess, plugin.unsupported_settings)
    rows = _validated(validated, plugin.columns)
    tokenizers = {name: _tokenizer(plugin, base_folder(base, name), preprocess.max_length) for name in base_names(base)}
    report = ValidationReport.read(validated)
    kept, removed = prepare(rows, preprocess, plugin, report.grouped)
    check_splits(kept[~pseudo_labelled(kept)], removed, plugin.classes)
    parts = {split: _part(kept, split) for split in SPLITS}
    spec = ModelSpec(
        task=task,
        labels=plugin.labels_of(kept),
        max_length=preprocess.max_length,
        unicode_form=preprocess.unicode_form,
        options=plugin.complete_options(parts["train"]),
    )
    tokens = token_lengths(plugin.lengths(kept, tokenizers[MAIN]), preprocess.max_length, plugin.splits_long_rows)
    splits = {name: _split_profile(part, plugin.label_counts(part), spec.labels) for name, part in parts.items()}
    warnings = (
        *_content_warnings(splits, tokens, preprocess.warn_cut_share),
        *_split_warnings(rows, kept, removed),
        *_decidability_warnings(kept, plugin.classes, preprocess.test_share),
    )
    for warning in warnings:
        log.warning("%s", warning)
    reasons = removed["reason"].value_counts()
    profile = Profile(
        snapshot=report.snapshot,
        rows_in=len(rows),
        kept=len(kept),
        exact_duplicates=int(reasons.get(duplicates.EXACT, 0)),
        near_duplicates=int(reasons.get(duplicates.NEAR, 0)),
        conflicting=int(reasons.get(duplicates.CONFLICTING, 0)),
        split_by=split_by(rows, preprocess, report.grouped),
        pseudo=pseudo_labels.by_version(parts["train"]),
        pseudo_removed={reason: int(reasons[reason]) for reason in pseudo_labels.REASONS if reason in reasons},
        labels=spec.labels,
        splits=splits,
        tokens=tokens,
        test_digest=digest_rows(parts["test"]),
        learn_digest=digest_rows(parts["train"], parts["validation"]),
        warnings=(*report.warnings, *warnings),  # validation has logged the former
    )
    if preprocess.augment_copies:
        unseen = pd.concat([parts["test"], parts["validation"]], ignore_index=True)
        parts["train"] = augment.add_noisy_copies(parts["train"], unseen, preprocess, plugin)
        digest = digest_rows(parts["train"], parts["validation"])
        profile = profile.model_copy(update={"augmented": int(parts["train"][AUGMENTED].notna().sum()), "learn_digest": digest})
    _write(out, parts, removed, profile, spec, plugin, tokenizers)
    _log_summary(profile)


def _write(
    out: Path,
    parts: dict[str, pd.DataFrame],
    removed: pd.DataFrame,
    profile: Profile,
    spec: ModelSpec,
    plugin: tasks.Task,
    tokenizers: Mapping[str, Any],
) -> None:
    folder = fresh(out)
    _write_learn(folder / "learn", parts, spec)
    for name, tokenizer in tokenizers.items():
        _write_encoded(folder / "learn" if name == MAIN else folder / "learn" / OTHERS / name, parts, spec, plugin, tokenizer)
    (folder / "test").mkdir()
    write_rows(parts["test"], folder / "test" / "test.parquet")
    write_rows(removed, folder / "removed.parquet")
    profile.write(folder)


def _log_summary(profile: Profile) -> None:
    log.info(
        "kept %d of %d rows (%d train, %d validation, %d test); removed %d exact duplicates, %d near duplicates, %d conflicting",
        *(profile.kept, profile.rows_in, *(profile.splits[split].rows for split in reversed(SPLITS))),
        *(profile.exact_duplicates, profile.near_duplicates, profile.conflicting),
    )
    log.info("split by the %s of a row%s", profile.split_by, "" if profile.split_by == "group" else " (preprocess.split_by)")
    for version, count in profile.pseudo.items():
        log.info("%d of the training rows have a pseudo-label of %s", count, version)
    for reason, count in profile.pseudo_removed.items():
        log.info("removed %d rows: %s", count, reason)


def prepare(
    rows: pd.DataFrame, params: PreprocessParams, task: tasks.Task, given_groups: bool | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the kept rows with their split, and the removed rows with reason, duplicate_of and split; both ordered by id.

    `given_groups` is as in `split_by`.
    """
    if task.normalised:
        rows = rows.assign(text=[normalise(text, params.unicode_form) for text in rows["text"]])
    rows = rows.rename(columns={"split": _OWN_SPLIT}).sort_values("id", ignore_index=True)
    if split_by(rows, params, given_groups) == "text":
        rows["group"] = [text_key(text) for text in rows["text"]]
    rows["split"] = assign_splits(rows["group"], params.split_seed, params.test_share, params.validation_share)
    rows["split"] = apply_given_splits(rows)
    filters: list[Filter] = [pseudo_labels.outside, pseudo_labels.labelled] if PSEUDO in rows else []
    filters += [duplicates.crossing] if has_given_splits(rows) else []  # first, so that a training row does not remove a given test row
    filters += [duplicates.conflicting] if task.one_answer else []
    filters += [lambda rest: duplicates.exact(rest, ("text",) if task.one_answer else ("text", "label"))]
    filters += [] if task.one_answer else [duplicates.crossing]
    filters += [lambda rest: duplicates.near(rest, params.near_duplicate)]
    filters += [lambda rest: pseudo_labels.unknown(rest, task)] if PSEUDO in rows else []  # last: others may remove a label's true rows
    kept, tables = rows, []
    for find in filters:
        tables.append(find(kept))
        kept = kept[~kept["id"].isin(tables[-1]["id"])].reset_index(drop=True)
    removed = pd.concat(tables, ignore_index=True).merge(rows[["id", "split", "text", "label"]], on="id", validate="1:1")
    return kept, removed.sort_values("id", ignore_index=True)


def split_by(rows: pd.DataFrame, params: PreprocessParams, given_groups: bool | None = None) -> str:
    """Return the column that decides the split of `rows` (id, group): `group` if the data has groups, else `params.split_by`.

    `given_groups` says whether the data has groups: rows alone do not show it if each group is the id of its only row, and a task may
    create groups.
    """
    return "group" if given_groups or grouped(rows["id"], rows["group"]) else params.split_by


def token_lengths(lengths: npt.NDArray[np.int64], max_length: int, in_parts: bool = False) -> TokenLengths:
    """Return the profile of `lengths` (rows,), tokens before truncation, and the share that is cut at `max_length`."""
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


def digest_rows(*tables: pd.DataFrame) -> str:
    """Return a sha256 over id, group, text and label of every row, table by table."""
    digest = hashlib.sha256()
    for table in tables:
        for row in table[["id", "group", "text", "label"]].itertuples(index=False):
            digest.update(json.dumps(list(row)).encode() + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()


def _part(kept: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split with the columns of the data only."""
    rows = kept[kept["split"] == split].drop(columns="split").rename(columns={_OWN_SPLIT: "split"}).reset_index(drop=True)
    return rows[in_order(list(rows.columns))]


def _split_warnings(rows: pd.DataFrame, kept: pd.DataFrame, removed: pd.DataFrame) -> list[str]:
    both = pd.concat([kept[["id", "split"]], removed[["id", "split"]]], ignore_index=True)
    warnings = split_leaks(rows.drop(columns="split", errors="ignore").merge(both, on="id", validate="1:1"), removed)
    if "split" in rows and GIVEN_SPLIT not in rows:
        values = ", ".join(sorted({str(name)[:20] for name in rows["split"].dropna()})[:4])
        warnings.append(f"the column 'split' ({values}) is kept but not used; to use its splits, set snapshot.split_column: split")
    return warnings


def _decidability_warnings(kept: pd.DataFrame, classes: bool, test_share: float) -> list[str]:
    """Log what the test split can show, and return why the gates could not decide on it."""
    rows = kept[~pseudo_labelled(kept)]
    test = rows["split"] == "test"
    units = rows[test]["group"].nunique()
    log.info("%s", describe_power(units, units < int(test.sum())))
    given = has_given_splits(rows) and bool((rows[GIVEN_SPLIT] == "test").any())
    return decision_faults(
        rows["group"].tolist(), test.tolist(), rows["label"].tolist() if classes else None, None if given else test_share
    )


def _content_warnings(splits: Mapping[str, SplitProfile], tokens: TokenLengths, warn_above: float) -> Iterator[str]:
    for label, rows in splits["validation"].labels.items():
        if not rows and any(split.labels[label] for split in splits.values()):  # a tag scheme may define labels that no row has
            yield f"no row of the label {label!r} is in validation"
    if tokens.cut_share > warn_above:
        share = f"{tokens.cut_share:.1%} of the rows are cut at {tokens.max_length} tokens, above {warn_above:.1%}"
        yield f"{share}; raise preprocess.max_length (99 % of the rows have {tokens.quantiles['p99']} tokens or fewer)"


def _validated(folder: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    report = ValidationReport.read(folder)
    if not report.accepted:
        failed = ", ".join(check.name for check in report.checks if not check.passed) or "no check recorded"
        raise BadData(f"{folder / report.FILE}: validation rejected the snapshot ({failed}); fix the data or the section `validate`")
    rows = read_rows(folder / "kept.parquet")
    if missing := [name for name in columns if name not in rows.columns]:
        hints = "; ".join(f"{name!r}{nearest(name, list(rows.columns))}" for name in missing)
        raise BadData(f"{folder / 'kept.parquet'} lacks columns of the task: {hints}. Map yours in snapshot.columns")
    return rows


def _split_profile(rows: pd.DataFrame, counts: Mapping[str, int], labels: tuple[str, ...]) -> SplitProfile:
    return SplitProfile(rows=len(rows), groups=int(rows["group"].nunique()), labels={label: int(counts.get(label, 0)) for label in labels})


def _tokenizer(task: tasks.Task, base: Path, max_length: int) -> object:
    tokenizer = task.load_tokenizer(base)
    if max_length > (longest := task.longest_input(base, tokenizer)):
        raise BadParams(f"params.yaml: preprocess.max_length is {max_length}, but the base model in {base} reads at most {longest} tokens")
    return tokenizer


def _write_encoded(folder: Path, parts: dict[str, pd.DataFrame], spec: ModelSpec, task: tasks.Task, tokenizer: object) -> None:
    (folder / "encoded").mkdir(parents=True)
    for split in TRAINING_SPLITS:
        table = task.encode(parts[split], tokenizer, spec)
        with pa.OSFile(str(folder / "encoded" / f"{split}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)


def _write_learn(folder: Path, parts: dict[str, pd.DataFrame], spec: ModelSpec) -> None:
    folder.mkdir()
    for split in TRAINING_SPLITS:
        write_rows(parts[split], folder / f"{split}.parquet")
    indexes = {label: index for index, label in enumerate(spec.labels)}
    (folder / "labels.json").write_text(json.dumps(indexes, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    spec.write(folder)
