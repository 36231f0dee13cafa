"""The methods of fine-tuning: one file per method, found by name; there is no registry to edit.

A method decides which weights learn. It is a module whose public names fit the protocol `Method`: its settings, how it prepares a
loaded model, and how it turns a trained one back into a plain model, which is what every step reads.
Importing this package, or a method, does not import torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from components.core import plugins
from components.core.section import Section

FOLDER = Path(__file__).parent


class Method(Protocol):
    """The names that the module of a method defines."""

    Params: type[Section]
    """The settings of `train` that only this method reads; begin their names with the name of the method."""

    IN_PLACE: bool
    """Whether the base's own weights learn: `layer_decay` and `l2_sp` need that. False for a wrapper, as in LoRA."""

    TRAINS: bool
    """Optional: false if no step is trained and the output layer is the linear probe's; a module without it trains."""

    def prepare(self, model: Any, params: Any) -> Any:
        """Return the model to train: `model` itself or a wrapper; weights that must not learn have `requires_grad` off.

        New weights are drawn from torch's global generator, so that the seed decides them.
        Raise BadParams if a setting does not fit the model.
        """

    def finish(self, model: Any) -> Any:
        """Return the plain model of the result of `prepare`, with everything that was learned in its own weights."""


def available() -> list[str]:
    """Return the names of all methods, sorted: the files of this folder."""
    return plugins.names(FOLDER)


def load(name: str) -> Method:
    """Return the method called `name`; raise BadParams if the file does not exist."""
    return cast(Method, plugins.load(__name__, name, available(), "method"))


def trains(name: str) -> bool:
    """Return whether the method called `name` trains; else its output layer is the solution of the linear probe."""
    return bool(getattr(load(name), "TRAINS", True))


def all_settings() -> Any:
    """Return a section with the settings of every method: they are fields of `train`, without a list to edit."""
    sections = [load(name).Params for name in available()]
    renamed = {old: new for section in sections for old, new in section.renamed.items()}
    return type("MethodSettings", tuple(sections), {"__module__": __name__, "__doc__": "The settings of all methods.", "renamed": renamed})


def settings_of(name: str, values: Mapping[str, Any]) -> Section:
    """Return the settings of the method `name`, picked from the `values` of the section `train`."""
    section = load(name).Params
    return section(**{field: values[field] for field in section.model_fields})
