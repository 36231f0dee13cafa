"""Warm start from earlier searches: their trials on the same data are carried over, and on other data their winner is tried first."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from components.artifacts.manifest import OTHERS
from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec
from components.core.hashing import digest_folder, digest_sources, digest_value
from components.core.section import OpenSection
from components.training.trainer import TrainSection, hardware
from components.training.trainer.identity import CODE
from components.training.tune.auto.portfolio import Portfolio
from components.training.tune.auto.trials import ENDED, REQUESTED, SOUP
from components.training.tune.settings import Dimension, TuneParams
from components.training.tune.storage import open_studies
from components.training.tune.study import SETTINGS
from components.training.tune.warm_start import CARRIED, base_digests, carry_over, copy_trial

_CONTEXT, _SCOPE, _ROWS, _WINNER, _TIME = "auto context", "auto scope", "auto rows", "auto winner", "auto time"
_BASES, _COPIED = "auto bases", "auto copied"
_SKETCH = 512  # hashes
_LEAST, _PER_MOVED = 0.25, 3.0  # share of the minutes for unchanged rows, and what each share of changed rows adds


@dataclass(frozen=True)
class SearchContext:
    """The inputs that make searches comparable: with an equal `context` trials have equal scores, with an equal `scope` a winner is useful.

    `bases` has the digest of each base model by name, `rows` is a sketch of the data.
    """

    context: str
    scope: str
    bases: Mapping[str, str]
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Previous:
    """The winner of the newest search in the same scope, and the share of the rows that changed since; 1 if the base models changed."""

    winner: dict[str, Any]
    moved: float

    @property
    def share(self) -> float:
        """The share of the minutes that the data are worth: a quarter if nothing moved, all from a quarter of the rows on."""
        return min(1.0, _LEAST + _PER_MOVED * self.moved)


def sketch(rows: Sequence[str]) -> tuple[str, ...]:
    """Return the smallest hashes of the distinct rows, at most 512: a bottom-k sketch.

    Broder, "On the resemblance and containment of documents" (1997).
    """
    return tuple(sorted({hashlib.sha256(row.encode()).hexdigest()[:16] for row in rows})[:_SKETCH])


def similarity(first: Sequence[str], second: Sequence[str]) -> float:
    """Return the estimated share of texts that two sets have in common (Jaccard), from their sketches."""
    union = sorted({*first, *second})[:_SKETCH]
    return sum(name in first and name in second for name in union) / len(union) if union else 1.0


def read_context(
    tune: TuneParams, train: TrainSection, options: OpenSection, learn: Path, base: Path, bases: Sequence[str]
) -> SearchContext:
    """Return the context of a search on `learn` with `bases`."""
    machine = [hardware.set_threads(train.fixed.threads), hardware.device(), hardware.precision(train.fixed)]
    written = {name: getattr(train.fixed, name) for name in sorted(train.fixed.model_fields_set)}
    scope = ["auto", ModelSpec.read(learn).task, tune.metric, options.fields, written]
    data = [digest_folder(learn, exclude=[OTHERS]), digest_sources(*CODE)]
    rows = read_rows(learn / "train.parquet")[["text", "label"]].astype(str).agg("\x1f".join, axis=1).tolist()
    return SearchContext(digest_value([*scope, *machine, tune.seed, *data]), digest_value(scope), base_digests(base, bases), sketch(rows))


def warm_start(study: optuna.Study, target: SearchContext, portfolio: Portfolio) -> Previous | None:
    """Carry comparable trials of other searches over into a new `study`; return the winner of the newest search in its scope, if any."""
    study.set_user_attr(_SCOPE, target.scope)
    study.set_user_attr(_ROWS, list(target.rows))
    study.set_user_attr(_BASES, dict(target.bases))
    study.set_user_attr(_CONTEXT, target.context)
    others = [other for other in open_studies().others(study.study_name) if other.user_attrs.get(_SCOPE) == target.scope]
    if not study.user_attrs.get(_COPIED):
        sources = [other for other in others if other.user_attrs.get(_CONTEXT) == target.context]
        carry_over(study, sources, partial(_copy, portfolio.space, target.bases), lambda trial: trial.user_attrs.get(REQUESTED))
        study.set_user_attr(_COPIED, True)
    finished = [other for other in others if _WINNER in other.user_attrs]
    if not finished:
        return None
    newest = max(finished, key=lambda other: float(other.user_attrs[_TIME]))
    same = newest.user_attrs[_BASES] == dict(target.bases)
    return Previous(newest.user_attrs[_WINNER], 1 - similarity(newest.user_attrs[_ROWS], target.rows) if same else 1.0)


def remember(study: optuna.Study, winner: Mapping[str, Any]) -> None:
    """Store the winner for later searches."""
    study.set_user_attr(_TIME, time.time())
    whole = {name: value for name, value in winner.items() if name != "stop_after_steps"}
    study.set_user_attr(_WINNER, whole)  # last: it implies the time


def _copy(space: Mapping[str, Dimension], bases: Mapping[str, str], source: optuna.Study, trial: FrozenTrial) -> FrozenTrial | None:
    """Return a copy of a trial of another search, which cost nothing; None if its base model is another or it is a weight average."""
    settings = trial.user_attrs.get(SETTINGS, {})
    base = settings.get("base")
    if SOUP in trial.user_attrs or REQUESTED not in trial.user_attrs:
        return None
    if base not in bases or source.user_attrs[_BASES].get(base) != bases[base]:
        return None
    active = {name: settings[name] for name, dimension in space.items() if dimension.active(settings) and name in settings}
    return copy_trial(trial, active if trial.params else {}, space, {CARRIED: source.study_name, ENDED: 0.0})
