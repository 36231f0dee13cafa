"""The step `tune`.

Reads data/prepared/learn and data/base; never the test split.
Writes models/tuned: settings.json (values for the fields of `train` that are set to `tuned`; the only file that `train` reads),
best.json (their trial), trials.parquet (every trial) and leaderboard.json (filled with strategy auto).
The study is var/optuna/<identity>.log: after a kill, the same command continues to the same total.
Torch is imported only if there is something to search.
"""

import logging
from pathlib import Path
from typing import Any

from components.artifacts.tuning_result import BestTrial
from components.core.errors import BadParams
from components.core.output_dir import fresh
from components.core.section import NOTHING, OpenSection
from components.model import tasks
from components.training.trainer import TrainSection
from components.training.tune import tuning_artifacts
from components.training.tune.settings import TuneParams, check_metrics, refuse_declared, searched

log = logging.getLogger(__name__)


def tune(
    learn: Path, base: Path, out: Path, *, task: str, tune: TuneParams, train: TrainSection, task_options: OpenSection = NOTHING
) -> None:
    """Search the fields of `train` that are set to `tuned`, and write the values of the best trial.

    Raises:
        BadParams: a field is set to `tuned` without a dimension, a metric is unknown, or it cannot compare the base models.
        NotFound: preprocessing has not run.
        RetuneError: no trial completed.
        Unavailable: another process uses the same study.
    """
    kind = tasks.load(task, task_options.fields)
    check_metrics(kind.validation_metrics, train, tune)
    if tune.strategy == "auto":
        refuse_declared(tune, train)
        from components.training.tune.auto.search import search as search_auto

        search_auto(learn, base, out, name=task, tune=tune, train=train, task_options=task_options)
        return
    space = searched(tune.space, train)
    if space and tune.strategy == "none":
        raise BadParams(
            f"params.yaml: tune.strategy is none, but train.{next(iter(space))} is set to `tuned`; set search or auto, or a value"
        )
    if not space:
        log.info("nothing to tune: no field of `train` is set to `tuned`")
        counts: dict[str, Any] = {"complete": 0, "pruned": 0, "failed": 0, "seconds": 0.0}
        nothing = BestTrial(
            study="", number=-1, metric=tune.metric, value=0.0, settings={}, importance={}, stopped_by="nothing to tune", **counts
        )
        tuning_artifacts.write(fresh(out), nothing, [])
        return
    from components.training.tune.run_search import search

    search(kind, learn, base, out, name=task, tune=tune, train=train, space=space)
