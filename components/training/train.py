"""The step `train`: fine-tune the base model with the settings in force, and package what answers raw text.

Reads data/prepared/learn, data/base and models/tuned/settings.json; never the test split.
What the task settles on the validation rows, as a threshold, and a temperature, where asked for, follow once the weights are final.
Writes models/trained: model/ (safetensors, tokenizer, retune.json), history.jsonl, training.json; with `lora_store: adapter` also
adapter/, what was learnt without the base, which is what is registered then.
Checkpoints live in var/checkpoints/<identity> while training runs: after a kill, the same command goes on from there.
"""

import logging
import shutil
from pathlib import Path

import numpy as np

from components.artifacts.manifest import base_folder
from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec, Training
from components.artifacts.tuning_result import TunedSettings
from components.core.errors import BadParams, NotFound
from components.core.hashing import digest_code, digest_file, digest_folder, digest_value
from components.core.output_dir import fresh
from components.core.section import NOTHING, OpenSection
from components.model import adapter, tasks
from components.training.trainer import TrainParams, TrainSection, hardware
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, TrainResult, fit
from components.training.trainer.state_dir import state_folder
from components.training.trainer.temperature import Temperature, fit_temperature

log = logging.getLogger(__name__)


def train(learn: Path, base: Path, tuned: Path, out: Path, *, task: str, train: TrainSection, task_options: OpenSection = NOTHING) -> None:
    """Fine-tune `base` on `learn`; the settings are those of params.yaml, and the search's for the fields that say `tuned`.

    Raises:
        NotThere: an earlier step has not run, or ran for another task.
        BadParams: a field says `tuned` and the search chose nothing for it.
        BadModel: the base model must not or cannot be loaded.
        RetuneError: training diverged.
    """
    kind = tasks.load(task, task_options.fields)
    settings = train.settings(TunedSettings.read(tuned).settings)
    data, base = PreparedSplits.read(learn, settings.base), base_folder(base, settings.base)
    if data.spec.task != task:
        raise NotFound(f"{learn} was prepared for the task {data.spec.task}, not {task}; run `dvc repro preprocess`")
    if settings.calibration == "temperature" and not kind.classes:
        raise BadParams(f"params.yaml: train.calibration is temperature, and the task {task} has no probabilities of classes")
    if settings.adapted:
        adapter.pinned(base)  # who cannot be told from others cannot be found again; better said before the training
    checkpoints = state_folder("checkpoints") / _identity(learn, base, task, settings)
    history = fresh(out) / "history.jsonl"
    history.touch()
    log.info("training on %d rows, validating on %d: %s", len(data.train), len(data.validation), _listed(settings))
    result = fit(kind, base, data, settings, keep=CheckpointPaths(checkpoints, history))
    model = save(result, kind, base, data.spec, out / "model")
    spec = resolve_settings(model, kind, data.spec, learn)
    temperature = calibrate(model, kind, spec, learn) if settings.calibration == "temperature" else None
    if result.learnt is not None:
        adapter.write(result.learnt, model, base, out / "adapter")
    record = account(result, settings, digest_file(model / "model.safetensors"), temperature)
    record.write(out)
    shutil.rmtree(checkpoints)
    log.info(
        "trained %d steps in %.0f s (%.0f examples/s), stopped by %s; best %s %.4f at step %d",
        *(record.steps, record.seconds, record.examples_per_second, record.stopped_by, record.metric, record.best_value, record.best_step),
    )


def save(result: TrainResult, kind: tasks.Task, base: Path, spec: ModelSpec, folder: Path) -> Path:
    """Write model, tokenizer and contract into `folder`, without a pickle; the same weights give the same bytes."""
    result.model.save_pretrained(folder)
    kind.load_tokenizer(base).save_pretrained(folder)  # loaded anew: a used one remembers how it was last called
    spec.write(folder)
    return folder


def resolve_settings(model: Path, kind: tasks.Task, spec: ModelSpec, learn: Path) -> ModelSpec:
    """Write what `kind` settles on the validation rows of `learn` into the contract of `model`, and return the contract."""
    settled = kind.calibrate(model, read_rows(learn / "validation.parquet"))
    if not settled:
        return spec
    log.info("settled on the validation rows: %s", ", ".join(f"{name} {value}" for name, value in sorted(settled.items())))
    spec = spec.model_copy(update={"options": {**spec.options, **settled}})
    spec.write(model)
    return spec


def calibrate(model: Path, kind: tasks.Task, spec: ModelSpec, learn: Path) -> Temperature:
    """Fit the temperature on the validation rows of `learn`, asked as raw texts, and write it into the contract of `model`."""
    rows = read_rows(learn / "validation.parquet")
    expected = np.array([spec.labels.index(label) for label in rows["label"]], dtype=np.int64)
    fitted = fit_temperature(kind.predictor(model).answer(rows).probabilities, expected)
    spec.model_copy(update={"temperature": fitted.value}).write(model)
    log.info("temperature %.3f: negative log-likelihood of the validation rows %.4f, was %.4f", fitted.value, fitted.after, fitted.before)
    return fitted


def account(result: TrainResult, settings: TrainParams, weights: str, temperature: Temperature | None = None) -> Training:
    """Return the record of the training: the settings in force and what the machine added to them."""
    return Training(
        settings=settings.model_dump(),
        threads=result.threads,
        device=result.device,
        precision=result.precision,
        parameters=result.parameters,
        steps=result.steps,
        epochs=result.epochs,
        best_step=result.best_step,
        metric=settings.metric,
        best_value=result.best_value,
        stopped_by=result.stopped_by,
        resumed=result.resumed,
        seconds=result.seconds,
        examples_per_second=result.examples_per_second,
        peak_memory_mib=hardware.peak_memory_mib(),
        weights_sha256=weights,
        temperature=temperature.value if temperature else 1.0,
        validation_nll=(temperature.before, temperature.after) if temperature else None,
    )


def _identity(learn: Path, base: Path, task: str, settings: TrainParams) -> str:
    """Return the name of the checkpoints: what they may be continued by. Threads, device and precision belong to it."""
    place = [hardware.set_threads(settings.threads), hardware.device(), hardware.precision(settings)]
    inputs = [
        digest_folder(learn),
        digest_folder(base, exclude=["manifest.json"]),
        digest_code(f"model/tasks/{task}", "model/methods"),
        task,
    ]
    return digest_value([*inputs, *place, settings.model_dump(exclude={"lora_store"})])[:16]


def _listed(settings: TrainParams) -> str:
    shown = ("method", "epochs", "learning_rate", "batch_size", "schedule", "warmup", "weight_decay", "seed")
    values = {name: getattr(settings, name) for name in shown}
    return ", ".join(f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}" for name, value in values.items())
