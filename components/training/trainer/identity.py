"""The identity of a training: trainings with equal identities give the same weights, bit by bit."""

from pathlib import Path

from components.artifacts.training import ModelSpec
from components.core.hashing import digest_folder, digest_sources, digest_value
from components.training.trainer import hardware
from components.training.trainer.settings import TrainParams

CODE = ("core", "artifacts", "model", "training/trainer")
_AFTER_TRAINING = {"lora_store", "calibration", "class_biases"}


def digest_inputs(learn: Path, base: Path) -> str:
    """Return a digest of the folder `learn`, the folder of the base model and the code that trains."""
    return digest_value([digest_folder(learn), digest_folder(base, exclude=["manifest.json"]), digest_sources(*CODE)])


def training_identity(inputs: str, spec: ModelSpec, settings: TrainParams) -> str:
    """Return a digest of everything that the weights depend on, hardware included; `inputs` is that of `digest_inputs`.

    It is the name of the checkpoint folder of a training on all rows of `learn`, so that the step `train` finds a training of the search.
    """
    machine = [hardware.set_threads(settings.threads), hardware.device(), hardware.precision(settings)]
    own = settings.model_dump(exclude=_AFTER_TRAINING)
    return digest_value([inputs, spec.model_dump(mode="json"), *machine, own])[:16]
