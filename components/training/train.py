"""The step `train`: fine-tune the base model and package a model that answers raw text.

Reads data/prepared/learn, data/base and models/tuned/settings.json; never the test split.
Several settings give the mean of their weights. After training, class biases, options that the task fits on the validation rows (such as
thresholds) and a temperature are added, if requested.
Writes models/trained: model/ (safetensors, tokenizer, retune.json), history.jsonl, training.json; with `lora_store: adapter` also
adapter/, the learned weights without the base, which is then registered instead of model/.
Checkpoints are in var/checkpoints/<identity> during training: after a kill, the same command resumes from them.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts.manifest import base_folder
from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec, SoupMember, Training
from components.artifacts.tuning_result import Setting, TunedSettings
from components.core.errors import BadParams
from components.core.hashing import digest_file
from components.core.output_dir import fresh
from components.core.section import NOTHING, OpenSection
from components.model import adapter, tasks
from components.training.trainer import TrainParams, TrainSection, hardware
from components.training.trainer.class_biases import ClassBiases, add_biases, fit_class_biases
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, TrainResult
from components.training.trainer.identity import digest_inputs, training_identity
from components.training.trainer.memory import fit_within_memory
from components.training.trainer.soup import average_weights, evaluate, soup_members
from components.training.trainer.state_dir import state_folder
from components.training.trainer.task_options import apply_options
from components.training.trainer.temperature import Temperature, fit_temperature

log = logging.getLogger(__name__)


def train(learn: Path, base: Path, tuned: Path, out: Path, *, task: str, train: TrainSection, task_options: OpenSection = NOTHING) -> None:
    """Fine-tune `base` on `learn` with the settings of params.yaml, and with those that the search chose for fields not written there.

    If the search has trained with the same settings, its weights are used; training again would give the same bits.

    Raises:
        NotFound: an earlier step has not run, or ran for another task.
        BadParams: a field is set to `tuned` and the search chose no value for it.
        BadModel: the base model is refused or cannot be loaded.
        RetuneError: training diverged, or memory runs out with every batch size.
    """
    chosen = TunedSettings.read(tuned)
    members = soup_members(train, chosen)
    settings = members[0]
    task_object, spec = apply_options(task, task_options.fields, chosen.task_options, learn)
    data, base = PreparedSplits.read(learn, settings.base, spec), base_folder(base, settings.base)
    check_after_training(task, task_object, settings)
    if settings.stores_adapter:
        adapter.verified_manifest(base)  # without it the base could not be found again; fail before the training
    history = fresh(out) / "history.jsonl"
    history.touch()
    log.info("training on %d rows, validating on %d: %s", len(data.train), len(data.validation), _listed(settings))
    checkpoints = Checkpoints(digest_inputs(learn, base), data.spec, history)
    result, settings, soup = train_members(task_object, base, data, members, checkpoints)
    biases = add_class_biases(result, data, learn) if settings.class_biases == "fitted" else None
    model = save(result, task_object, base, data.spec, out / "model")
    spec = fit_task_options(model, task_object, data.spec, learn)
    temperature = calibrate(model, task_object, spec, learn) if settings.calibration == "temperature" else None
    if result.adapter_weights is not None:
        adapter.write(result.adapter_weights, model, base, out / "adapter")
    fitted = {"task_options": chosen.task_options, "soup": soup, **_bias_record(biases, data.spec)}
    record = training_record(result, settings, digest_file(model / "model.safetensors"), temperature).model_copy(update=fitted)
    record.write(out)
    checkpoints.remove()
    log.info(
        "trained %d steps in %.0f s (%.0f examples/s), stopped by %s; best %s %.4f at step %d",
        *(record.steps, record.seconds, record.examples_per_second, record.stopped_by, record.metric, record.best_value, record.best_step),
    )


def check_after_training(name: str, task: tasks.Task, settings: TrainParams) -> None:
    """Check that the task has classes if settings need them; raise BadParams if not."""
    for field in ("calibration", "class_biases"):
        if getattr(settings, field) != "none" and not task.classes:
            reason = task.unsupported_settings.get(field, "it has no class probabilities")
            raise BadParams(f"params.yaml: train.{field} is {getattr(settings, field)}, but the task {name} does not support it: {reason}")


class Checkpoints:
    """The checkpoint folders of the members of a training; the first member writes the history of the step."""

    def __init__(self, inputs: str, spec: ModelSpec, history: Path) -> None:
        self._inputs, self._spec, self._history = inputs, spec, history
        self._folders: list[Path] = []

    def of(self, settings: TrainParams, first: bool) -> CheckpointPaths:
        """Return the paths of a training with `settings`; the folder may contain a training of the search or of a killed process."""
        folder = state_folder("checkpoints") / training_identity(self._inputs, self._spec, settings)
        self._folders.append(folder)
        return CheckpointPaths(folder, self._history if first else folder / "member.jsonl")

    def remove(self) -> None:
        """Delete the folders."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


