"""The step `train`: fine-tune the base model and package a model that answers raw text.

Reads data/prepared/learn, data/base and models/tuned/settings.json; never the test split.
After training, options that the task fits on the validation rows (such as thresholds) and the optional temperature are added.
Writes models/trained: model/ (safetensors, tokenizer, retune.json), history.jsonl, training.json; with `lora_store: adapter` also
adapter/, the learned weights without the base, which is then registered instead of model/.
Checkpoints are in var/checkpoints/<identity> during training: after a kill, the same command resumes from them.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.artifacts.manifest import base_folder
from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec, Training
from components.artifacts.tuning_result import TunedSettings
from components.core.errors import BadParams
from components.core.hashing import digest_file
from components.core.output_dir import fresh
from components.core.section import NOTHING, OpenSection
from components.model import adapter, tasks
from components.training.trainer import TrainParams, TrainSection, hardware
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, TrainResult, fit
from components.training.trainer.identity import digest_inputs, training_identity
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
        RetuneError: training diverged.
    """
    chosen = TunedSettings.read(tuned)
    settings = train.settings(chosen.settings)
    task_object, spec = apply_options(task, task_options.fields, chosen.task_options, learn)
    data, base = PreparedSplits.read(learn, settings.base, spec), base_folder(base, settings.base)
    if settings.calibration == "temperature" and not task_object.classes:
        raise BadParams(f"params.yaml: train.calibration is temperature, but the task {task} has no class probabilities")
    if settings.stores_adapter:
        adapter.verified_manifest(base)  # without it the base could not be found again; fail before the training
    checkpoints = state_folder("checkpoints") / training_identity(digest_inputs(learn, base), data.spec, settings)
    history = fresh(out) / "history.jsonl"
    history.touch()
    log.info("training on %d rows, validating on %d: %s", len(data.train), len(data.validation), _listed(settings))
    result = fit(task_object, base, data, settings, keep=CheckpointPaths(checkpoints, history))
    model = save(result, task_object, base, data.spec, out / "model")
    spec = fit_task_options(model, task_object, data.spec, learn)
    temperature = calibrate(model, task_object, spec, learn) if settings.calibration == "temperature" else None
    if result.adapter_weights is not None:
        adapter.write(result.adapter_weights, model, base, out / "adapter")
    record = training_record(result, settings, chosen.task_options, digest_file(model / "model.safetensors"), temperature)
    record.write(out)
    shutil.rmtree(checkpoints, ignore_errors=True)  # a method that does not train writes none
    log.info(
        "trained %d steps in %.0f s (%.0f examples/s), stopped by %s; best %s %.4f at step %d",
        *(record.steps, record.seconds, record.examples_per_second, record.stopped_by, record.metric, record.best_value, record.best_step),
    )


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


def training_record(
    result: TrainResult, settings: TrainParams, options: Mapping[str, Any], weights: str, temperature: Temperature | None = None
) -> Training:
    """Return the record of the training: settings, hardware and results."""
    same = {name: value for name, value in vars(result).items() if name in Training.model_fields}
    return Training(
        settings=settings.model_dump(),
        task_options=dict(options),
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
