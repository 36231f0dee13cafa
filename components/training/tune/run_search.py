"""One search, from the prepared rows to the best trial."""

import hashlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from components.artifacts.manifest import OTHERS, base_folder
from components.artifacts.rows import read_rows
from components.core.errors import BadParams
from components.core.hashing import digest_code, digest_folder, digest_value
from components.core.output_dir import fresh
from components.model import tasks
from components.training.trainer import TrainSection, hardware
from components.training.trainer.data import PreparedSplits
from components.training.tune import tuning_artifacts
from components.training.tune.objective import Search
from components.training.tune.settings import Dimension, TuneParams
from components.training.tune.study import open_study
from components.training.tune.warm_start import StudyContext, base_digests

log = logging.getLogger(__name__)


def search(
    task: tasks.Task, learn: Path, base: Path, out: Path, *, name: str, tune: TuneParams, train: TrainSection, space: dict[str, Dimension]
) -> None:
    """Search `space`, and write the best trial's values into `out`.

    Raises:
        BadParams: a metric cannot compare the base models.
        NotFound: preprocessing has not run.
        RetuneError: no trial completed.
        Unavailable: another process uses the same study.
    """
    bases = [str(choice) for choice in space["base"].choices] if "base" in space else [train.fixed.base]
    splits = {choice: _trial_splits(task, learn, choice, tune.train_fraction) for choice in bases}
    refuse_different_tokenizers(task, splits, "tune.space.base")
    identity, context = _identity(learn, base, name, tune, train, space, bases)
    run = Search(task, {choice: base_folder(base, choice) for choice in bases}, splits, tune, train, space)
    first = {field: value for field, value in tune.initial_trial.items() if field in space}
    log.info(
        "searching %s in study %s: up to %d trials in %g minutes, each on %d rows",
        *(", ".join(space), identity, tune.trials, tune.minutes, len(splits[bases[0]].train)),
    )
    with open_study(identity, tune, first, context) as study:
        stopped_by = run.run(study)
        best = tuning_artifacts.best(study, tune, stopped_by)
        trials = study.trials
    tuning_artifacts.write(fresh(out), best, trials)
    log.info("best of %d trials: %s %.4f with %s", best.complete, best.metric, best.value, tuning_artifacts.listed(best.settings))


def refuse_different_tokenizers(task: tasks.Task, splits: Mapping[str, PreparedSplits], setting: str) -> None:
    """Check that scores of trials with different base models can be compared; `setting` names the bases in params.yaml.

    Raises:
        BadParams: the task's validation metrics count tokens, and the tokenizers differ.
    """
    first = next(iter(splits.values()))
    if task.by_token and any(not _equal(first, encoded) for encoded in splits.values()):
        raise BadParams(
            f"params.yaml: {setting}: the tokenizers of {', '.join(splits)} differ and the task's metrics count tokens, so trials "
            "cannot be compared; search each base model in a separate run: the test metrics count bytes or words"
        )


def _equal(first: PreparedSplits, second: PreparedSplits) -> bool:
    """Return whether the tokenizers of two base models encode the rows identically."""
    return bool(first.train.table.equals(second.train.table) and first.validation.table.equals(second.validation.table))


def _trial_splits(task: tasks.Task, learn: Path, base: str, share: float) -> PreparedSplits:
    data = PreparedSplits.read(learn, base)
    rows = read_rows(learn / "train.parquet")
    if len(rows) != len(data.train):  # a task may encode a row as several
        rows = pd.DataFrame({"id": [str(index) for index in range(len(data.train))]})
    sampled = sample(rows if task.classes else rows[["id"]], share)
    groups = None if data.groups is None else data.groups[sampled]
    return PreparedSplits(data.spec, data.train.take(sampled), data.validation, groups)


def sample(rows: pd.DataFrame, share: float) -> list[int]:
    """Return the indices of a stable sample of `rows`: per label, if any, the ids with the smallest hashes, at least one."""
    hashes = pd.Series([hashlib.sha256(name.encode()).hexdigest() for name in rows["id"]])
    labels = rows["label"].to_numpy() if "label" in rows else np.zeros(len(rows))
    strata = [stratum.sort_values(kind="stable") for _, stratum in hashes.groupby(labels, dropna=False)]
    return sorted(int(index) for stratum in strata for index in stratum.index[: math.ceil(share * len(stratum))])


def _identity(
    learn: Path, base: Path, task: str, tune: TuneParams, train: TrainSection, space: dict[str, Dimension], bases: list[str]
) -> tuple[str, StudyContext]:
    """Return the study's name, a digest of everything that a trial's value depends on, and its context for comparable studies.

    Budgets are left out, so a larger budget continues the same study.
    """
    machine = [hardware.set_threads(train.fixed.threads), hardware.device(), hardware.precision(train.fixed)]
    digests = base_digests(base, bases)
    inputs = [digest_folder(learn, exclude=[OTHERS]), digest_code(f"model/tasks/{task}", "model/methods"), task]
    trial = tune.model_dump(include={"metric", "train_fraction", "epochs", "evaluations"})
    fixed = train.fixed.model_dump(
        exclude={"epochs", "metric", "patience", "evaluations_per_epoch", "stop_after_steps", "max_minutes", "lora_store"}
    )
    context = StudyContext(digest_value([*inputs, *machine, trial]), fixed, space, digests)
    settings = [tune.model_dump(exclude={"trials", "minutes", "strategy", "candidates", "cache_mib"}), train.tuned]
    values = {name: value for name, value in fixed.items() if name not in train.tuned}
    return digest_value([*inputs, digests, *machine, *settings, values])[:16], context