def train_members(
    task: tasks.Task, base: Path, data: PreparedSplits, members: Sequence[TrainParams], checkpoints: Checkpoints
) -> tuple[TrainResult, TrainParams, tuple[SoupMember, ...]]:
    """Train with the settings of each member, and return the result, or that of the mean of their weights if there are several.

    Also return the settings of the first member, whose batch may be smaller than requested, and a record of each member of a mean.
    """
    first, settings = fit_within_memory(task, base, data, members[0], keep=partial(checkpoints.of, first=True))
    if len(members) == 1:
        return first, settings, ()
    records, seconds = [SoupMember(settings={}, best_value=first.best_value, best_step=first.best_step)], [first.seconds]

    def train_other(member: TrainParams) -> Any:
        result, used = fit_within_memory(task, base, data, member, keep=partial(checkpoints.of, first=False))
        records.append(SoupMember(settings=_differences(used, settings), best_value=result.best_value, best_step=result.best_step))
        seconds.append(result.seconds)
        return result.model

    first.model.load_state_dict(average_weights(chain([first.model], map(train_other, members[1:]))))
    value, outputs = evaluate(task, first.model, base, data, settings)
    log.info(
        "mean of the weights of %d trainings: %s %.4f; the members: %s",
        *(len(records), settings.metric, value, ", ".join(f"{member.best_value:.4f}" for member in records)),
    )
    return replace(first, best_value=value, outputs=outputs, seconds=round(sum(seconds), 2)), settings, tuple(records)


def _differences(settings: TrainParams, others: TrainParams) -> dict[str, Setting]:
    """Return the fields of `settings` that differ from `others`."""
    plain = others.model_dump()
    return {name: value for name, value in settings.model_dump().items() if value != plain[name]}


def add_class_biases(result: TrainResult, data: PreparedSplits, learn: Path) -> ClassBiases:
    """Fit biases on the validation outputs of `result`, add them to its model, and return them; zeros if the model has no such bias."""
    labels = np.asarray(data.train.table.column("labels").to_numpy(), dtype=np.int64)
    counts = np.bincount(labels, minlength=len(data.spec.labels))
    rows = read_rows(learn / "validation.parquet")
    groups = (rows["group"] if "group" in rows else rows["id"]).tolist()
    biases = fit_class_biases(result.outputs.outputs, result.outputs.labels, groups, counts)
    if biases.values.any() and not add_biases(result.model, biases.values):
        log.warning("class biases are not added: the output layer of %s has no bias", type(result.model).__name__)
        biases = replace(biases, values=np.zeros_like(biases.values))
    verdict = "added" if biases.values.any() else "not added"
    log.info("class biases are %s: macro-F1 of held-out validation rows %+.4f, standard error %.4f", verdict, biases.gain, biases.error)
    return biases


def _bias_record(biases: ClassBiases | None, spec: ModelSpec) -> dict[str, Any]:
    if biases is None:
        return {}
    values = dict(zip(spec.labels, biases.values.tolist(), strict=True)) if biases.values.any() else {}
    return {"class_biases": values, "macro_f1_gain": (biases.gain, biases.error)}


def save(result: TrainResult, task: tasks.Task, base: Path, spec: ModelSpec, folder: Path) -> Path:
    """Write model, tokenizer and model spec into `folder`, without a pickle; the same weights give the same bytes."""
    result.model.save_pretrained(folder)
    task.load_tokenizer(base).save_pretrained(folder)  # a fresh tokenizer: a used one keeps the arguments of its last call
    spec.write(folder)
    return folder


def fit_task_options(model: Path, task: tasks.Task, spec: ModelSpec, learn: Path) -> ModelSpec:
    """Fit options of `task` on the validation rows of `learn`, write them into the spec of `model`, and return the spec."""
    options = task.calibrate(model, read_rows(learn / "validation.parquet"))
    if not options:
        return spec
    log.info("fitted on the validation rows: %s", ", ".join(f"{name} {value}" for name, value in sorted(options.items())))
    spec = spec.model_copy(update={"options": {**spec.options, **options}})
    spec.write(model)
    return spec


def calibrate(model: Path, task: tasks.Task, spec: ModelSpec, learn: Path) -> Temperature:
    """Fit the temperature on the predictions for the validation rows of `learn`, and write it into the spec of `model`."""
    rows = read_rows(learn / "validation.parquet")
    expected = np.array([spec.labels.index(label) for label in rows["label"]], dtype=np.int64)
    fitted = fit_temperature(task.predictor(model).answer(rows).probabilities, expected)
    spec.model_copy(update={"temperature": fitted.value}).write(model)
    log.info("temperature %.3f: negative log-likelihood of the validation rows %.4f, was %.4f", fitted.value, fitted.after, fitted.before)
    return fitted


def training_record(result: TrainResult, settings: TrainParams, weights: str, temperature: Temperature | None = None) -> Training:
    """Return the record of the training: settings, hardware and results."""
    same = {name: value for name, value in vars(result).items() if name in Training.model_fields}
    return Training(
        settings=settings.model_dump(),
        metric=settings.metric,
        peak_memory_mib=hardware.peak_memory_mib(),
        weights_sha256=weights,
        temperature=temperature.value if temperature else 1.0,
        validation_nll=(temperature.before, temperature.after) if temperature else None,
        **same,
    )


def _listed(settings: TrainParams) -> str:
    shown = ("method", "epochs", "learning_rate", "batch_size", "schedule", "warmup", "weight_decay", "seed")
    values = {name: getattr(settings, name) for name in shown}
    return ", ".join(f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}" for name, value in values.items())
