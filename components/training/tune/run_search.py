"""One whole search, from the prepared rows to the best trial: what it runs on, its name, and its end."""

import hashlib
import logging
import math
from pathlib import Path

import pandas as pd

from components.artifacts.manifest import OTHERS, base_folder
from components.artifacts.rows import read_rows
from components.core.errors import BadParams
from components.core.hashing import digest_code, digest_folder, digest_value
from components.core.output_dir import fresh
from components.model import tasks
from components.training.trainer import TrainSection, hardware
from components.training.trainer.data import Encoded, PreparedSplits
from components.training.tune import tuning_artifacts
from components.training.tune.objective import Search
from components.training.tune.settings import Dimension, TuneParams
from components.training.tune.study import open_study
from components.training.tune.warm_start import StudyContext

log = logging.getLogger(__name__)


def search(
    kind: tasks.Task, learn: Path, base: Path, out: Path, *, task: str, tune: TuneParams, train: TrainSection, space: dict[str, Dimension]
) -> None:
    """Search `space`, and write the best trial's values into `out`.

    Raises:
        BadParams: a metric cannot compare the base models.
        NotThere: preprocessing has not run.
        RetuneError: no trial completed.
        Unavailable: another process searches the same study.
    """
    bases = [str(name) for name in space["base"].choices] if "base" in space else [train.fixed.base]
    parts = {name: _part(kind, learn, name, tune.train_fraction) for name in bases}
    if kind.by_token and any(not _alike(parts[bases[0]], part) for part in parts.values()):
        raise BadParams(
            f"params.yaml: tune.space.base: the tokenizers of {', '.join(bases)} differ, and the task's metrics count tokens, so that "
            "trials cannot be compared; search each base model in a run of its own: the test's measures count bytes or words"
        )
    identity, kin = _identity(learn, base, task, tune, train, space, bases)
    trials_of = Search(kind, {name: base_folder(base, name) for name in bases}, parts, tune, train, space)
    first = {name: value for name, value in tune.initial_trial.items() if name in space}
    log.info(
        "searching %s in study %s: up to %d trials in %g minutes, each on %d rows",
        *(", ".join(space), identity, tune.trials, tune.max_minutes, len(parts[bases[0]].train)),
    )
    with open_study(identity, tune, first, kin) as study:
        stopped_by = trials_of.run(study)
        best = tuning_artifacts.best(study, tune, stopped_by)
        trials = study.trials
    tuning_artifacts.write(fresh(out), best, trials)
    log.info("best of %d trials: %s %.4f with %s", best.complete, best.metric, best.value, tuning_artifacts.listed(best.settings))


def _alike(one: PreparedSplits, other: PreparedSplits) -> bool:
    """Whether the tokenizers of two base models made the same of the rows."""
    return bool(one.train.table.equals(other.train.table) and one.validation.table.equals(other.validation.table))


def _part(kind: tasks.Task, learn: Path, base: str, share: float) -> PreparedSplits:
    """Return the rows that a trial sees, encoded for `base`."""
    data = PreparedSplits.read(learn, base)
    return PreparedSplits(data.spec, data.train.take(_sampled(kind, learn, data.train, share)), data.validation)


def _sampled(kind: tasks.Task, learn: Path, train: Encoded, share: float) -> list[int]:
    """Return the places of a stable part of the training rows; where encoding made other rows of them, of those."""
    rows = read_rows(learn / "train.parquet")
    if len(rows) != len(train):
        rows = pd.DataFrame({"id": [str(place) for place in range(len(train))]})
    return sample(rows if kind.classes else rows[["id"]], share)


def sample(rows: pd.DataFrame, share: float) -> list[int]:
    """Return the places of a stable part of `rows`: of each label, where there is one, the ids with the smallest hashes, at least one."""
    order = [hashlib.sha256(name.encode()).hexdigest() for name in rows["id"]]
    labels = rows["label"].tolist() if "label" in rows else [""] * len(rows)
    strata: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        strata.setdefault(label, []).append(place)
    chosen = [sorted(places, key=order.__getitem__)[: math.ceil(share * len(places))] for places in strata.values()]
    return sorted(place for places in chosen for place in places)


def _identity(
    learn: Path, base: Path, task: str, tune: TuneParams, train: TrainSection, space: dict[str, Dimension], bases: list[str]
) -> tuple[str, StudyContext]:
    """Return the study's name, all that a trial's value follows from, and what makes other studies comparable with it.

    Budgets are left out: a larger one goes on.
    """
    place = [hardware.set_threads(train.fixed.threads), hardware.device(), hardware.precision(train.fixed)]
    digests = {name: digest_folder(base_folder(base, name), exclude=["manifest.json", OTHERS]) for name in bases}
    inputs = [digest_folder(learn, exclude=[OTHERS]), digest_code(f"model/tasks/{task}", "model/methods"), task]
    trial = tune.model_dump(include={"metric", "train_fraction", "epochs", "evaluations"})
    fixed = train.fixed.model_dump(exclude={"epochs", "metric", "patience", "evaluations_per_epoch", "max_minutes", "lora_store"})
    kin = StudyContext(digest_value([*inputs, *place, trial]), fixed, space, digests)
    asked = [tune.model_dump(exclude={"trials", "max_minutes"}), train.tuned]
    named = {name: value for name, value in fixed.items() if name not in train.tuned}
    return digest_value([*inputs, digests, *place, *asked, named])[:16], kin
