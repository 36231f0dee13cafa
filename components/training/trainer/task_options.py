"""The task and the model spec with the task options that a search chose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts.rows import AUGMENTED, read_rows
from components.artifacts.training import ModelSpec
from components.core.errors import BadParams, NotFound, listed
from components.model import tasks


def apply_options(name: str, options: Mapping[str, Any], chosen: Mapping[str, Any], learn: Path) -> tuple[tasks.Task, ModelSpec]:
    """Return the task `name` with `options`, the section of params.yaml, and `chosen` values for fields that are not in it.

    The model spec is that of `learn` with these options. Options that the task computes from the training rows, such as class weights,
    are computed again.

    Raises:
        NotFound: preprocessing has not run, or ran for another task.
        BadParams: an option is invalid, or the task does not let a search choose it.
    """
    task, spec = tasks.load(name, {**chosen, **options}), ModelSpec.read(learn)
    if spec.task != name:
        raise NotFound(f"{learn} was prepared for the task {spec.task}, not {name}; run `dvc repro preprocess`")
    if refused := sorted(chosen.keys() - set(task.searchable_options)):
        allowed = listed(task.searchable_options, 10) or "none"
        raise BadParams(f"a search cannot choose task_options.{refused[0]}; options of {name} that it may choose: {allowed}")
    if chosen:
        rows = read_rows(learn / "train.parquet")
        own = rows[rows[AUGMENTED].isna()].reset_index(drop=True) if AUGMENTED in rows else rows
        spec = spec.model_copy(update={"options": task.complete_options(own)})
    return task, spec
