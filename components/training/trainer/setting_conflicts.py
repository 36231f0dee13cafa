"""Settings of `train` that exclude each other: a value that nothing would read is an error, not ignored."""

from collections.abc import Collection, Mapping
from typing import Any

from components.model import methods

_USED_IF: dict[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd",)),
    "nesterov": ("optimizer", ("sgd",)),
    "schedule_power": ("schedule", ("polynomial",)),
    "plateau_factor": ("schedule", ("plateau",)),
    "plateau_patience": ("schedule", ("plateau",)),
    "swa": ("schedule", ("constant",)),  # an average over falling learning rates is hardly an average
}
_LENGTH = ("epochs", "contrastive_start")


def setting_conflicts(settings: Mapping[str, Any], defaults: Mapping[str, Any], tuned: Collection[str] = ()) -> list[str]:
    """Return the conflicts between `settings`, each as `field: reason`; conflicts that depend on a `tuned` field are left out.

    A field at its default is never a conflict.
    """
    changed = [name for name, value in settings.items() if value != defaults[name] and name not in tuned]
    return _unread(settings, changed, tuned) + _pairs(settings, changed, tuned)


def _unread(settings: Mapping[str, Any], changed: Collection[str], tuned: Collection[str]) -> list[str]:
    faults = []
    for name, (switch, values) in (_USED_IF | _method_fields()).items():
        if name in changed and switch not in tuned and settings[switch] not in values:
            expected = " or ".join(values)
            faults.append(f"{name}: is used only if {switch} is {expected}, found {settings[name]!r} with {switch} {settings[switch]}")
    return faults


def _method_fields() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the fields that depend on the method: its own, and those that need a base that learns in place."""
    loaded = {name: methods.load(name) for name in methods.available()}
    in_place = tuple(name for name, method in loaded.items() if method.IN_PLACE)
    own = {field: ("method", (name,)) for name, method in loaded.items() for field in method.Params.model_fields}
    return {"layer_decay": ("method", in_place), "l2_sp": ("method", in_place)} | own


def _pairs(settings: Mapping[str, Any], changed: Collection[str], tuned: Collection[str]) -> list[str]:
    faults = []
    if "nesterov" in changed and settings["momentum"] == 0 and "momentum" not in tuned:
        faults.append("nesterov: needs momentum above 0, found momentum 0")
    if "r_drop" in changed and settings["dropout"] == 0 and "dropout" not in tuned:
        faults.append("r_drop: compares two passes that differ by dropout, found dropout 0")
    if {"swa", "ema"} <= {*changed} and not {"swa", "ema"} & set(tuned):
        faults.append("swa: only one average of the weights is possible, and ema is set too; remove one of them")
    epochs = settings["epochs"] + settings["contrastive_start"]
    if "unfreeze_every" in changed and epochs <= settings["unfreeze_every"] and not {*_LENGTH, "unfreeze_every"} & set(tuned):
        faults.append(f"unfreeze_every: no layer is unfrozen within {epochs:g} epochs, found {settings['unfreeze_every']:g}")
    if {"swa", "contrastive_start"} <= {*changed} and settings["swa"] * epochs > settings["epochs"] and not {*_LENGTH} & set(tuned):
        faults.append(f"swa: would also average steps of contrastive_start, found {settings['swa']:g} of {epochs:g} epochs")
    if "contrastive_start" in changed and settings["batch_size"] == 1 and "batch_size" not in tuned:
        faults.append("contrastive_start: compares the rows of a batch, found batch_size 1")
    freezing = {"method", "frozen_layers", "unfreeze_every"} & set(tuned)
    all_frozen = settings["frozen_layers"] == -1 and not freezing
    if {"unfreeze_every", "contrastive_start"} <= {*changed} and all_frozen:
        faults.append("contrastive_start: has no effect before unfreeze_every lets the first layer learn; set frozen_layers")
    if settings["method"] == "freeze" and all_frozen and not settings["unfreeze_every"]:
        idle = [name for name in ("l2_sp", "layer_decay", "contrastive_start") if name in changed]
        faults += [f"{name}: has no effect if frozen_layers is -1" for name in idle]
    return faults
