"""Settings of `train` that exclude each other: a value that nothing would read is an error, not a silence."""

from collections.abc import Collection, Mapping
from typing import Any

from components.model import methods

_READ_WHERE: dict[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd",)),
    "nesterov": ("optimizer", ("sgd",)),
    "schedule_power": ("schedule", ("polynomial",)),
    "plateau_factor": ("schedule", ("plateau",)),
    "plateau_patience": ("schedule", ("plateau",)),
    "layer_decay": ("method", ("freeze", "full")),
    "swa": ("schedule", ("constant",)),  # an average of ever smaller steps is hardly one
    "lora_store": ("method", ("lora",)),  # read once training is over, not by `prepare`
    "l2_sp": ("method", ("freeze", "full")),  # elsewhere the base's weights do not move
}
_LENGTH = ("epochs", "contrastive_start")


def setting_conflicts(settings: Mapping[str, Any], defaults: Mapping[str, Any], tuned: Collection[str] = ()) -> list[str]:
    """Return what is wrong with `settings` taken together, each as `field: reason`; what hangs on a `tuned` field is left open.

    A field at its default is no fault wherever it stands.
    """
    changed = [name for name, value in settings.items() if value != defaults[name] and name not in tuned]
    return _unread(settings, changed, tuned) + _pairs(settings, changed, tuned)


def _unread(settings: Mapping[str, Any], changed: Collection[str], tuned: Collection[str]) -> list[str]:
    """Name the fields that were given a value and that nothing reads."""
    faults = []
    for name, (switch, values) in (_READ_WHERE | _of_methods()).items():
        if name in changed and switch not in tuned and settings[switch] not in values:
            wanted = " or ".join(values)
            faults.append(f"{name}: is read where {switch} is {wanted}, found {settings[name]!r} with {switch} {settings[switch]}")
    return faults


def _pairs(settings: Mapping[str, Any], changed: Collection[str], tuned: Collection[str]) -> list[str]:
    """Name the pairs of values that make no sense together."""
    faults = []
    if "nesterov" in changed and settings["momentum"] == 0 and "momentum" not in tuned:
        faults.append("nesterov: needs momentum above 0, found momentum 0")
    if "r_drop" in changed and settings["dropout"] == 0 and "dropout" not in tuned:
        faults.append("r_drop: compares two passes that differ by dropout, found dropout 0")
    if {"swa", "ema"} <= {*changed} and not {"swa", "ema"} & set(tuned):
        faults.append("swa: one average of the weights is kept, and ema is one; leave one of them out")
    epochs = settings["epochs"] + settings["contrastive_start"]
    if "unfreeze_every" in changed and epochs <= settings["unfreeze_every"] and not {*_LENGTH, "unfreeze_every"} & set(tuned):
        faults.append(f"unfreeze_every: nothing is unfrozen within {epochs:g} epochs, found {settings['unfreeze_every']:g}")
    if {"swa", "contrastive_start"} <= {*changed} and settings["swa"] * epochs > settings["epochs"] and not {*_LENGTH} & set(tuned):
        faults.append(f"swa: averages steps of contrastive_start too, found {settings['swa']:g} of {epochs:g} epochs")
    if "contrastive_start" in changed and settings["batch_size"] == 1 and "batch_size" not in tuned:
        faults.append("contrastive_start: compares the rows of a batch, found batch_size 1")
    thawing = {"method", "frozen_layers", "unfreeze_every", "contrastive_start"}
    if {"unfreeze_every", "contrastive_start"} <= {*changed} and settings["frozen_layers"] == -1 and not thawing & set(tuned):
        faults.append("contrastive_start: has nothing to act on before unfreeze_every lets the first layer learn; set frozen_layers")
    hung = {"method", "frozen_layers", "unfreeze_every"} & set(tuned)
    frozen = settings["method"] == "freeze" and settings["frozen_layers"] == -1 and not settings["unfreeze_every"] and not hung
    idle = [name for name in ("l2_sp", "layer_decay", "contrastive_start") if frozen and name in changed]
    return faults + [f"{name}: has nothing to act on where frozen_layers is -1" for name in idle]


def _of_methods() -> dict[str, tuple[str, tuple[str, ...]]]:
    return {field: ("method", (name,)) for name in methods.available() for field in methods.load(name).FIELDS}
