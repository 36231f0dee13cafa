"""Start of the output layer: the solution of a linear probe on the features of the base (`train.head_start`, and the method `probe`).

A random head sends large, uninformed gradients into the encoder in the first steps. A head that already fits changes it less: LP-FT, Kumar
et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution" (2022).
"""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.core.errors import BadParams
from components.model.support.feature_cache import FeatureCache
from components.model.support.frozen_features import FrozenFeatures, features_of
from components.model.support.linear_probe import LinearHead
from components.model.tasks import Task
from components.training.trainer import hardware
from components.training.trainer.data import PreparedSplits
from components.training.trainer.settings import TrainParams
from components.training.trainer.state_dir import state_folder

log = logging.getLogger(__name__)

CACHE = "features"
_MOST_MIB = 512  # more rows hardly change a linear probe
_KEPT = 16
_fitted: dict[tuple[Any, bytes], LinearHead] = {}
"""The heads that this process has fitted last: many candidates of a search start at the same one."""


def probe_head(model: Any, task: Task, base: Path, learn: PreparedSplits, settings: TrainParams, cache: FeatureCache | None) -> LinearHead:
    """Return the output layer of `model`, which `task` built of `base`, fitted on the training rows of `learn`.

    The features of training and validation rows are computed together, so that another split of the same rows finds them in `cache`.
    Without `cache`, features of an earlier step are read from var/features, and none are written.

    Raises:
        BadModel: a feature is NaN or infinite.
        BadParams: the task has no linear probe.
    """
    cache = cache or FeatureCache(state_folder(CACHE), 0)
    rows = pa.concat_tables([learn.train.table, learn.validation.table])
    features = features_of(model, task, base, learn.spec, rows, precision=hardware.precision(settings), cache=cache, most_mib=_MOST_MIB)
    features = features.take(features.rows < len(learn.train))
    if learn.groups is not None:
        features = replace(features, groups=learn.groups[features.rows])
    head = _fit(task, features, learn, settings.metric)
    if head is None:
        raise BadParams(f"params.yaml: train.head_start is probe, but the task {learn.spec.task} has no linear probe; set it to random")
    log.info("output layer: %s", head.description)
    return head


def _fit(task: Task, features: FrozenFeatures, learn: PreparedSplits, metric: str) -> LinearHead | None:
    """Return the head of `features`, which depends on nothing else than what its key contains."""
    digest = hashlib.sha256(f"{learn.spec.model_dump_json()} {metric} {features.bias}".encode())
    for array in (features.vectors, features.targets, features.rows, features.groups):
        digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    if (key := (type(task).fit_head, digest.digest())) not in _fitted:
        head = task.fit_head(features, learn.spec, metric)
        if head is None:
            return None
        if len(_fitted) >= _KEPT:
            del _fitted[next(iter(_fitted))]
        _fitted[key] = head
    return _fitted[key]
