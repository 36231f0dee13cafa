"""The baseline `probe`: the base model with an output layer that is fitted on its frozen features.

Its predictions come from the predictor of the task, like those of a trained model.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel
from components.core.temporary import temporary
from components.model.support.frozen_features import features_of
from components.model.support.linear_probe import LinearHead

log = logging.getLogger(__name__)

Baseline = Callable[[pd.DataFrame], ModelOutput]
Options = Callable[[LinearHead], Mapping[str, Any]]

_MOST_TOKENS = 500_000  # of the training rows; more hardly change a linear model, and a base needs minutes for them
_MOST_MIB = 512  # of features


def no_options(head: LinearHead) -> Mapping[str, Any]:
    """Return no options."""
    return {}


def fit(
    task: Any,
    train: pd.DataFrame,
    spec: ModelSpec,
    base: Path,
    otherwise: Baseline,
    options: Options = no_options,
) -> Baseline:
    """Return the baseline for a task that has `fit_head`, fitted for its first validation metric.

    `options` computes further options from the head, e.g. thresholds. If the base model has no linear output layer, or its features are
    not finite, a warning is logged and the result is the baseline `otherwise`.
    """
    import torch

    table = task.encode(train, task.load_tokenizer(base), spec)
    rows = _sample(train, table.column("length").to_numpy()) if len(table) == len(train) else np.arange(len(table))
    torch.manual_seed(0)
    try:
        model = task.build_model(base, spec)
        features = features_of(model, task, base, spec, table.take(rows), most_mib=_MOST_MIB)
        if len(table) == len(train):
            features = replace(features, groups=train["group"].to_numpy(dtype=np.str_)[rows][features.rows])
        head = task.fit_head(features, spec, task.validation_metrics[0])
    except BadModel as error:
        log.warning("there is no linear probe, and the baseline probe equals the one before it: %s", error)
        return otherwise
    log.info("baseline probe: %s", head.description)
    head.apply(model)
    with temporary() as folder:
        model.cpu().save_pretrained(folder)
        task.load_tokenizer(base).save_pretrained(folder)
        spec.model_copy(update={"options": {**spec.options, **options(head)}}).write(folder)
        predictor = task.predictor(folder)
    answer: Baseline = predictor.answer
    return answer


def _sample(train: pd.DataFrame, lengths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the rows to fit on: all, or those of random groups up to a number of tokens."""
    _, members = np.unique(train["group"].to_numpy(dtype=np.str_), return_inverse=True)
    rank = np.random.default_rng(0).permutation(int(members.max(initial=-1)) + 1)[members]
    order = np.argsort(rank, kind="stable")
    return np.sort(order[: max(1, int(np.searchsorted(np.cumsum(lengths[order]), _MOST_TOKENS, side="right")))])
