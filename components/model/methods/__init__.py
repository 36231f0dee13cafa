"""The methods of fine-tuning: one file a method, found by name; there is no registry to edit.

A method says which weights learn. It is a module whose public names fit the protocol `Method`: what stands below it in `train`
(`FIELDS`), how a loaded model is made ready, and how a trained one becomes a plain model again, which is what every step reads.
Importing this package, or a method, imports no torch.
"""

from pathlib import Path
from typing import Any, Protocol, cast

from components.core import plugins

FOLDER = Path(__file__).parent


class Method(Protocol):
    """What a method file offers, as names of the module."""

    FIELDS: tuple[str, ...]
    """The fields of `train` that only this method reads; `prepare` is handed them by name."""

    def prepare(self, model: Any, **fields: Any) -> Any:
        """Return what is trained: `model` itself, or `model` in a wrapper; what must not learn has `requires_grad` off.

        New weights are drawn from torch's global generator, so that the seed decides them.

        Raises:
            BadParams: a field does not fit the model.
        """

    def finish(self, model: Any) -> Any:
        """Return the plain model of what `prepare` returned, with all that was learnt in its own weights."""


def available() -> list[str]:
    """Return the names of all methods, sorted: the files of this folder."""
    return plugins.names(FOLDER)


def load(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        BadParams: the file does not exist.
    """
    return cast(Method, plugins.load(__name__, name, available(), "method"))


def unknown_method(name: str) -> str:
    """Return the message about a method that does not exist."""
    return plugins.unknown(__name__, name, available(), "method")
