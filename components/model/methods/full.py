"""Full fine-tuning: every weight learns."""

from typing import Any

from components.core.section import Section

IN_PLACE = True


class Params(Section):
    """No settings."""


def prepare(model: Any, params: Params) -> Any:
    """Return `model` unchanged."""
    return model


def finish(model: Any) -> Any:
    """Return `model` unchanged."""
    return model
